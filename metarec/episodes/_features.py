"""From base predictions to a fusion network's features. Pure functions on padded arrays.

Shapes: T tasks, K support rows, N query rows, A bases. Everything is on the unit scale. A row's features never depend
on its own rating.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

__all__ = [
    "CONTEXT_NAMES",
    "FEATURE_NAMES",
    "Features",
    "ItemFacts",
    "Priors",
    "Rows",
    "make_features",
    "query_features",
    "support_features",
]

FEATURE_NAMES = ("prediction", "deviation", "says", "evidence", "support_error", "support_absolute_error")
CONTEXT_NAMES = (
    "shots",
    "support_mean",
    "support_spread",
    "item_count",
    "item_offset",
    "item_spread",
    "item_age",
    "disagreement",
    "share_saying",
    "fallback",
)


class ItemFacts(NamedTuple):
    """Facts of each row's item, from the ratings that the bases were fitted on; [T, rows], 0 for an unknown item.

    `mean` is the mean of those ratings, the same for all rows of a task. `age` is the logarithm of one plus the
    days between the item's first rating and this one; 0 where there are no timestamps.
    """

    mean: np.ndarray
    offset: np.ndarray
    num_ratings: np.ndarray
    spread: np.ndarray
    age: np.ndarray

    @classmethod
    def of(cls, table: np.ndarray) -> ItemFacts:
        """From one array with the facts on its last axis."""
        return cls(*np.moveaxis(table, -1, 0))


class Rows(NamedTuple):
    """One side of T episodes: predictions [T, n, A] (or NaN), their evidence, item facts, mask [T, n]."""

    predictions: np.ndarray
    evidence: np.ndarray
    facts: ItemFacts
    mask: np.ndarray


class Features(NamedTuple):
    """predictions [T, n, A] with no row all NaN, algorithm [T, n, A, F], context [T, n, C], fallback [T, n]."""

    predictions: np.ndarray
    algorithm: np.ndarray
    context: np.ndarray
    fallback: np.ndarray


class Priors(NamedTuple):
    """The prior of a user's statistics before any support rating; from train users only.

    Attributes:
        absolute_error: [A] mean absolute error of each base.
        variance: of one user's ratings.
    """

    absolute_error: np.ndarray
    variance: float


def make_features(
    support: Rows,
    support_ratings: np.ndarray,
    query: Rows,
    priors: Priors,
    *,
    damping: float,
    background: np.ndarray | None = None,
) -> tuple[Features, Features]:
    """The features of the support rows and of the query rows.

    A query row has the user's statistics on the support set: level, spread, and the errors of each base. A support row
    has the priors in their place. Statistics of the *other* support rows would leak its own rating: within one user
    their mean is low exactly where the own rating is high, and their errors come from histories that hold this row; an
    inner loop would learn nothing else. A support row's fallback leaves its own rating out.

    Args:
        support, query: the two sides. support_ratings: [T, K] on the unit scale, 0 in padding.
        priors: the user's statistics on support rows, and the values that those on query rows are shrunk to.
        damping: the weight of the prior in ratings, in shrunk means.
        background: [T, 1] for linked users, the expected offset of each from ratings in other domains: the user's
            offset is shrunk to it, and not to 0. It uses no rating of this domain, so support rows have it too.
    """
    return (
        support_features(support, support_ratings, priors, damping=damping, background=background),
        query_features(support, support_ratings, query, priors, damping=damping, background=background),
    )


def support_features(
    support: Rows, ratings: np.ndarray, priors: Priors, *, damping: float, background: np.ndarray | None = None
) -> Features:
    """The support side of :func:`make_features`."""
    residuals, count = _residuals(support, ratings)
    expected = 0.0 if background is None else background
    own_offset = (residuals.sum(1, keepdims=True) - residuals + damping * expected) / (count - support.mask + damping)
    return _side(support, own_offset, _UserProfile.unknown(support.facts.mean[:, :1] + expected, priors))


def query_features(
    support: Rows,
    ratings: np.ndarray,
    query: Rows,
    priors: Priors,
    *,
    damping: float,
    background: np.ndarray | None = None,
) -> Features:
    """The query side of :func:`make_features`; `ratings` are those of the support rows."""
    residuals, count = _residuals(support, ratings)
    expected = 0.0 if background is None else background
    offset = (residuals.sum(1, keepdims=True) + damping * expected) / (count + damping)
    return _side(query, offset, _UserProfile.of(support, ratings, priors, damping, expected))


def _residuals(support: Rows, ratings: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """[T, K] the residuals of the ratings on the item means, 0 in padding, and [T, 1] the number of ratings."""
    residuals = np.where(support.mask, ratings - support.facts.mean - support.facts.offset, 0.0)
    return residuals, support.mask.sum(1, keepdims=True).astype(float)


class _UserProfile(NamedTuple):
    """The statistics of a user: [T, 1] each, for the last two [T, 1, A] or [A]."""

    shots: np.ndarray
    level: np.ndarray
    spread: np.ndarray
    error: np.ndarray
    absolute_error: np.ndarray

    @classmethod
    def unknown(cls, mean: np.ndarray, priors: Priors) -> _UserProfile:
        nothing = np.zeros_like(mean)
        spread = nothing + np.sqrt(priors.variance)
        return cls(nothing, mean, spread, np.zeros_like(priors.absolute_error), priors.absolute_error)

    @classmethod
    def of(
        cls, support: Rows, ratings: np.ndarray, priors: Priors, damping: float, expected: np.ndarray | float
    ) -> _UserProfile:
        mask = support.mask
        count = mask.sum(1, keepdims=True).astype(float)
        rated = np.where(mask, ratings, 0.0)
        prior = support.facts.mean[:, :1] + expected
        level = (rated.sum(1, keepdims=True) + damping * prior) / (count + damping)
        squares = np.where(mask, (ratings - level) ** 2, 0.0).sum(1, keepdims=True)
        errors = np.where(mask[..., None], ratings[..., None] - support.predictions, np.nan)
        finite = np.isfinite(errors)
        errors = np.where(finite, errors, 0.0)
        times = finite.sum(1, keepdims=True) + damping
        return cls(
            np.log1p(count),
            level,
            np.sqrt((squares + damping * priors.variance) / (count + damping)),
            errors.sum(1, keepdims=True) / times,
            (np.abs(errors).sum(1, keepdims=True) + damping * priors.absolute_error) / times,
        )


def _side(rows: Rows, user_offset: np.ndarray, user: _UserProfile) -> Features:
    facts = rows.facts
    fallback = np.clip(facts.mean + facts.offset + user_offset, 0.0, 1.0)
    available = np.isfinite(rows.predictions)
    filled = np.where(available, rows.predictions, fallback[..., None])
    counts = available.sum(-1)
    mean = np.where(counts > 0, np.where(available, filled, 0.0).sum(-1) / np.maximum(counts, 1), fallback)
    deviation = np.where(available, filled - mean[..., None], 0.0)
    algorithm = [
        filled,
        deviation,
        available.astype(float),
        np.log1p(np.where(available, rows.evidence, 0.0)),
        user.error,
        user.absolute_error,
    ]
    context = [
        user.shots,
        user.level,
        user.spread,
        np.log1p(facts.num_ratings),
        facts.offset,
        facts.spread,
        facts.age,
        np.sqrt((deviation**2).sum(-1) / np.maximum(counts, 1)),
        counts / rows.predictions.shape[-1],
        fallback,
    ]
    predictions = np.where((counts == 0)[..., None], fallback[..., None], rows.predictions)
    return Features(
        predictions,
        np.stack(np.broadcast_arrays(*algorithm), axis=-1),
        np.stack(np.broadcast_arrays(*context), axis=-1),
        fallback,
    )
