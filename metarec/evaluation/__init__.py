"""Evaluation: metrics, paired intervals, segments of users, and the best network's weights."""
