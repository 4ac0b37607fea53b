"""The engines, one a file: each computes the same meta-loss and the same adapted networks."""

from metarec.meta.engines._make import ENGINES, make_engine

__all__ = ["ENGINES", "make_engine"]
