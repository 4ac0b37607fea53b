"""From the bases' predictions to a fusion network's features. Pure functions on padded arrays.

Shapes: T tasks, K support rows, N query rows, A bases. Everything is on the unit scale. A row's features never depend
on its own rating: what is said of a support row is computed from the other support rows.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

__all__ = ["CONTEXT_NAMES", "FEATURE_NAMES", "Features", "ItemFacts", "Rows", "make_features"]

FEATURE_NAMES = ("prediction", "deviation", "says", "support_error", "support_absolute_error")
CONTEXT_NAMES = (
    "shots",
    "support_mean",
    "support_spread",
    "item_count",
    "item_offset",
    "item_spread",
    "disagreement",
    "share_saying",
    "fallback",
)


class ItemFacts(NamedTuple):
    """What the ratings that the bases were fitted on say of each row's item; all [T, rows], 0 for an unknown item.

    `mean` is the mean rating of those ratings, the same for all rows of a task.
    """

    mean: np.ndarray
    offset: np.ndarray
    count: np.ndarray
    spread: np.ndarray


class Rows(NamedTuple):
    """One side of T episodes: predictions [T, n, A] (NaN: cannot say), item facts, mask [T, n]."""

    predictions: np.ndarray
    facts: ItemFacts
    mask: np.ndarray


class Features(NamedTuple):
    """predictions [T, n, A] with no row all NaN, algorithm [T, n, A, F], context [T, n, C], fallback [T, n]."""

    predictions: np.ndarray
    algorithm: np.ndarray
    context: np.ndarray
    fallback: np.ndarray


def make_features(
    support: Rows, support_ratings: np.ndarray, query: Rows, absolute_error: np.ndarray, *, damping: float
) -> tuple[Features, Features]:
    """The features of the support rows and of the query rows.

    Args:
        support, query: the two sides. support_ratings: [T, K] on the unit scale, 0 in padding.
        absolute_error: [A] mean absolute error of each base on train users, what is believed of a base before a
            user's support has spoken.
        damping: how many ratings the prior is worth in shrunk means.
    """
    residuals = np.where(support.mask, support_ratings - support.facts.mean - support.facts.offset, 0.0)
    errors = np.where(support.mask[..., None], support_ratings[..., None] - support.predictions, np.nan)
    said = np.isfinite(errors)
    errors = np.where(said, errors, 0.0)
    whole = _Evidence.of(support_ratings, residuals, errors, said, support.mask)
    # A support row's own rating is taken out of the sums. The errors of the other support rows were predicted from
    # histories that held this row, so they would give its rating away: a support row goes without.
    others = whole.without_own(support_ratings, residuals, support.mask)
    return (
        _side(support, others, absolute_error, damping),
        _side(query, whole, absolute_error, damping),
    )


class _Evidence(NamedTuple):
    """Sums over the support rows that a row may know of: [T, n] each, for the last two [T, n, A]; n may be 1."""

    count: np.ndarray
    total: np.ndarray
    squares: np.ndarray
    residual: np.ndarray
    said: np.ndarray
    error: np.ndarray
    absolute_error: np.ndarray

    @classmethod
    def of(
        cls,
        ratings: np.ndarray,
        residuals: np.ndarray,
        errors: np.ndarray,
        said: np.ndarray,
        mask: np.ndarray,
    ) -> _Evidence:
        rated = np.where(mask, ratings, 0.0)
        return cls(
            mask.sum(1, keepdims=True).astype(float),
            rated.sum(1, keepdims=True),
            (rated**2).sum(1, keepdims=True),
            residuals.sum(1, keepdims=True),
            said.sum(1, keepdims=True).astype(float),
            errors.sum(1, keepdims=True),
            np.abs(errors).sum(1, keepdims=True),
        )

    def without_own(self, ratings: np.ndarray, residuals: np.ndarray, mask: np.ndarray) -> _Evidence:
        rated = np.where(mask, ratings, 0.0)
        nothing = np.zeros((*mask.shape, self.said.shape[-1]))
        return _Evidence(
            self.count - mask,
            self.total - rated,
            self.squares - rated**2,
            self.residual - residuals,
            nothing,
            nothing,
            nothing,
        )


def _side(rows: Rows, evidence: _Evidence, absolute_error: np.ndarray, damping: float) -> Features:
    facts = rows.facts
    fallback = np.clip(facts.mean + facts.offset + evidence.residual / (evidence.count + damping), 0.0, 1.0)
    says = np.isfinite(rows.predictions)
    filled = np.where(says, rows.predictions, fallback[..., None])
    saying = says.sum(-1)
    mean = np.where(saying > 0, np.where(says, filled, 0.0).sum(-1) / np.maximum(saying, 1), fallback)
    deviation = np.where(says, filled - mean[..., None], 0.0)
    shape = filled.shape
    signed = np.broadcast_to(evidence.error / (evidence.said + damping), shape)
    absolute = np.broadcast_to((evidence.absolute_error + damping * absolute_error) / (evidence.said + damping), shape)
    algorithm = np.stack([filled, deviation, says.astype(float), signed, absolute], axis=-1)
    row_shape = mean.shape
    count = np.maximum(evidence.count, 1.0)
    level = (evidence.total + damping * facts.mean) / (evidence.count + damping)
    spread = np.sqrt(np.maximum(evidence.squares / count - (evidence.total / count) ** 2, 0.0))
    context = np.stack(
        [
            np.broadcast_to(np.log1p(evidence.count), row_shape),
            np.broadcast_to(level, row_shape),
            np.broadcast_to(spread, row_shape),
            np.log1p(facts.count),
            facts.offset,
            facts.spread,
            np.sqrt((deviation**2).sum(-1) / np.maximum(saying, 1)),
            saying / rows.predictions.shape[-1],
            fallback,
        ],
        axis=-1,
    )
    predictions = np.where((saying == 0)[..., None], fallback[..., None], rows.predictions)
    return Features(predictions, algorithm, context, fallback)
