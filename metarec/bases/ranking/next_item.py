"""What follows what: co-occurrence in the order of time."""

from __future__ import annotations

from typing import ClassVar, Self

import numpy as np
from pydantic import Field, NonNegativeFloat, PositiveInt
from scipy import sparse

from metarec.bases._base import BaseConfig
from metarec.bases._learned import Stored
from metarec.bases.ranking._base import Histories, Range, RankingBase
from metarec.bases.ranking._neighbours import strongest
from metarec.ratings import Domain

__all__ = ["NextItem"]


class NextItemConfig(BaseConfig):
    """Settings of :class:`NextItem`."""

    window: PositiveInt = 5
    "The most steps of time between two events that count as a pair."
    decay: float = Field(0.8, gt=0, le=1)
    "A pair counts this for each step between its events, and an event of the history for each later event."
    shrinkage: NonNegativeFloat = 10.0
    "Added to the denominator, so that a follower of few users has a small score."
    neighbours: PositiveInt = 200
    "The most followers of an item that are kept."


class NextItem(RankingBase):
    """How often one item follows another, normalised as a cosine is; the latest items of the history count most.

    The distinct times of a user are steps. Events of one time have no order, so each of them follows the others, at a
    distance of one step. Without times, all events of a user have one time.
    """

    name = "next-item"
    Config = NextItemConfig
    config: NextItemConfig
    needs = "timestamps"
    searched: ClassVar = {
        "window": Range(1, 20, log=True),
        "decay": Range(0.5, 1.0),
        "shrinkage": Range(0.0, 50.0),
        "neighbours": Range(20, 1000, log=True),
    }
    learned: ClassVar = {"followers": Stored("items items", is_sparse=True, low=0)}

    def fit(self, domain: Domain) -> Self:
        config, num_items = self.config, len(domain.item_index)
        events = domain.ratings
        users = events["user"].factorize(sort=True)[0]
        items = domain.item_index.get_indexer(events["item"])
        times = events["timestamp"].to_numpy() if domain.has_timestamps else np.zeros(len(events))
        order = np.lexsort((items, times, users))
        users, items, times = users[order], items[order], times[order]
        # A step begins with another user or a later time.
        steps = np.cumsum(np.diff(users, prepend=-1).astype(bool) | np.diff(times, prepend=0).astype(bool))
        followers = sparse.csr_array((num_items, num_items))
        early = np.arange(len(users))
        for offset in range(1, len(users)):
            early = early[early + offset < len(users)]
            late = early + offset
            distances = steps[late] - steps[early]
            near = (users[late] == users[early]) & (distances <= config.window)
            early, late, distances = early[near], late[near], distances[near]
            if not len(early):
                break
            counts = config.decay ** np.maximum(distances - 1.0, 0)
            both = distances == 0
            pairs = (
                np.concatenate([items[early], items[late[both]]]),
                np.concatenate([items[late], items[early[both]]]),
            )
            values = np.concatenate([counts, counts[both]])
            followers = followers + sparse.coo_array((values, pairs), shape=followers.shape).tocsr()
        norms = np.sqrt(np.bincount(items, minlength=num_items))
        pairs = followers.tocoo()
        values = pairs.data / (norms[pairs.row] * norms[pairs.col] + config.shrinkage)
        shrunk = sparse.csr_array((values.astype(np.float32), (pairs.row, pairs.col)), shape=followers.shape)
        self._followers = strongest(shrunk, config.neighbours)
        return self

    def score_items(self, histories: Histories) -> np.ndarray:
        ends = np.cumsum(histories.lengths)
        ages = np.repeat(ends, histories.lengths) - 1 - np.arange(len(histories.items))
        recency = (self.config.decay**ages).astype(np.float32)
        scores: np.ndarray = (histories.rows(recency, self.num_items) @ self._followers).toarray()
        return scores
