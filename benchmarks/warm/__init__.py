"""Users with known histories, on published splits. ``python -m benchmarks.warm``"""
