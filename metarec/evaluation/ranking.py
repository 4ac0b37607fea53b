"""The metrics of ranking over test users, paired gains in nDCG@10, and the coverage of the catalogue."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from metarec.episodes import Episodes
from metarec.errors import InputError
from metarec.evaluation.metrics import Gain, drawn_gains
from metarec.fusion.ranks import RelevantRanks, hit, mrr, ndcg, recall

__all__ = [
    "NDCG",
    "RANKING_METRICS",
    "RankingMetric",
    "catalogue_coverage",
    "paired_ndcg_gains",
    "ranking_rows",
    "top_lists",
]

NDCG = "ndcg@10"
"""The metric by which models are ranked."""


class RankingMetric(NamedTuple):
    """A metric of the test table; more is better.

    Attributes:
        label: the head of its column. of: the ranks of the relevant candidates -> [T] the metric of each user.
        printed: whether printed tables have it.
    """

    label: str
    of: Callable[[RelevantRanks], np.ndarray]
    printed: bool = True


RANKING_METRICS: Mapping[str, RankingMetric] = {
    NDCG: RankingMetric("nDCG@10", partial(ndcg, k=10)),
    "ndcg@5": RankingMetric("nDCG@5", partial(ndcg, k=5), printed=False),
    "ndcg@20": RankingMetric("nDCG@20", partial(ndcg, k=20), printed=False),
    "recall@20": RankingMetric("recall@20", partial(recall, k=20)),
    "mrr": RankingMetric("MRR", mrr),
    "hit@10": RankingMetric("hit@10", partial(hit, k=10)),
}
"""Every metric of ranking, by its key in ``--json`` and in MLflow, in the order of the tables."""


def ranking_rows(episodes: Episodes, scores: Mapping[str, np.ndarray]) -> pd.DataFrame:
    """One row for each model and user: domain, user, model, and a column for each of RANKING_METRICS.

    The rows of every model have the users in the same order.

    Args:
        scores: model -> [T, N], higher is better.

    Raises:
        InputError: episodes of rating, or a user without relevant items.
        FloatingPointError: a model's scores of candidates are not finite.
    """
    query = episodes.batch.query
    if episodes.relevant is None:
        raise InputError("ranking is scored on episodes of ranking but these are of rating")
    parts = []
    for model, own in scores.items():
        try:
            ranks = RelevantRanks.of(np.asarray(own), query.targets.numpy(), query.mask.numpy(), episodes.relevant)
        except FloatingPointError as error:
            raise FloatingPointError(f"{model}: {error}") from None
        values = {name: metric.of(ranks) for name, metric in RANKING_METRICS.items()}
        parts.append(pd.DataFrame({"domain": episodes.domain, "user": episodes.users, "model": model, **values}))
    return pd.concat(parts, ignore_index=True)


def paired_ndcg_gains(ours: np.ndarray, theirs: pd.DataFrame, *, seed: int = 0) -> dict[str, Gain]:
    """How much higher the mean nDCG of `ours` is than that of each column of `theirs`, in percent.

    The interval is a percentile bootstrap over users, as in :func:`metarec.evaluation.metrics.paired_gains`. A model
    whose nDCG is 0 is left out, because there is no gain over it in percent.

    Args:
        ours: [U] each user's nDCG. theirs: [U] the same of every other model, a column each.
    """
    result: dict[str, Gain] = {}
    for model in theirs.columns[theirs.sum() > 0]:
        # In a draw the opponent counts as at least one average user, so that no gain is infinite.
        percent = partial(_percent_higher, least=float(theirs[model].mean()))
        result |= drawn_gains(ours, theirs[[model]], percent, seed=seed)
    return result


def _percent_higher(ours: np.ndarray, theirs: np.ndarray, least: float) -> np.ndarray:
    return 100 * (ours - theirs) / np.maximum(theirs, least)


def top_lists(episodes: Episodes, scores: np.ndarray, k: int) -> list[np.ndarray]:
    """The items of each user's k candidates with the highest scores [T, N], best first; the earlier column wins a tie.

    The list of a user with fewer candidates is shorter.
    """
    mask = episodes.batch.query.mask.numpy()
    order = np.argsort(np.where(mask, -scores, np.inf), axis=1, kind="stable")[:, :k]
    return [
        items[places[: min(k, inside.sum())]]
        for items, places, inside in zip(episodes.query_items, order, mask, strict=True)
    ]


def catalogue_coverage(lists: Iterable[np.ndarray], num_items: int) -> float:
    """The share of a catalogue of `num_items` items that is in at least one user's list.

    >>> catalogue_coverage([np.array(["a", "b"]), np.array(["b"])], 4)
    0.5
    """
    found: set[Any] = set()
    for own in lists:
        found.update(own.tolist())
    return len(found) / num_items
