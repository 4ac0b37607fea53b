"""Episodes of one domain: the padded tensors of many tasks for fusion networks, with ids and names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from metarec.errors import InputError
from metarec.ratings import RatingScale

__all__ = ["EpisodeBatch", "Episodes", "FusionInputs"]


class FusionInputs(NamedTuple):
    """The inputs of a fusion network for T tasks of at most N rows, A bases.

    A NamedTuple of tensors, so that ``torch.func.vmap`` maps over it. All ratings are on the unit scale.

    Attributes:
        predictions: [T, N, A] of the bases, or NaN. In an unmasked row at least one is finite.
        algorithm_features: [T, N, A, F] features of each base on this row; always finite.
        context: [T, N, C] features of the user and the item; always finite.
        targets: [T, N] the true ratings; 0 in padding.
        mask: [T, N] bool, false in padding.
    """

    predictions: Tensor
    algorithm_features: Tensor
    context: Tensor
    targets: Tensor
    mask: Tensor

    def select(self, tasks: Tensor) -> FusionInputs:
        """The tasks at these positions (an index tensor along the leading axis)."""
        return FusionInputs(*(tensor[tasks] for tensor in self))


class EpisodeBatch(NamedTuple):
    """T episodes: `support` is what a user has rated so far, `query` is what the model is scored on."""

    support: FusionInputs
    query: FusionInputs

    @property
    def num_tasks(self) -> int:
        return self.support.mask.shape[0]

    def select(self, tasks: Tensor) -> EpisodeBatch:
        """The episodes at these positions (an index tensor)."""
        return EpisodeBatch(self.support.select(tasks), self.query.select(tasks))


@dataclass(frozen=True)
class Episodes:
    """T episodes of one domain and one role (train, validation or test).

    Attributes:
        domain: the domain's name.
        scale: its rating scale; the tensors hold unit-scale values.
        base_names: the A base recommenders, in the order of the tensors' axis.
        feature_names: the F features of each base; context_names: the C context features.
        batch: the tensors that networks and stackers see.
        users: [T] user ids.
        support_items: [T, K] and query_items: [T, N] item ids; the empty string in padding.
        query_fallback: [T, N] the unit-scale prediction in place of a base's NaN, from shrunk means. It scores a base's
            NaN rows, so that every model is scored on the same rows.
        query_ratings: [T, N] the true ratings in the domain's own units, as they were read; 0 in padding.
        relevant: of ranking, [T] the number of each user's relevant items in the whole catalogue, also of those that no
            base proposed; None of rating.
    """

    domain: str
    scale: RatingScale
    base_names: tuple[str, ...]
    feature_names: tuple[str, ...]
    context_names: tuple[str, ...]
    batch: EpisodeBatch
    users: np.ndarray
    support_items: np.ndarray
    query_items: np.ndarray
    query_fallback: Tensor
    query_ratings: np.ndarray
    relevant: np.ndarray | None = None

    @property
    def task(self) -> Literal["rating", "ranking"]:
        """What is predicted."""
        return "rating" if self.relevant is None else "ranking"

    @classmethod
    def joined(cls, several: Sequence[Episodes]) -> Episodes:
        """All episodes in order, with the domain and scale of the first. Bases, features and task must be the same."""
        first = several[0]
        relevant = [one.relevant for one in several if one.relevant is not None]
        if len(relevant) not in (0, len(several)):
            raise InputError("episodes of rating and of ranking cannot be joined")
        sides = [_joined_rows([getattr(one.batch, side) for one in several]) for side in EpisodeBatch._fields]
        support, query = (side.mask.shape[1] for side in sides)
        return replace(
            first,
            batch=EpisodeBatch(*sides),
            users=np.concatenate([one.users for one in several]),
            support_items=np.concatenate([_widened(one.support_items, support, "") for one in several]),
            query_items=np.concatenate([_widened(one.query_items, query, "") for one in several]),
            query_fallback=torch.cat([_padded(one.query_fallback, query, 0.0) for one in several]),
            query_ratings=np.concatenate([_widened(one.query_ratings, query, 0.0) for one in several]),
            relevant=np.concatenate(relevant) if relevant else None,
        )

    def select(self, tasks: Tensor) -> Episodes:
        """The episodes at these places, [n] integers."""
        chosen = tasks.numpy()
        return replace(
            self,
            batch=self.batch.select(tasks),
            users=self.users[chosen],
            support_items=self.support_items[chosen],
            query_items=self.query_items[chosen],
            query_fallback=self.query_fallback[tasks],
            query_ratings=self.query_ratings[chosen],
            relevant=None if self.relevant is None else self.relevant[chosen],
        )

    def __len__(self) -> int:
        return len(self.users)


_PADDING = FusionInputs(0.5, 0.0, 0.0, 0.0, 0.0)  # type: ignore[arg-type]  # one number for each tensor


def _joined_rows(several: Sequence[FusionInputs]) -> FusionInputs:
    width = max(rows.mask.shape[1] for rows in several)
    return FusionInputs(
        *(
            torch.cat([_padded(getattr(rows, name), width, getattr(_PADDING, name)) for rows in several])
            for name in FusionInputs._fields
        )
    )


def _padded(values: Tensor, width: int, padding: float) -> Tensor:
    missing = width - values.shape[1]
    return torch.cat([values, values.new_full((len(values), missing, *values.shape[2:]), padding)], dim=1)


def _widened(values: np.ndarray, width: int, padding: object) -> np.ndarray:
    extra = np.full((len(values), width - values.shape[1]), padding, dtype=values.dtype)
    return np.concatenate([values, extra], axis=1)
