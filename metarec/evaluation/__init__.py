"""Evaluation: metrics, paired intervals, segments of users, and what the best network does."""
