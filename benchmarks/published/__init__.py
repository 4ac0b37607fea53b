"""Cold users of published protocols, with the figures of others beside ours. ``python -m benchmarks.published``"""
