"""The strategies by name."""

from __future__ import annotations

from metarec.registry import Registry

__all__ = ["STRATEGIES"]

STRATEGIES = Registry(
    "strategy",
    "metarec.strategies",
    {
        "auto": "metarec.transfer.auto:Auto",
        "scratch": "metarec.transfer.scratch:Scratch",
        "zero_shot": "metarec.transfer.zero_shot:ZeroShot",
        "pooled": "metarec.transfer.pooled:Pooled",
        "model_agnostic": "metarec.transfer.model_agnostic:ModelAgnostic",
        "gradient_based": "metarec.transfer.gradient_based:GradientBased",
        "feature_alignment": "metarec.transfer.feature_alignment:FeatureAlignment",
        "prototype_based": "metarec.transfer.prototype_based:PrototypeBased",
    },
)
