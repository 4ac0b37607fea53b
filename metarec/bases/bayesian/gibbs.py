"""Bayesian matrix factorisation by Gibbs sampling: the mathematics behind the recommenders that use it.

Ratings are taken to be standardised: mean about 0, standard deviation about 1.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy import sparse
from sklearn.decomposition import TruncatedSVD

__all__ = ["Sample", "SideInformation", "draw_vectors", "gibbs_samples", "implicit_features", "side_information"]

MEAN_WEIGHT = 2.0
"""How many vectors the prior mean (zero) of a side's vectors is worth."""
PRIOR_VARIANCE = 0.1
"""Of a vector's entries, before anything is seen."""
PRECISION_WEIGHT = 20.0
"""How many ratings the users' common noise is worth against a user's own."""


class SideInformation(NamedTuple):
    """Features [n, F] of users or items by their largest singular values: vectors * values @ directions.T.

    Attributes:
        vectors: [n, r] orthonormal; values: [r] the singular values; directions: [F, r] orthonormal.
    """

    vectors: np.ndarray
    values: np.ndarray
    directions: np.ndarray


def side_information(features: sparse.csr_array, rank: int, seed: int) -> SideInformation:
    """The features by at most `rank` singular values above zero.

    Args:
        features: [n, F], at least two of each. seed: of the randomised solver.
    """
    solver = TruncatedSVD(min(rank, min(features.shape) - 1), random_state=seed)
    projected = solver.fit_transform(features)
    values = solver.singular_values_
    kept = values > 1e-6 * max(values.max(), 1e-12)
    return SideInformation(projected[:, kept] / values[kept], values[kept], solver.components_[kept].T)


def implicit_features(rows: np.ndarray, columns: np.ndarray, shape: tuple[int, int]) -> sparse.csr_array:
    """A sparse array of who rated what, each row divided by the root of its count, as in SVD++ (Koren 2008).

    Args:
        rows, columns: [n] codes of pairs, each pair once.
    """
    counts = np.bincount(rows, minlength=shape[0])
    return sparse.csr_array((1 / np.sqrt(counts[rows]), (rows, columns)), shape=shape)


@dataclass(frozen=True)
class Sample:
    """One draw of everything.

    Attributes:
        users: [U, K + 1] and items: [I, K + 1] vectors; the last entry is the user's or the item's offset.
        effects: one [G + 1] array per grouping of the rows; the last entry, 0, is for a group that was not there.
        noise_precision: [U] of each user's ratings.
        user_mean: [K + 1] and user_precision: [K + 1, K + 1] of the users' vectors, beyond their side information.
        user_links: for each block of the users' side information, [r, K + 1] in its directions.
    """

    users: np.ndarray
    items: np.ndarray
    effects: Sequence[np.ndarray]
    noise_precision: np.ndarray
    user_mean: np.ndarray
    user_precision: np.ndarray
    user_links: Sequence[np.ndarray]

    def predict(self, users: np.ndarray, items: np.ndarray, groups: Sequence[np.ndarray] = ()) -> np.ndarray:
        """[n] standardised ratings of [n] users for [n] items, [n] groups for each of the effects."""
        user_vectors, item_vectors = self.users[users], self.items[items]
        products = np.einsum("nk,nk->n", user_vectors[:, :-1], item_vectors[:, :-1])
        timed = sum(effect[group] for effect, group in zip(self.effects, groups, strict=True))
        return products + user_vectors[:, -1] + item_vectors[:, -1] + timed


