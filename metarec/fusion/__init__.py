"""Fusion networks: one prediction from those of many bases, and how far each of them was trusted."""

from metarec.fusion._base import FusionNetwork, FusionOutput
from metarec.fusion._layers import ParallelLinear
from metarec.fusion.attention import MetaRecommenderFusion
from metarec.fusion.gated import GatedFusion
from metarec.fusion.hypernetwork import HyperNetworkFusion
from metarec.fusion.linear import LinearFusion
from metarec.fusion.mlp import MAMLRecommenderFusion
from metarec.fusion.residual import ResidualFusion
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
]

NETWORKS = Registry(
    "fusion network",
    "metarec.fusion",
    {
        "attention": "metarec.fusion.attention:MetaRecommenderFusion",
        "hypernetwork": "metarec.fusion.hypernetwork:HyperNetworkFusion",
        "mlp": "metarec.fusion.mlp:MAMLRecommenderFusion",
        "linear": "metarec.fusion.linear:LinearFusion",
        "residual": "metarec.fusion.residual:ResidualFusion",
        "gated": "metarec.fusion.gated:GatedFusion",
    },
)
