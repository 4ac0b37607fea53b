"""The train users of a user-kNN: their similarity to histories, and the mean ratings of the nearest ones."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from scipy import sparse

from metarec.bases._fold_in import BUDGET, blocks, flat, nearest_means, padded
from metarec.errors import InputError

__all__ = ["Raters"]

DENSE = 0.1
"""The density of the rating table above which it is kept dense."""


class Raters:
    """The train users as neighbours of many histories at once.

    Args:
        vectors: [U, I] their ratings, centred and of length 1, single precision.
        ratings: [U, I] their ratings, centred.
        most, least: the number of neighbours for an item.
        min_similarity: less similar users are no neighbours.
    """

    def __init__(
        self, vectors: sparse.csr_array, ratings: sparse.csr_array, *, most: int, least: int, min_similarity: float
    ) -> None:
        self.most, self.least, self.min_similarity = most, least, min_similarity
        self.num_users, num_items = vectors.shape
        self._ratings = ratings.T.tocsr()
        self._vectors = vectors.T.tocsr()
        if not vectors.nnz:
            raise InputError("nearest users must have at least one rating but have none")
        density = vectors.nnz / (self.num_users * num_items)
        # Among this many users a usual item has three times `most` raters, so nearly every item has enough.
        self._num_candidates = int(np.ceil(3 * most / density))
        self._filled: np.ndarray | None = None
        if density > DENSE and self._num_candidates < self.num_users // 4:
            self._vectors = self._vectors.toarray()
            self._filled = np.full((num_items, self.num_users), np.nan, dtype=np.float32)
            self._filled[np.repeat(np.arange(num_items), np.diff(self._ratings.indptr)), self._ratings.indices] = (
                self._ratings.data
            )

    def similarities(self, histories: sparse.csr_array) -> np.ndarray:
        """[B, I] centred histories -> [B, U] similarities."""
        products = histories @ self._vectors
        return products.toarray() if sparse.issparse(products) else products

    def means(
        self, similarities: np.ndarray, owners: np.ndarray, requested: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """The mean ratings of the nearest raters, centred.

        Args:
            similarities: [B, U].
            owners: [P] the row of `similarities`; requested: [P] the item.

        Returns:
            [P] means, NaN where too few neighbours have rated the item, and [P] the sums of their similarities.
        """
        if self._filled is None:
            return self._means_of_all(similarities, owners, requested)
        means, totals, settled = self._means_of_candidates(self._filled, similarities, owners, requested)
        rest = ~settled
        means[rest], totals[rest] = self._means_of_all(similarities, owners[rest], requested[rest])
        return means, totals

    def _means_of_all(
        self, similarities: np.ndarray, owners: np.ndarray, requested: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        means, totals = np.full(len(requested), np.nan), np.zeros(len(requested))
        raters = np.diff(self._ratings.indptr)[requested]
        for rows in _runs(raters, BUDGET):
            positions = flat(self._ratings.indptr[requested[rows]], raters[rows])
            # One index into the flat table: with two it takes three times as long.
            users = np.repeat(owners[rows] * self.num_users, raters[rows]) + self._ratings.indices[positions]
            weights = similarities.ravel().take(users)
            # Most raters are no neighbours, and only neighbours are worth padding.
            near = np.flatnonzero(weights >= self.min_similarity)
            weights, values = weights[near], self._ratings.data[positions[near]]
            bounds = np.searchsorted(near, np.cumsum(raters[rows]))
            lengths = np.diff(bounds, prepend=0)
            for block in blocks(lengths, BUDGET):
                places, is_real = padded(bounds[block] - lengths[block], lengths[block])
                means[rows][block], totals[rows][block] = nearest_means(
                    weights[places] * is_real, values[places], most=self.most, least=self.least
                )
        return means, totals

    def _means_of_candidates(
        self, filled: np.ndarray, similarities: np.ndarray, owners: np.ndarray, requested: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """[P] means and sums over the most similar users, and [P] whether these include all neighbours of the item."""
        means, totals = np.full(len(requested), np.nan), np.zeros(len(requested))
        settled = np.zeros(len(requested), dtype=bool)
        top = torch.topk(torch.from_numpy(similarities), self._num_candidates, dim=1, sorted=False)
        candidates, heaviest = top.indices.numpy(), top.values.numpy()
        beyond = heaviest.min(axis=1)
        step = max(BUDGET // self._num_candidates, 1)
        for first in range(0, len(requested), step):
            rows = slice(first, first + step)
            owner = owners[rows]
            weights = heaviest[owner]
            values = filled[requested[rows, None], candidates[owner]]
            is_rated = ~np.isnan(values)
            # A user outside is at most as similar as `beyond`, so not among `most` that are more similar.
            enough = np.count_nonzero(is_rated & (weights > beyond[owner, None]), axis=1) >= self.most
            settled[rows] = enough | (beyond[owner] < self.min_similarity)
            means[rows], totals[rows] = self._nearest(weights, is_rated, np.where(is_rated, values, 0))
        return means, totals, settled

    def _nearest(self, weights: np.ndarray, is_rated: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        weights = weights * (is_rated & (weights >= self.min_similarity))
        return nearest_means(weights, values, most=self.most, least=self.least)


def _runs(lengths: np.ndarray, budget: int) -> Iterator[slice]:
    """Rows one after the other, with at most `budget` numbers a run (but at least one row)."""
    ends = np.cumsum(lengths)
    first = 0
    while first < len(lengths):
        last = int(np.searchsorted(ends, (ends[first - 1] if first else 0) + budget, side="right"))
        yield slice(first, max(last, first + 1))
        first = max(last, first + 1)
