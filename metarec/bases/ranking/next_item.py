"""What follows what: co-occurrence in the order of time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Self

import numpy as np
from pydantic import Field, NonNegativeFloat, PositiveInt
from scipy import sparse

from metarec.bases._base import BaseConfig
from metarec.bases._learned import Stored
from metarec.bases._searched import Range
from metarec.bases.ranking._base import Histories, RankingBase
from metarec.bases.ranking._neighbours import strongest
from metarec.ratings import Domain

__all__ = ["NextItem"]


PAIRS_AT_ONCE = 2_000_000
"""Pairs of events that exist at the same time before they are added up."""


class NextItemConfig(BaseConfig):
    """Settings of :class:`NextItem`."""

    window: PositiveInt = 15
    "The most steps of time between two events that count as a pair."
    decay: float = Field(0.95, gt=0, le=1)
    "A pair counts this for each step between its events, and an event of the history for each later event."
    shrinkage: NonNegativeFloat = 50.0
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
        "window": Range(1, 50, log=True),
        "decay": Range(0.5, 1.0),
        "shrinkage": Range(0.0, 200.0),
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
        found: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        for early, late, distances in _pairs(users, steps, config.window):
            counts = config.decay ** np.maximum(distances - 1.0, 0)
            both = distances == 0
            found.append((counts, items[early], items[late]))
            found.append((counts[both], items[late[both]], items[early[both]]))
            if sum(len(counts) for counts, _, _ in found) > PAIRS_AT_ONCE:
                followers, found = followers + _table(found, num_items), []
        if found:
            followers = followers + _table(found, num_items)
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


def _pairs(users: np.ndarray, steps: np.ndarray, window: int) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Pairs of a user's events at most `window` steps apart: places of the earlier, of the later, and the distances."""
    early = np.arange(len(users))
    for offset in range(1, len(users)):
        early = early[early + offset < len(users)]
        distances = steps[early + offset] - steps[early]
        # Steps grow with the place, so a place with no near event at this offset has none at a larger one.
        near = (users[early + offset] == users[early]) & (distances <= window)
        early, distances = early[near], distances[near]
        if not len(early):
            return
        yield early, early + offset, distances


def _table(found: list[tuple[np.ndarray, np.ndarray, np.ndarray]], num_items: int) -> sparse.csr_array:
    """[I, I] sums of values at rows and columns."""
    values, rows, columns = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return sparse.coo_array((values, (rows, columns)), shape=(num_items, num_items)).tocsr()
