"""What each part of a fusion is worth, on cold users. ``python -m benchmarks.ablation``"""
