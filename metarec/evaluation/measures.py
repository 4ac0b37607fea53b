"""The measure of a task: how models are scored and compared on test users, and how the numbers are worded."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Literal, NamedTuple, Self

import numpy as np
import pandas as pd

from metarec.episodes import Episodes
from metarec.evaluation.metrics import (
    METAREC,
    METRICS,
    Gain,
    Scores,
    paired_gains,
    prediction_rows,
    scores,
    squared_errors,
)
from metarec.evaluation.ranking import NDCG, RANKING_METRICS, paired_ndcg_gains, ranking_rows
from metarec.fusion import Task
from metarec.fusion.ranks import RelevantRanks, ndcg

__all__ = ["LISTED", "RANKING", "RATING", "ByUser", "Judged", "Measure", "measure_of"]


LISTED = 100
"""The length of a user's list in the predictions file of a ranking study."""


class ByUser(NamedTuple):
    """What each test user adds to the measure of each model.

    Attributes:
        sums: a row for each user, a column for each model. rows: user -> how many rows are in these sums.
    """

    sums: pd.DataFrame
    rows: pd.Series

    @classmethod
    def squared_errors(cls, rows: pd.DataFrame) -> Self:
        """The sums of squared errors, from rows of predictions of one domain."""
        return cls(squared_errors(rows), rows.groupby("user", sort=False).size())

    def of(self, users: Iterable[Any]) -> ByUser:
        """The part of these users, in the order of the whole."""
        own = self.sums.index.isin(set(users))
        return ByUser(self.sums[own], self.rows[own])


class Judged(NamedTuple):
    """The models of one domain on its test users.

    Attributes:
        rows: of the predictions file. scores: model -> its metrics. by_user: their parts by user.
        scale: of the ratings, as text; empty where there is none.
    """

    rows: pd.DataFrame
    scores: dict[str, Scores]
    by_user: ByUser
    scale: str


