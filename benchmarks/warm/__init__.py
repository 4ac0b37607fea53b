"""Known users of MovieLens-100K, on the folds of Surprise's table. ``python -m benchmarks.warm``"""
