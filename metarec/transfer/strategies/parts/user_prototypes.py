"""Prototypes of users: clusters of user embeddings, and the memberships of users in them."""

from __future__ import annotations

import numpy as np
import torch
from sklearn.cluster import KMeans
from torch import Tensor

from metarec.episodes import Episodes
from metarec.fusion.networks import all_features

__all__ = ["UserPrototypes", "embeddings"]

NOTHING = 1e-6
"""A number with no larger spread over users is constant, and is ignored."""

STARTS = 4
"""Initialisations of k-means; the best is kept."""


class UserPrototypes:
    """Centres of clusters of users (k-means), and the memberships of other users in them.

    Memberships are the softmax of the negative squared distances (Prototypical Networks, Snell et al. 2017), in units
    of the mean squared distance of the clustered users from their centre, so that they do not depend on E.

    Args:
        users: at least as many as prototypes.
        count: K, the number of prototypes.

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
        """[T, K] the membership of each user in each prototype; each row sums to 1.

        Args:
            priors: [K] the frequencies of prototypes in these users' domain; by default those of the clustered users.
        """
        distances = np.square(self._standard(users)[:, None] - self.centres).sum(-1) / self._width
        logits = -distances
        if priors is not None:
            logits = logits + np.log(priors) - np.log(self.shares)
        weights = np.exp(logits - logits.max(1, keepdims=True))
        memberships: np.ndarray = weights / weights.sum(1, keepdims=True)
        return memberships

    def priors(self, few: Episodes, prior_users: float) -> np.ndarray:
        """[K] the frequencies of prototypes in the domain of a few users; those of the clustered are a prior.

        One step of the correction of a classifier for other class frequencies (Saerens et al. 2002).
        """
        found: np.ndarray = (self.memberships(few).sum(0) + prior_users * self.shares) / (len(few) + prior_users)
        return found

    def _standard(self, users: Episodes) -> np.ndarray:
        standard: np.ndarray = (embeddings(users) - self._mean) / self._spread
        return standard


def embeddings(users: Episodes) -> np.ndarray:
    """[T, E] a description of each user without the query's ratings.

    The means of the query rows' features and context; of the support rows the mean rating, and each base's mean error
    and mean absolute error. 0 where there are no rows.
    """
    query, support = users.batch.query, users.batch.support
    ratings = support.targets.unsqueeze(-1)
    errors = torch.where(support.predictions.isfinite(), ratings - support.predictions, 0.0)
    parts = [
        _means(all_features(query.algorithm_features, query.context), query.mask),
        _means(torch.cat([ratings, errors, errors.abs()], -1), support.mask),
    ]
    return torch.cat(parts, -1).double().numpy()


def _means(rows: Tensor, mask: Tensor) -> Tensor:
    """[T, E] over the rows without padding."""
    return torch.where(mask.unsqueeze(-1), rows, 0.0).sum(1) / mask.sum(1, keepdim=True).clamp(min=1)
