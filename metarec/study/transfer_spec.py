"""What a study is told that searches transfer strategies."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from metarec.fusion import Choice, Parameter
from metarec.search import parameters_of
from metarec.transfer import STRATEGIES, TransferSettings

__all__ = ["STRATEGY", "TransferSpec"]

STRATEGY = "strategy"
"""The parameter of a trial that names its strategy."""

SAFE = "auto"
"""What trial 0 tries where it is among the strategies: the one that is proposed to whoever cannot compare."""


class TransferSpec(BaseModel):
    """The target has a few known users, and each trial is a strategy that carries to it what other domains know."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    regime: Literal["everything", "labels"] = "everything"
    "What there is little of: everything, so that the bases know the few users alone, or only labels for the fusion."
    target_users: int = Field(20, ge=2)
    "How many users of the target are known."
    strategies: list[str] = Field(
        [
            SAFE,
            "scratch",
            "zero_shot",
            "model_agnostic",
            "gradient_based",
            "feature_alignment",
            "prototype_based",
        ],
        min_length=1,
    )
    "Names of strategies: the usual range of the parameter strategy."

    @field_validator("strategies")
    @classmethod
    def _are_known(cls, value: list[str]) -> list[str]:
        for place, name in enumerate(value):
            STRATEGIES.check(name)
            if name in value[:place]:
                raise ValueError(f'strategy "{name}" is named twice')
        return value

    def parameters_of(self, network: str) -> dict[str, Parameter]:
        """The strategy, and what of a fusion network may be searched beside it.

        Defaults are those of :class:`~metarec.transfer.TransferSettings`, so that trial 0 is what a comparison shows.
        """
        usual = TransferSettings()
        defaults = usual.model_dump()
        if network == usual.network:
            defaults |= usual.options
        first = SAFE if SAFE in self.strategies else self.strategies[0]
        return {
            STRATEGY: Parameter(first, Choice(choices=list(self.strategies)), "how what other domains know is carried"),
            **{
                name: parameter._replace(default=defaults.get(name, parameter.default))
                for name, parameter in parameters_of(network).items()
            },
        }
