"""Fusion networks: one prediction from those of many bases, and how far each of them was trusted."""

from metarec.fusion._base import FusionNetwork, FusionOutput
from metarec.fusion.attention import MetaRecommenderFusion
from metarec.registry import Registry

__all__ = ["NETWORKS", "FusionNetwork", "FusionOutput", "MetaRecommenderFusion"]

NETWORKS = Registry(
    "fusion network",
    "metarec.fusion",
    {"attention": "metarec.fusion.attention:MetaRecommenderFusion"},
)
