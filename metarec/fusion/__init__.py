"""Fusion: networks and their search spaces, stackers, losses, and convex combinations of finished models."""

from metarec.fusion._copies import call_with, copy_with
from metarec.fusion.networks import (
    NETWORKS,
    FusionNetwork,
    FusionOutput,
    GatedFusion,
    HyperNetworkFusion,
    LinearFusion,
    MAMLRecommenderFusion,
    MetaRecommenderFusion,
    ParallelLinear,
    ResidualFusion,
    Task,
    all_features,
    available_mean,
)
from metarec.fusion.space import Choice, IntRange, Limits, Parameter, RealRange

__all__ = [
    "NETWORKS",
    "Choice",
    "FusionNetwork",
    "FusionOutput",
    "GatedFusion",
    "HyperNetworkFusion",
    "IntRange",
    "Limits",
    "LinearFusion",
    "MAMLRecommenderFusion",
    "MetaRecommenderFusion",
    "ParallelLinear",
    "Parameter",
    "RealRange",
    "ResidualFusion",
    "Task",
    "all_features",
    "available_mean",
    "call_with",
    "copy_with",
]
