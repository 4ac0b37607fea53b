"""What the runs of a study are called, and the tags by which they are filtered: the same wherever a run is made."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from metarec.study.spec import StudySpec
from metarec.study.transfer_spec import STRATEGY

__all__ = ["study_tags", "trial_label", "trial_tags"]

NONE = "none"
"""The strategy where nothing is transferred."""


def trial_label(spec: StudySpec, params: Mapping[str, Any]) -> str:
    """Behind a trial's number: its network or strategy, the engine, and what it chose among names.

    >>> trial_label(StudySpec(fusion={"network": "attention"}), {"inner_lr": 0.1, "combine": "product"})
    'attention/batched product'
    """
    choices = [value for name, value in params.items() if isinstance(value, str) and name != STRATEGY]
    return " ".join([f"{params.get(STRATEGY, spec.fusion.network)}/{spec.engine}", *choices])


def study_tags(spec: StudySpec) -> dict[str, str]:
    """The tags of a study's own run; of several strategies all are named."""
    searched = spec.transfer.strategies if spec.transfer is not None else [NONE]
    return {
        "domain": spec.target or NONE,
        "strategy": ", ".join(searched),
        "fusion": spec.fusion.network,
        "engine": spec.engine,
    }


def trial_tags(spec: StudySpec, params: Mapping[str, Any]) -> dict[str, str]:
    """The tags of a trial's run, beside ``state``, which its record knows."""
    return {**study_tags(spec), "strategy": params.get(STRATEGY, NONE)}
