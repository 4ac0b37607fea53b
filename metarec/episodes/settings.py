"""How episodes are cut from a rating table."""

from __future__ import annotations

from collections.abc import Callable
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

__all__ = ["EpisodeSettings", "Progress"]

Progress = Callable[[int, int, str], None]
"""Called with (done, total, description) during long work."""


class EpisodeSettings(BaseModel):
    """The protocol of a study: the split of users and the sizes of support and query sets.

    >>> EpisodeSettings(shots=5).needed_ratings
    10
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    shots: int = Field(10, ge=0, le=200)
    "Size of the support set: the user's earliest ratings (a seeded draw where there are no timestamps)."
    min_query: int = Field(5, ge=1)
    "A user makes an episode only with at least this many ratings after the support set."
    max_query: int = Field(40, ge=1)
    "The query set is the ratings that follow the support set, at most this many."
    draws: int = Field(1, ge=1, le=100)
    "Episodes of a train user, at most: the further ones begin later in the user's history."
    validation_fraction: float = Field(0.2, gt=0, lt=1)
    "Share of the users with enough ratings that searches and early stopping use."
    test_fraction: float = Field(0.2, gt=0, lt=1)
    "Share of them that is scored once, at the end."
    folds: int = Field(5, ge=2, le=50)
    "Folds over the train users: each fold's episodes come from bases fitted without its users."
    damping: float = Field(5.0, gt=0)
    "The weight of the prior in ratings, wherever a mean or an error is shrunk."

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.min_query > self.max_query:
            raise ValueError(f"min_query must be <= max_query but got {self.min_query} > {self.max_query}")
        if self.validation_fraction + self.test_fraction >= 0.9:
            raise ValueError(
                "validation_fraction + test_fraction must be < 0.9, to leave users to train on, "
                f"but got {self.validation_fraction} + {self.test_fraction}"
            )
        return self

    @property
    def needed_ratings(self) -> int:
        """The fewest ratings of a user with an episode."""
        return self.shots + self.min_query