def gibbs_samples(
    users: np.ndarray,
    items: np.ndarray,
    ratings: np.ndarray,
    *,
    shape: tuple[int, int],
    factors: int,
    rounds: int,
    seed: int,
    user_features: Sequence[SideInformation] = (),
    item_features: Sequence[SideInformation] = (),
    groups: Sequence[np.ndarray] = (),
) -> Iterator[Sample]:
    """Draw from the posterior of a factorisation; the first draws have not forgotten where they started.

    A rating is its user's vector times its item's, plus both offsets, plus an effect for each group that the row
    belongs to, plus noise of a precision of the user's own. Vectors come from a normal distribution whose mean is
    linear in the side information (R. Salakhutdinov, A. Mnih, "Bayesian probabilistic matrix factorization using
    Markov chain Monte Carlo", ICML 2008; J. Simm et al., "Macau: scalable Bayesian factorization with
    high-dimensional side information using MCMC", MLSP 2017). With `implicit_features` as side information it is a
    Bayesian SVD++ on both sides.

    Args:
        users, items: [n] codes; ratings: [n] standardised. shape: how many users and items there are.
        factors: K, length of a vector without its offset. rounds: how many draws.
        groups: for each grouping [n] codes of the rows, from 0.
    """
    rng = np.random.default_rng(seed)
    user_side = _Side(users, items, shape, factors, user_features, rng)
    item_side = _Side(items, users, shape[::-1], factors, item_features, rng)
    effects = [_Effect(group) for group in groups]
    precision = np.ones(shape[0])
    counts = np.bincount(users, minlength=shape[0])
    timed = np.zeros(len(ratings))
    for _ in range(rounds):
        weights = precision[users]
        user_side.draw_prior()
        item_side.draw_prior()
        user_side.draw(item_side.vectors, ratings - timed - item_side.vectors[items, -1], weights)
        item_side.draw(user_side.vectors, ratings - timed - user_side.vectors[users, -1], weights)
        products = np.einsum("nk,nk->n", user_side.vectors[users, :-1], item_side.vectors[items, :-1])
        residuals = ratings - products - user_side.vectors[users, -1] - item_side.vectors[items, -1] - timed
        for effect in effects:
            residuals += effect.of_rows
            effect.draw(residuals, weights, rng)
            residuals -= effect.of_rows
        timed = sum((effect.of_rows for effect in effects), np.zeros(len(ratings)))
        shape_prior = PRECISION_WEIGHT / 2
        squares = np.bincount(users, residuals**2, shape[0])
        precision = rng.gamma(shape_prior + counts / 2) / (shape_prior / precision.mean() + squares / 2)
        yield Sample(
            user_side.vectors,
            item_side.vectors,
            [effect.values for effect in effects],
            precision,
            user_side.mean,
            user_side.precision,
            list(user_side.links),
        )


