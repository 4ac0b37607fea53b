"""How close a fusion comes to knowing the best base of every user. Pure functions on arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy.stats import rankdata

from metarec.episodes import Episodes
from metarec.evaluation.metrics import base_unit_predictions

__all__ = ["Judged", "judge", "rank_correlations", "summary"]

RESAMPLES = 2000


class Judged(NamedTuple):
    """Sums of squared errors over the query rows of T test users, on the unit scale.

    Attributes:
        counts: [T] query rows. bases: [T, A] of each base. ours: [T] of metarec. combined: [T, S] of each baseline.
        weights: [T, A] how far metarec's networks trusted each base on the user's rows, on average.
    """

    counts: np.ndarray
    bases: np.ndarray
    ours: np.ndarray
    combined: np.ndarray
    weights: np.ndarray


def judge(test: Episodes, baselines: Mapping[str, np.ndarray], ours: np.ndarray, weights: np.ndarray) -> Judged:
    """The errors of each test user.

    Args:
        baselines: name -> [R] predictions of all query rows; ours: [R]. weights: [R, A].
    """
    query = test.batch.query
    mask = query.mask.numpy()
    task, truth, users = np.nonzero(mask)[0], query.targets.numpy()[mask], len(mask)

    def per_user(values: np.ndarray) -> np.ndarray:
        return np.bincount(task, weights=values, minlength=users)

    counts = per_user(np.ones(len(task)))
    bases = [per_user((np.asarray(own)[mask] - truth) ** 2) for own in base_unit_predictions(test).values()]
    trust = np.stack([per_user(column) for column in weights.T], axis=1) / counts[:, None]
    combined = np.stack([per_user((own - truth) ** 2) for own in baselines.values()], axis=1)
    return Judged(counts, np.stack(bases, axis=1), per_user((ours - truth) ** 2), combined, trust)


def rank_correlations(weights: np.ndarray, errors: np.ndarray) -> np.ndarray:
    """[T] Spearman correlation, over the bases, of each user's weights with how good the bases are for that user.

    0 for a user with equal errors of all bases, or with equal weights.
    """
    ranks, goodness = rankdata(weights, axis=1), rankdata(-errors, axis=1)
    ranks, goodness = ranks - ranks.mean(1, keepdims=True), goodness - goodness.mean(1, keepdims=True)
    size = np.sqrt((ranks**2).sum(1) * (goodness**2).sum(1))
    return np.where(size > 0, (ranks * goodness).sum(1) / np.where(size > 0, size, 1.0), 0.0)


def summary(parts: Sequence[Judged], baselines: Sequence[str], *, seed: int = 0) -> dict[str, Any]:
    """RMSE of the best single base, of the oracle and of metarec; how much of the gap each model closes; correlations.

    The oracle predicts every test user by the base that turned out to be best for that user: it has seen the answers,
    so that even the right base for each user cannot be better.

    The rank correlation of one ranking for everybody, that of the mean weights, is the null of the rank correlation;
    the personal part is the difference of the two, with a 95 % bootstrap interval over users.

    Args:
        baselines: the names of `Judged.combined`, with best-single.
    """
    whole = Judged(*(np.concatenate(side) for side in zip(*parts, strict=True)))
    rows = whole.counts.sum()
    oracle, ours = (float(np.sqrt(total / rows)) for total in (whole.bases.min(1).sum(), whole.ours.sum()))
    rmse = dict(zip(baselines, np.sqrt(whole.combined.sum(0) / rows).tolist(), strict=True))
    single = rmse["best-single"]
    correlations = rank_correlations(whole.weights, whole.bases)
    for_all = rank_correlations(np.broadcast_to(whole.weights.mean(0), whole.weights.shape), whole.bases)
    personal = correlations - for_all
    draws = np.random.default_rng(seed).integers(0, len(personal), (RESAMPLES, len(personal)))
    low, high = np.percentile(personal[draws].mean(1), [2.5, 97.5])
    return {
        "best_single": single,
        "oracle": oracle,
        "metarec": ours,
        "gap_closed": (single - ours) / (single - oracle),
        "gap_closed_by": {name: (single - own) / (single - oracle) for name, own in rmse.items()},
        "rank_correlation": float(correlations.mean()),
        "rank_correlation_for_all": float(for_all.mean()),
        "rank_personal": float(personal.mean()),
        "rank_interval": [float(low), float(high)],
        "n_users": len(correlations),
    }