class Measure(ABC):
    """How the models of a task are measured.

    A search minimises an error. Everything that people or programs read shows a value, which :meth:`shown` makes of it.

    Attributes:
        task: its name. key: of the first metric, in ``--json``. label: the same metric for people to read.
        data: what users give. direction: of the first metric. metrics: key -> label of each printed metric.
        metric: of trials, in ``--json``. validation: the key of a trial's value in its run. unit: its unit, if the
            metric has another one in the tables.
        curve: the key of the validation value after each epoch.
        noun: what the metric is. axis: the metric of test users on an axis. improves: what a better model does.
    """

    task: ClassVar[Task]
    key: ClassVar[str]
    label: ClassVar[str]
    data: ClassVar[str]
    direction: ClassVar[Literal["minimize", "maximize"]]
    metrics: ClassVar[Mapping[str, str]]
    metric: ClassVar[str]
    validation: ClassVar[str]
    unit: ClassVar[str] = ""
    curve: ClassVar[str]
    noun: ClassVar[str]
    axis: ClassVar[str]
    improves: ClassVar[str]

    @abstractmethod
    def shown(self, error: float) -> float:
        """The value of an error that the search minimises."""

    @abstractmethod
    def rows(self, episodes: Episodes, predictions: Mapping[str, np.ndarray]) -> pd.DataFrame:
        """The rows of a predictions file; `predictions`: model -> [T, N]."""

    @abstractmethod
    def judge(self, episodes: Episodes, predictions: Mapping[str, np.ndarray]) -> Judged:
        """Score each model on the same users; `predictions`: model -> [T, N]."""

    @abstractmethod
    def value(self, total: float, rows: int) -> float:
        """The first metric of some users, from the total of their sums and the number of their rows."""

    @abstractmethod
    def user_sums(self, episodes: Episodes, predictions: np.ndarray) -> np.ndarray:
        """[T] what each user adds to the measure, of predictions [T, N] on the unit scale: as in :class:`ByUser`."""

    @abstractmethod
    def unit_value(self, episodes: Episodes, predictions: np.ndarray) -> float:
        """The first metric of predictions [T, N] on the unit scale."""

    @abstractmethod
    def user_gains(self, before: np.ndarray, after: np.ndarray) -> np.ndarray:
        """[U] each user's part in a gain; their mean is the share that is gained of the sums before.

        Args:
            before, after: [U] what each user adds to the measure without and with a change.

        >>> RATING.user_gains(np.array([2.0, 2.0]), np.array([1.0, 2.0])).tolist()
        [0.5, 0.0]
        >>> RANKING.user_gains(np.array([0.2, 0.2]), np.array([0.3, 0.2])).round(6).tolist()
        [0.5, 0.0]
        """

    @abstractmethod
    def gain_percent(self, share: float) -> float:
        """A gain as a share of the sums, see :meth:`user_gains`, in percent of the first metric.

        >>> round(RATING.gain_percent(0.19), 6), round(RANKING.gain_percent(0.19), 6)
        (10.0, 19.0)
        """

    @abstractmethod
    def percent(self, ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
        """[...] the gain in percent of the first metric, from the totals of two models' sums."""

    @abstractmethod
    def paired_gains(self, ours: np.ndarray, theirs: pd.DataFrame, *, seed: int) -> dict[str, Gain]:
        """The gain over each column of `theirs` in percent of the first metric, with a paired bootstrap over users.

        A model over which there is no gain in percent is left out.

        Args:
            ours: [U] the sums of each user. theirs: [U] those of every other model, a column each.
        """

    def gains(self, by_user: ByUser, *, seed: int = 0) -> dict[str, Gain]:
        """metarec's gain over every other model."""
        ours = by_user.sums[METAREC].to_numpy()
        return self.paired_gains(ours, by_user.sums.drop(columns=METAREC), seed=seed)

    def best_first(self, table: Mapping[str, Scores]) -> list[tuple[str, Scores]]:
        """The models with their scores, the best first."""
        return sorted(table.items(), key=lambda pair: self.cost(pair[1].values[self.key]))

    def cost(self, value: float) -> float:
        """A number that is smaller where the value is better."""
        return -value if self.maximised else value

    def best(self, values: Iterable[float]) -> float:
        """The best of some values."""
        return min(values, key=self.cost)

    @property
    def reported(self) -> Mapping[str, str]:
        """Key -> label of each metric of a report, which has more room than a terminal."""
        return self.metrics

    @property
    def maximised(self) -> bool:
        """Whether more is better."""
        return self.direction == "maximize"

    @property
    def best_value(self) -> str:
        """The key of the best trial's value among the metrics of a study."""
        return f"best_{self.validation}"

    @property
    def trial_label(self) -> str:
        """The metric of trials, with its unit."""
        return f"{self.label} ({self.unit})" if self.unit else self.label

    @property
    def validation_label(self) -> str:
        """The metric of trials on validation users, with its unit."""
        return f"validation {self.trial_label}"

    def validation_text(self, value: float) -> str:
        """The value of a trial in a sentence.

        >>> RATING.validation_text(0.2)
        'validation RMSE 0.20000 (unit scale)'
        """
        return f"validation {self.label} {value:.5f}" + (f" ({self.unit})" if self.unit else "")


class _RatingMeasure(Measure):
    """Root mean squared errors over all query rows of all users."""

    task, data = "rating", "ratings"
    key, label, direction = "rmse", "RMSE", "minimize"
    metrics: ClassVar = {name: metric.label for name, metric in METRICS.items() if not metric.unit}
    metric = validation = "validation_unit_rmse"
    unit = "unit scale"
    curve = "val_rmse"
    noun = "error"
    axis = "RMSE in the domain's own units"
    improves = "lowers the RMSE"

    def shown(self, error: float) -> float:
        return error

    def rows(self, episodes: Episodes, predictions: Mapping[str, np.ndarray]) -> pd.DataFrame:
        return prediction_rows(episodes, predictions)

    def judge(self, episodes: Episodes, predictions: Mapping[str, np.ndarray]) -> Judged:
        rows = self.rows(episodes, predictions)
        return Judged(rows, scores(rows, episodes.scale.span), ByUser.squared_errors(rows), str(episodes.scale))

    def value(self, total: float, rows: int) -> float:
        return float(np.sqrt(total / rows))

    def user_sums(self, episodes: Episodes, predictions: np.ndarray) -> np.ndarray:
        query = episodes.batch.query
        errors = np.where(query.mask.numpy(), predictions - query.targets.numpy(), 0.0)
        sums: np.ndarray = np.square(errors).sum(1)
        return sums

    def unit_value(self, episodes: Episodes, predictions: np.ndarray) -> float:
        rows = int(episodes.batch.query.mask.sum())
        return self.value(float(self.user_sums(episodes, predictions).sum()), rows)

    def user_gains(self, before: np.ndarray, after: np.ndarray) -> np.ndarray:
        difference: np.ndarray = (before - after) / max(float(before.mean()), 1e-12)
        return difference

    def gain_percent(self, share: float) -> float:
        return round(100 * (1 - (1 - min(share, 1.0)) ** 0.5), 9)

    def percent(self, ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
        return 100 * (1 - np.sqrt(ours / np.maximum(theirs, 1e-300)))

    def paired_gains(self, ours: np.ndarray, theirs: pd.DataFrame, *, seed: int) -> dict[str, Gain]:
        return paired_gains(ours, theirs, seed=seed)


class _RankingMeasure(Measure):
    """Means over users of metrics of their lists. A relevant item that no base proposed is missed."""

    task, data = "ranking", "events"
    key, label, direction = NDCG, "nDCG@10", "maximize"
    metrics: ClassVar = {name: metric.label for name, metric in RANKING_METRICS.items() if metric.printed}
    metric, validation = NDCG, f"validation_{NDCG}"
    curve = "val_ndcg"
    noun = "value"
    axis = "nDCG@10"
    improves = "raises the nDCG@10"

    @property
    def reported(self) -> Mapping[str, str]:
        return {name: metric.label for name, metric in RANKING_METRICS.items()}

    def shown(self, error: float) -> float:
        return 1 - error

    def rows(self, episodes: Episodes, predictions: Mapping[str, np.ndarray]) -> pd.DataFrame:
        mask = episodes.batch.query.mask.numpy()
        users, items = np.asarray(episodes.users), np.asarray(episodes.query_items)
        parts = []
        for model, values in predictions.items():
            # Of equal scores the earlier column ranks first, as in the metrics.
            order = np.argsort(-np.where(mask, values, -np.inf), axis=1, kind="stable")[:, :LISTED]
            listed = np.take_along_axis(mask, order, axis=1)
            task, place = np.nonzero(listed)
            column = order[task, place]
            parts.append(
                pd.DataFrame(
                    {
                        "domain": episodes.domain,
                        "user": users[task],
                        "model": model,
                        "rank": place + 1,
                        "item": items[task, column],
                        "score": np.asarray(values, dtype=np.float64)[task, column],
                    }
                )
            )
        return pd.concat(parts, ignore_index=True)

    def judge(self, episodes: Episodes, predictions: Mapping[str, np.ndarray]) -> Judged:
        found = ranking_rows(episodes, predictions)
        table = {
            str(model): Scores({name: float(own[name].mean()) for name in RANKING_METRICS}, len(own))
            for model, own in found.groupby("model", sort=False)
        }
        by_user = {str(model): own[self.key].to_numpy() for model, own in found.groupby("model", sort=False)}
        sums = pd.DataFrame(by_user, index=pd.Index(episodes.users, name="user"))
        return Judged(self.rows(episodes, predictions), table, ByUser(sums, pd.Series(1, index=sums.index)), "")

    def value(self, total: float, rows: int) -> float:
        return float(total / rows)

    def user_sums(self, episodes: Episodes, predictions: np.ndarray) -> np.ndarray:
        query = episodes.batch.query
        assert episodes.relevant is not None
        return ndcg(RelevantRanks.of(predictions, query.targets.numpy(), query.mask.numpy(), episodes.relevant))

    def unit_value(self, episodes: Episodes, predictions: np.ndarray) -> float:
        return float(self.user_sums(episodes, predictions).mean())

    def user_gains(self, before: np.ndarray, after: np.ndarray) -> np.ndarray:
        difference: np.ndarray = (after - before) / max(float(before.mean()), 1e-12)
        return difference

    def gain_percent(self, share: float) -> float:
        return round(100 * share, 9)

    def percent(self, ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
        # There is no gain in percent over 0, and it counts as none.
        before = np.asarray(theirs, dtype=float)
        return 100 * np.divide(ours - before, before, out=np.zeros_like(before), where=before > 0)

    def paired_gains(self, ours: np.ndarray, theirs: pd.DataFrame, *, seed: int) -> dict[str, Gain]:
        return paired_ndcg_gains(ours, theirs, seed=seed)


RATING = _RatingMeasure()
RANKING = _RankingMeasure()

_MEASURES = {measure.task: measure for measure in (RATING, RANKING)}


def measure_of(task: Task) -> Measure:
    """The measure of the task of this name."""
    return _MEASURES[task]
