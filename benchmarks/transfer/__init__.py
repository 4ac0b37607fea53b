"""The benchmark of transfer between domains. ``python -m benchmarks.transfer``"""
