"""The metrics of ranking over test users, paired gains in nDCG@10, and the coverage of the catalogue."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from metarec.episodes import Episodes
from metarec.errors import InputError
from metarec.evaluation.metrics import METAREC, Gain, drawn_gains
from metarec.fusion.ranks import RelevantRanks, hit, mrr, ndcg, recall

__all__ = [
    "NDCG",
    "RANKING_METRICS",
    "RankingMetric",
    "RankingScores",
    "base_scores",
    "catalogue_coverage",
    "paired_ndcg_gains",
    "ranking_gains",
    "ranking_rows",
    "ranking_scores",
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


@dataclass(frozen=True)
class RankingScores:
    """A model's metrics, as means over test users.

    Attributes:
        values: the value of each of RANKING_METRICS, by its key.
    """

    values: Mapping[str, float]
    n_users: int

    @property
    def ndcg(self) -> float:
        """The nDCG@10, by which models are ranked."""
        return self.values[NDCG]

    def to_json(self) -> dict[str, Any]:
        """All numbers in one mapping."""
        return {**self.values, "n_users": self.n_users}

    def printed(self) -> dict[str, float]:
        """The metrics of the printed tables, by their keys."""
        return {name: self.values[name] for name, metric in RANKING_METRICS.items() if metric.printed}


def base_scores(episodes: Episodes) -> dict[str, np.ndarray]:
    """base -> [T, N] its own scores of the candidates, with the fallback where it has none."""
    predictions, fallback = episodes.batch.query.predictions.numpy(), episodes.query_fallback.numpy()
    available = np.isfinite(predictions)
    return {
        name: np.where(available[..., base], predictions[..., base], fallback)
        for base, name in enumerate(episodes.base_names)
    }


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


def ranking_scores(rows: pd.DataFrame) -> dict[str, RankingScores]:
    """Each model's scores from the rows of one domain."""
    table = rows.groupby("model", sort=False)
    return {
        str(model): RankingScores({name: float(own[name].mean()) for name in RANKING_METRICS}, len(own))
        for model, own in table
    }


def ranking_gains(rows: pd.DataFrame, *, seed: int = 0) -> dict[str, Gain]:
    """metarec's gain in nDCG@10 over every other model of one domain, see :func:`paired_ndcg_gains`."""
    by_model = {str(model): own[NDCG].to_numpy() for model, own in rows.groupby("model", sort=False)}
    ours = by_model.pop(METAREC)
    return paired_ndcg_gains(ours, pd.DataFrame(by_model), seed=seed)


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
