"""Settings of the scorer for LensKit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, field_validator

from metarec.fusion import Task
from metarec.meta import NetworkConfig
from metarec.search.space import own_parameters, parameters_of

__all__ = ["FusionScorerConfig"]

_SHOTS: Mapping[Task, tuple[int, ...]] = {"rating": (5, 20, 80), "ranking": (10,)}
_MAX_HISTORY: Mapping[Task, int] = {"rating": 200, "ranking": 40}


class FusionScorerConfig(BaseModel):
    """Settings of :class:`FusionScorer`. All other settings are those of a study's first trial."""

    model_config = ConfigDict(extra="forbid")

    bases: dict[str, dict[str, Any]] | None = None
    """Base recommenders, those of ranking for a dataset without ratings: a list of names, or name: options. By
    default all. `content` is used only if items have attributes."""
    rankers: tuple[str, ...] | None = None
    "Names of the rankers that a dataset without ratings fuses with the network; by default all."
    network: str = "gated"
    "Name of a fusion network."
    options: dict[str, Any] = Field(default_factory=dict)
    "Arguments of its constructor."
    shots: tuple[Annotated[int, Field(ge=0, le=200)], ...] | None = Field(None, min_length=1)
    """Sizes of the support sets in training. A user with at least five more entries makes an episode of each. By
    default 5, 20 and 80 ratings, or 10 items without ratings."""
    max_history: int | None = Field(None, ge=1)
    """A longer history is cut to so many of its latest entries, by default 200 ratings, or 40 items without ratings.
    The time of a user grows with it."""
    inner_lr: float | None = Field(None, gt=0)
    "Rate of the steps on a user's own entries; by default 0.02, and 1e-5 without ratings."
    inner_steps: int = Field(1, ge=0)
    "Number of these steps; 0 does not adapt."
    learning_rate: float = Field(3e-3, gt=0)
    "Rate of Adam over users."
    epochs: int = Field(60, ge=1)
    "The most passes over the users."
    patience: int = Field(12, ge=1)
    "Epochs without progress on held-out users before it stops."
    validation_fraction: float = Field(0.2, gt=0, lt=0.9)
    "Share of users that are held out for early stopping."
    folds: int = Field(5, ge=2, le=50)
    "Folds over users: bases predict for a user only if they were fitted without the user's fold."
    scale: tuple[float, float] | None = None
    "The lowest and the highest possible rating; by default inferred from the ratings."
    seed: int = Field(0, ge=0)
    "Of every random draw, unless the training options have an `rng`."

    @field_validator("bases", mode="before")
    @classmethod
    def _names_are_bases(cls, value: Any) -> Any:
        return {name: {} for name in value} if isinstance(value, list | tuple) else value

    def shots_of(self, task: Task) -> list[int]:
        """The sizes of the support sets, in order."""
        return sorted(set(_SHOTS[task] if self.shots is None else self.shots))

    def max_history_of(self, task: Task) -> int:
        """How many of the latest entries of a history are used."""
        return _MAX_HISTORY[task] if self.max_history is None else self.max_history

    def network_of(self, task: Task) -> NetworkConfig:
        """The network of a study's first trial, with these settings."""
        usual = {name: one.default for name, one in own_parameters(self.network, task).items()}
        rate = parameters_of([self.network], task)["inner_lr"].default
        return NetworkConfig(
            network=self.network,
            options={**usual, **self.options},
            inner_lr=rate if self.inner_lr is None else self.inner_lr,
            inner_steps=self.inner_steps,
            outer_lr=self.learning_rate,
            epochs=self.epochs,
            patience=self.patience,
        )
