"""A set of episodes of one domain, with the names behind the numbers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from metarec.episodes._batch import EpisodeBatch
from metarec.ratings import RatingScale

__all__ = ["Episodes"]


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
        query_fallback: [T, N] unit-scale prediction for a base that cannot say: the shrunk means that are left when
            nothing else is known. It scores a base's NaN rows, so that every model is judged on the same rows.
        query_ratings: [T, N] the true ratings in the domain's own units, exactly as they were read; 0 in padding.
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
    query_fallback: torch.Tensor
    query_ratings: np.ndarray

    def __len__(self) -> int:
        return len(self.users)
