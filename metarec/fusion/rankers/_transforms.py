"""Scales on which the scores of bases can be added up, of each user over the candidates.

All map [T, N, A] scores and a mask [T, N] to [T, N, A]; padding is 0.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from scipy.stats import rankdata

from metarec.fusion.ranks import standard_scores

__all__ = ["TRANSFORMS", "ranks_of"]


def ranks_of(scores: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """[T, N, A] ranks from 1, the mean rank of candidates with equal scores; 0 in padding.

    For an item that a base proposed this is its rank in the catalogue, because all items before it are candidates too.
    """
    inside = mask[..., None]
    # Padding comes last, so that it changes no rank.
    ranks = rankdata(np.where(inside, -scores, np.inf), axis=1) if scores.size else np.zeros(scores.shape)
    return np.where(inside, ranks, 0.0)


def percentiles(scores: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The share of the candidates at or below each candidate, in (0, 1]."""
    inside = mask[..., None]
    count = np.maximum(inside.sum(1, keepdims=True), 1)
    return np.where(inside, (count + 1 - ranks_of(scores, mask)) / count, 0.0)


def min_max(scores: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """From 0 for the lowest to 1 for the highest score; 0 where all are equal."""
    inside = mask[..., None]
    low = np.where(inside, scores, np.inf).min(1, keepdims=True, initial=np.inf)
    high = np.where(inside, scores, -np.inf).max(1, keepdims=True, initial=-np.inf)
    width = high - low
    return np.where(inside & (width > 0), (scores - low) / np.where(width > 0, width, 1.0), 0.0)


TRANSFORMS: Mapping[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "standard": standard_scores,
    "percentile": percentiles,
    "min-max": min_max,
}
