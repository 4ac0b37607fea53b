"""What a meta-step costs, engine by engine. ``python -m benchmarks.engines``"""
