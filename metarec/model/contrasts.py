"""The models that show what a fusion's gain is made of: its parts, and the fusion without one of its parts."""

from __future__ import annotations

from collections.abc import Mapping

from metarec.meta import NetworkConfig
from metarec.model.fusion import Fusion, Task

__all__ = [
    "AVERAGED",
    "CONTRASTS",
    "NETWORK_ALONE",
    "NO_INNER_LOOP",
    "STACK",
    "STACK_MEAN",
    "contrasts_of",
    "stacks_of",
    "without_inner_loop",
]

NETWORK_ALONE = "network"
"""The best trial's network alone."""

STACK = "stack"
"""The fusion without networks: the same convex combination of the same stackers."""

STACK_MEAN = "stack-mean"
"""The plain mean of the task's :data:`AVERAGED`."""

NO_INNER_LOOP = "no-inner-loop"
"""The fusion whose networks are trained without inner steps, with weights of its own."""

CONTRASTS = (NETWORK_ALONE, STACK, STACK_MEAN, NO_INNER_LOOP)

AVERAGED: Mapping[Task, tuple[str, ...]] = {
    "rating": ("ridge", "fwls", "gbm"),
    "ranking": ("combsum", "logistic", "lambdamart"),
}
"""The strongest stackers on the real rating sets of `benchmarks/`, and rankers that learn in different ways."""


def stacks_of(fusion: Fusion) -> dict[str, Fusion]:
    """:data:`STACK`, and :data:`STACK_MEAN` where all of the task's :data:`AVERAGED` are there; empty without stackers.

    Args:
        fusion: fitted in this process.
    """
    if not fusion.stackers:
        return {}
    found = {STACK: fusion.part([*fusion.stackers])}
    averaged = AVERAGED[fusion.config.task]
    if set(averaged) <= set(fusion.stackers):
        found[STACK_MEAN] = fusion.part(averaged, "equal")
    return found


def without_inner_loop(config: NetworkConfig) -> NetworkConfig:
    """The same network and training without inner steps."""
    return config.model_copy(update={"inner_steps": 0})


def contrasts_of(fusion: Fusion, best: str) -> dict[str, Fusion]:
    """Name -> the model: the best network alone, and the combinations without networks.

    Args:
        fusion: fitted in this process. best: the name of its best network.
    """
    return {NETWORK_ALONE: fusion.part([best], "equal"), **stacks_of(fusion)}
