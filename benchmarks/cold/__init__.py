"""Users who are not seen in training: metarec against every tuned baseline. ``python -m benchmarks.cold``"""
