"""The search space: the parameters of every trial, and those of its network."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from metarec.errors import InputError
from metarec.fusion import NETWORKS, Choice, IntRange, Limits, Parameter, RealRange, Task

if TYPE_CHECKING:
    import optuna

__all__ = [
    "COMMON_PARAMETERS",
    "NETWORK",
    "named_parameters",
    "own_parameters",
    "parameters_of",
    "suggest_parameters",
]

NETWORK = "network"
"""The parameter that names a trial's network, where a study searches it."""

COMMON_PARAMETERS: Mapping[str, Parameter] = {
    "inner_lr": Parameter(0.02, RealRange(low=1e-3, high=0.3, log=True), "rate of the steps on a user's support"),
    "inner_steps": Parameter(1, IntRange(first=0, last=3), "how many such steps; 0 does not adapt"),
    "learn_rates": Parameter(False, Choice(choices=[False, True]), "learn a rate per parameter, from inner_lr on"),
    "adapted": Parameter(
        "all",
        Choice(choices=["all", "head"]),
        "what those steps change; ridge is a regression in place of steps",
        Choice(choices=["all", "head", "ridge"]),
    ),
    "loss": Parameter(
        "fusion",
        Choice(choices=["fusion"]),
        "fusion is the network's own: the prediction error and weighted terms; the others have no terms",
        Choice(choices=["fusion", "mse", "mae", "huber"]),
    ),
    "outer_lr": Parameter(3e-3, RealRange(low=5e-4, high=2e-2, log=True), "rate of Adam over the train users"),
}
"""The parameters of every trial, whatever its network."""

RANKING_PARAMETERS: Mapping[str, Parameter] = {
    **COMMON_PARAMETERS,
    "inner_lr": COMMON_PARAMETERS["inner_lr"]._replace(default=1e-5, range=RealRange(low=1e-7, high=1e-3, log=True)),
    "loss": COMMON_PARAMETERS["loss"]._replace(allowed=None),
}
"""The parameters of every trial of a ranking study.

The gradients of list-wise losses grow as the temperature falls; one inner step of 1e-3 forgets what train users taught.
Only the network's own loss is there: errors of single rows do not judge the order of a list.
"""


def own_parameters(network: str, task: Task = "rating") -> Mapping[str, Parameter]:
    """The options of this network that a study of this task searches, besides the parameters of every trial.

    Raises:
        InputError: an unknown network, or a network whose `searched` names something that is not one of its options.
    """
    kind = NETWORKS.get(network)
    own: Mapping[str, Parameter] = kind.searched_for(task)
    options = set(inspect.signature(kind).parameters) - COMMON_PARAMETERS.keys()
    for name in own:
        if name not in options:
            raise InputError(
                f'network "{network}": searched names "{name}", which must be an option of {kind.__name__} '
                f"and none of {', '.join(COMMON_PARAMETERS)}"
            )
    return own


def named_parameters(networks: Sequence[str], task: Task = "rating") -> dict[str, dict[str, str]]:
    """Network -> its option -> the name of that parameter in a trial: ``gated.dropout`` where there are several."""
    alone = len(networks) == 1
    return {
        network: {option: option if alone else f"{network}.{option}" for option in own_parameters(network, task)}
        for network in networks
    }


def parameters_of(networks: Sequence[str], task: Task = "rating") -> dict[str, Parameter]:
    """All parameters that a study of this task may search; with several networks, which of them is one more."""
    which = {}
    if len(networks) > 1:
        which[NETWORK] = Parameter(networks[0], Choice(choices=list(networks)), "the fusion network")
    own = {
        name: own_parameters(network, task)[option]
        for network, names in named_parameters(networks, task).items()
        for option, name in names.items()
    }
    common = RANKING_PARAMETERS if task == "ranking" else COMMON_PARAMETERS
    return {**which, **common, **own}


def suggest_parameters(trial: optuna.Trial, space: Mapping[str, Limits]) -> dict[str, Any]:
    """A value for each parameter, drawn by the study's sampler; of several networks, for the drawn one only."""
    values: dict[str, Any] = {}
    for name, limits in space.items():
        network, dot, _ = name.rpartition(".")
        if not dot or network == values[NETWORK]:
            values[name] = limits.suggest(name, trial)
    return values
