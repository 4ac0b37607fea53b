"""What transfer between domains is worth. ``python -m benchmarks.transfer``"""
