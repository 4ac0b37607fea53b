"""Studies as jobs: killed processes, overhead, and where the time goes. ``python -m benchmarks.study.kill``"""
