"""The strategies by name, in the order of tables."""

from __future__ import annotations

from metarec.registry import Registry

__all__ = ["STRATEGIES"]

STRATEGIES = Registry(
    "strategy",
    "metarec.strategies",
    {
        "auto": "metarec.transfer.strategies.auto:Auto",
        "stack": "metarec.transfer.strategies.stack:Stack",
        "scratch": "metarec.transfer.strategies.controls:Scratch",
        "zero_shot": "metarec.transfer.strategies.controls:ZeroShot",
        "pooled": "metarec.transfer.strategies.controls:Pooled",
        "model_agnostic": "metarec.transfer.strategies.model_agnostic:ModelAgnostic",
        "gradient_based": "metarec.transfer.strategies.gradient_based:GradientBased",
        "feature_alignment": "metarec.transfer.strategies.feature_alignment:FeatureAlignment",
        "prototype_based": "metarec.transfer.strategies.prototype_based:PrototypeBased",
    },
)
