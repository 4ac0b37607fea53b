"""Fusion networks, one a file: the outputs of several bases and a context in, one prediction and its weights out."""

from metarec.fusion.networks._base import (
    FusionNetwork,
    FusionOutput,
    ParallelLinear,
    Task,
    all_features,
    available_mean,
)
from metarec.fusion.networks.attention import MetaRecommenderFusion
from metarec.fusion.networks.gated import GatedFusion
from metarec.fusion.networks.hypernetwork import HyperNetworkFusion
from metarec.fusion.networks.linear import LinearFusion
from metarec.fusion.networks.mlp import MAMLRecommenderFusion
from metarec.fusion.networks.residual import ResidualFusion
from metarec.registry import Registry

__all__ = [
    "NETWORKS",
    "FusionNetwork",
    "FusionOutput",
    "GatedFusion",
    "HyperNetworkFusion",
    "LinearFusion",
    "MAMLRecommenderFusion",
    "MetaRecommenderFusion",
    "ParallelLinear",
    "ResidualFusion",
    "Task",
    "all_features",
    "available_mean",
]

NETWORKS = Registry(
    "fusion network",
    "metarec.fusion",
    {
        "attention": "metarec.fusion.networks.attention:MetaRecommenderFusion",
        "hypernetwork": "metarec.fusion.networks.hypernetwork:HyperNetworkFusion",
        "mlp": "metarec.fusion.networks.mlp:MAMLRecommenderFusion",
        "linear": "metarec.fusion.networks.linear:LinearFusion",
        "residual": "metarec.fusion.networks.residual:ResidualFusion",
        "gated": "metarec.fusion.networks.gated:GatedFusion",
    },
)
