"""Kinds of users: what is known of a user from the support, and how far that is like each of a few prototypes."""

from __future__ import annotations

import numpy as np
import torch
from sklearn.cluster import KMeans
from torch import Tensor

from metarec.episodes import Episodes
from metarec.fusion.networks import all_features

__all__ = ["UserPrototypes", "embeddings"]

NOTHING = 1e-6
"""The spread up to which a number is the same for all users, and says nothing of any."""

STARTS = 4
"""Of the clustering, of which the best is kept."""


class UserPrototypes:
    """Centres of clusters of users (k-means), and how far another user belongs to each.

    A user belongs to a prototype by the softmax of the negative squared distance (Prototypical Networks, Snell et al.
    2017), in units of the mean squared distance of the clustered users from their own centre: so the numbers that users
    are described by may be many or few.

    Args:
        users: who is clustered; as many as prototypes at least.
        count: K, how many prototypes.

    Attributes:
        centres: [K, E] standardised. shares: [K] the mean membership of the clustered users.
    """

    def __init__(self, users: Episodes, count: int, seed: int) -> None:
        found = embeddings(users)
        self._mean, spread = found.mean(0), found.std(0)
        self._spread = np.where(spread > NOTHING, spread, np.inf)
        standard = self._standard(users)
        clusters = KMeans(count, n_init=STARTS, random_state=seed).fit(standard)
        self.centres: np.ndarray = clusters.cluster_centers_
        self._width = max(clusters.inertia_ / len(standard), NOTHING)
        self.shares = np.full(count, 1 / count)
        self.shares = self.memberships(users).mean(0)

    def memberships(self, users: Episodes, priors: np.ndarray | None = None) -> np.ndarray:
        """[T, K] how far each user belongs to each prototype; each row adds up to 1.

        Args:
            priors: [K] how frequent prototypes are where these users come from; by default, as where they were found.
        """
        distances = np.square(self._standard(users)[:, None] - self.centres).sum(-1) / self._width
        logits = -distances
        if priors is not None:
            logits = logits + np.log(priors) - np.log(self.shares)
        weights = np.exp(logits - logits.max(1, keepdims=True))
        memberships: np.ndarray = weights / weights.sum(1, keepdims=True)
        return memberships

    def priors(self, few: Episodes, worth: float) -> np.ndarray:
        """[K] how frequent prototypes are among so few users, when what was found elsewhere is `worth` so many more.

        One step of the correction of a classifier for other frequencies of classes (Saerens et al. 2002).
        """
        found: np.ndarray = (self.memberships(few).sum(0) + worth * self.shares) / (len(few) + worth)
        return found

    def _standard(self, users: Episodes) -> np.ndarray:
        standard: np.ndarray = (embeddings(users) - self._mean) / self._spread
        return standard


def embeddings(users: Episodes) -> np.ndarray:
    """[T, E] what is known of each user before the query's ratings are.

    The means of the query rows' features and context; of the support rows the mean rating, and of each base how far off
    it was, with its sign and without. 0 for what there is no row of.
    """
    query, support = users.batch.query, users.batch.support
    ratings = support.targets.unsqueeze(-1)
    missed = torch.where(support.predictions.isfinite(), ratings - support.predictions, 0.0)
    parts = [
        _means(all_features(query.algorithm_features, query.context), query.mask),
        _means(torch.cat([ratings, missed, missed.abs()], -1), support.mask),
    ]
    return torch.cat(parts, -1).double().numpy()


def _means(rows: Tensor, mask: Tensor) -> Tensor:
    """[T, E] over the rows that count."""
    return torch.where(mask.unsqueeze(-1), rows, 0.0).sum(1) / mask.sum(1, keepdim=True).clamp(min=1)
