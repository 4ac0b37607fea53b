"""The part of a spec for a study of transfer strategies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from metarec.fusion import Choice, Parameter, Task
from metarec.search import NETWORK, named_parameters, parameters_of
from metarec.transfer import STRATEGIES, TransferSettings

__all__ = ["STRATEGY", "TransferSpec"]

STRATEGY = "strategy"
"""The parameter of a trial that names its strategy."""

SAFE = "auto"
"""The strategy of trial 0, if it is among the strategies. It is proposed where strategies cannot be compared."""


class TransferSpec(BaseModel):
    """The target has a few train users, and each trial is a strategy of transfer from other domains to it."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    regime: Literal["everything", "labels"] = "everything"
    "The scarce data: everything, so that the bases learn from the few users alone, or only labels for the fusion."
    target_users: int = Field(20, ge=2)
    "The number of train users of the target."
    strategies: list[str] = Field(
        [SAFE, "scratch", "zero_shot", "model_agnostic", "gradient_based", "feature_alignment", "prototype_based"],
        min_length=1,
    )
    "Names of strategies: the usual range of the parameter strategy."

    @field_validator("strategies")
    @classmethod
    def _check_names(cls, value: list[str]) -> list[str]:
        for place, name in enumerate(value):
            STRATEGIES.check(name)
            if name in value[:place]:
                raise ValueError(f'strategy "{name}" is named twice')
        return value

    def parameters_of(self, networks: Sequence[str], task: Task) -> dict[str, Parameter]:
        """The strategy and the searched parameters of the fusion networks.

        Defaults are those of :class:`~metarec.transfer.TransferSettings`, so that trial 0 equals a comparison's cell
        except for the loss: a study searches the weights of its terms, a comparison has none.
        """
        usual = TransferSettings(task=task)
        defaults = usual.model_dump()
        # The name of the network itself is not the default of the parameter that chooses one.
        del defaults[NETWORK], defaults["loss"]
        if usual.network in networks:
            names = named_parameters(networks, task)[usual.network]
            defaults |= {names[option]: value for option, value in usual.options.items() if option in names}
        first = SAFE if SAFE in self.strategies else self.strategies[0]
        return {
            STRATEGY: Parameter(first, Choice(choices=list(self.strategies)), "how other domains help the target"),
            **{
                name: parameter._replace(default=defaults.get(name, parameter.default))
                for name, parameter in parameters_of(networks, task).items()
            },
        }