def draw_vectors(precisions: np.ndarray, weighted: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """Draws [n, D] from normal distributions of precisions [n, D, D] and means precision^-1 weighted [n, D].

    `noise` [n, D] is standard normal; zeros give the means.
    """
    lower = np.linalg.cholesky(precisions)
    # precision^-1 L z has the covariance precision^-1, so mean and noise need one solution, not two.
    right = weighted + np.einsum("nij,nj->ni", lower, noise)
    return np.linalg.solve(precisions, right[:, :, None])[:, :, 0]


class _Side:
    """The users, or the items: vectors, and the distribution that they come from."""

    def __init__(
        self,
        own: np.ndarray,
        other: np.ndarray,
        shape: tuple[int, int],
        factors: int,
        features: Sequence[SideInformation],
        rng: np.random.Generator,
    ) -> None:
        width = factors + 1
        self._rng = rng
        self._features = features
        table = sparse.csr_matrix((np.arange(len(own)), (own, other)), shape=shape)
        self._rows, self._table = table.data.astype(np.int64), table
        self.vectors = 0.1 * rng.standard_normal((shape[0], width))
        self.vectors[:, -1] = 0.0
        self.mean = np.zeros(width)
        self.precision = np.eye(width) / PRIOR_VARIANCE
        self.links = [np.zeros((len(block.values), width)) for block in features]
        self._linked = [np.zeros((shape[0], width)) for _ in features]
        self._penalties = [10.0 for _ in features]

    def draw_prior(self) -> None:
        """Mean and precision of the vectors, and what they owe to the side information."""
        rng = self._rng
        count, width = self.vectors.shape
        rest = self.vectors - sum(self._linked)
        centre = rest.mean(axis=0)
        scatter = (rest - centre).T @ (rest - centre)
        pull = MEAN_WEIGHT * count / (MEAN_WEIGHT + count) * np.outer(centre, centre)
        scale = np.linalg.inv(np.eye(width) * PRIOR_VARIANCE * width + scatter + pull)
        self.precision = _wishart(scale, width + count, rng)
        spread = np.linalg.inv(np.linalg.cholesky(self.precision))
        self.mean = count * centre / (count + MEAN_WEIGHT) + rng.standard_normal(width) @ spread / np.sqrt(
            count + MEAN_WEIGHT
        )
        for number, (vectors, values, _) in enumerate(self._features):
            rest = self.vectors - self.mean - sum(self._linked) + self._linked[number]
            noisy = rest + rng.standard_normal((count, width)) @ spread
            penalty = self._penalties[number]
            prior_noise = np.sqrt(penalty) * rng.standard_normal((len(values), width)) @ spread
            links = (values[:, None] * (vectors.T @ noisy) + prior_noise) / (values**2 + penalty)[:, None]
            self.links[number] = links
            self._linked[number] = (vectors * values) @ links
            size = float(((links @ self.precision) * links).sum())
            self._penalties[number] = rng.gamma(1 + links.size / 2) / (1 + size / 2)

    def draw(self, others: np.ndarray, targets: np.ndarray, weights: np.ndarray) -> None:
        """The vectors, given the other side's [m, D], and what they are to explain [n] with the weights [n]."""
        count, width = self.vectors.shape
        design = np.concatenate([others[:, :-1], np.ones((len(others), 1))], axis=1)
        upper = np.triu_indices(width)
        products = self._weighted(weights) @ (design[:, upper[0]] * design[:, upper[1]])
        precisions = np.empty((count, width, width))
        precisions[:, upper[0], upper[1]] = products
        precisions[:, upper[1], upper[0]] = products
        prior = self.mean + sum(self._linked)
        weighted = self._weighted(weights * targets) @ design + prior @ self.precision
        noise = self._rng.standard_normal((count, width))
        self.vectors = draw_vectors(precisions + self.precision, weighted, noise)

    def _weighted(self, weights: np.ndarray) -> sparse.csr_matrix:
        return sparse.csr_matrix((weights[self._rows], self._table.indices, self._table.indptr), self._table.shape)


class _Effect:
    """One number for each group of rows, all from a normal distribution around 0 with a precision of their own."""

    def __init__(self, groups: np.ndarray) -> None:
        self._groups = groups
        self._count = int(groups.max()) + 1
        self._precision = 20.0
        self.values = np.zeros(self._count + 1)

    @property
    def of_rows(self) -> np.ndarray:
        return self.values[self._groups]

    def draw(self, targets: np.ndarray, weights: np.ndarray, rng: np.random.Generator) -> None:
        precisions = np.bincount(self._groups, weights, self._count) + self._precision
        means = np.bincount(self._groups, weights * targets, self._count) / precisions
        values = means + rng.standard_normal(self._count) / np.sqrt(precisions)
        self.values = np.append(values, 0.0)
        self._precision = rng.gamma(2 + self._count / 2) / (0.1 + (values**2).sum() / 2)


def _wishart(scale: np.ndarray, degrees: int, rng: np.random.Generator) -> np.ndarray:
    """A draw by Bartlett's decomposition."""
    width = len(scale)
    triangle = np.tril(rng.standard_normal((width, width)), -1)
    triangle[np.diag_indices(width)] = np.sqrt(rng.chisquare(degrees - np.arange(width)))
    root = np.linalg.cholesky((scale + scale.T) / 2) @ triangle
    return root @ root.T
