"""The time and memory of a meta-step, by engine. ``python -m benchmarks.engines``"""
