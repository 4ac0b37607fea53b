"""The models that show what a fusion's gain is made of: its parts, and the fusion without one of its parts."""

from __future__ import annotations

from collections.abc import Mapping

from metarec.episodes import DomainEpisodes
from metarec.fusion.stackers import Stacker
from metarec.meta import NetworkConfig
from metarec.model.fusion import Fusion, FusionConfig

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
"""The plain mean of :data:`AVERAGED`."""

NO_INNER_LOOP = "no-inner-loop"
"""The fusion whose networks are trained without inner steps, with weights of its own."""

CONTRASTS = (NETWORK_ALONE, STACK, STACK_MEAN, NO_INNER_LOOP)

AVERAGED = ("ridge", "fwls", "gbm")
"""The strongest stackers on the real rating sets of `benchmarks/`."""


def stacks_of(stackers: Mapping[str, Stacker], episodes: DomainEpisodes, *, seed: int) -> dict[str, Fusion]:
    """:data:`STACK`, and :data:`STACK_MEAN` where all of :data:`AVERAGED` are there; empty without stackers.

    Args:
        stackers: name -> a stacker that is fitted on the train users of `episodes`.
    """
    if not stackers:
        return {}
    found = {STACK: Fusion(FusionConfig(networks={}, stackers=tuple(stackers)), seed=seed)}
    if set(AVERAGED) <= set(stackers):
        found[STACK_MEAN] = Fusion(FusionConfig(networks={}, stackers=AVERAGED, weights="equal"), seed=seed)
    return {name: fusion.fit(episodes, stackers=stackers) for name, fusion in found.items()}


def without_inner_loop(config: NetworkConfig) -> NetworkConfig:
    """The same network and training without inner steps."""
    return config.model_copy(update={"inner_steps": 0})


def contrasts_of(fusion: Fusion, best: str, episodes: DomainEpisodes) -> dict[str, Fusion]:
    """Name -> the model: the best network alone, and the combinations without networks.

    Args:
        fusion: fitted on `episodes`. best: the name of its best network.
    """
    config = FusionConfig(networks={best: fusion.config.networks[best]}, stackers=(), weights="equal")
    alone = Fusion(config, seed=fusion.seed).fit(episodes, networks=fusion.networks)
    return {NETWORK_ALONE: alone, **stacks_of(fusion.stackers, episodes, seed=fusion.seed)}
