"""Base predictions for episodes: fitted without the episode's user, support items left out one by one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from metarec.bases import Answer, BaseRecommender, HistoryQuery, QueryBatch, answer_queries, fit_base
from metarec.episodes._split import Task
from metarec.ratings import Domain
from metarec.threads import one_thread

__all__ = [
    "BasePredictions",
    "QueryScores",
    "base_predictions",
    "leave_one_out_queries",
    "padded",
    "padded_predictions",
    "predict_tasks",
    "whole_query",
]


class QueryScores(NamedTuple):
    """The scores of one base alone for the query rows of T users.

    Attributes:
        scores: [T, N] predictions on the unit scale; in ranking the scores of the base's own candidates.
        targets: [T, N] ratings on the unit scale; in ranking 1 for a relevant candidate, else 0.
        mask: [T, N] false in padding.
        relevant: in ranking, [T] the number of relevant items of each user in the whole catalogue.
    """

    scores: np.ndarray
    targets: np.ndarray
    mask: np.ndarray
    relevant: np.ndarray | None = None


class BasePredictions(NamedTuple):
    """One base's predictions for some tasks, an array a task.

    Attributes:
        support, query: predictions in the domain's own units, or NaN.
        support_evidence, query_evidence: their evidence, see :class:`metarec.bases.Answer`.
    """

    support: list[np.ndarray]
    query: list[np.ndarray]
    support_evidence: list[np.ndarray]
    query_evidence: list[np.ndarray]

    def part(self, start: int, end: int) -> BasePredictions:
        """The predictions for the tasks from `start` to `end`."""
        return BasePredictions(*(side[start:end] for side in self))

    def padded(self, shots: int, queries: int) -> dict[str, np.ndarray]:
        """Each side by its name, [T, shots] or [T, queries], NaN in padding; float32, which is enough for a rating."""
        widths = {"support": shots, "query": queries}
        return {name: padded_predictions(rows, widths[name.partition("_")[0]]) for name, rows in self._asdict().items()}


def padded_predictions(rows: Sequence[np.ndarray], width: int) -> np.ndarray:
    """[T, width] one base's predictions, NaN in padding; float32, which is enough for a rating."""
    return padded(rows, width, np.float32(np.nan))


def padded(rows: Sequence[np.ndarray], width: int, padding: Any) -> np.ndarray:
    """[T, width] rows of different lengths in one array of the type of the padding (object for text)."""
    table = np.full((len(rows), width), padding, dtype=object if isinstance(padding, str) else None)
    for place, row in enumerate(rows):
        table[place, : len(row)] = row
    return table


def whole_query(task: Task) -> HistoryQuery:
    """The query items, from the background and the whole support set."""
    return _query(task, np.ones(len(task.support_items), dtype=bool), task.query_items)


def leave_one_out_queries(task: Task) -> Iterator[HistoryQuery]:
    """The queries of one task: the query items from the whole support set, then every support item from the others.

    A predicted item is never in its own history. The background is in every history.
    """
    yield whole_query(task)
    for left_out in range(len(task.support_items)):
        others = np.arange(len(task.support_items)) != left_out
        yield _query(task, others, task.support_items[left_out : left_out + 1])


def _query(task: Task, shown: np.ndarray, items: np.ndarray) -> HistoryQuery:
    """A query for items, from the background and the support ratings that are `shown`, [K] booleans."""
    return HistoryQuery(
        np.concatenate([task.background_items, task.support_items[shown]]),
        np.concatenate([task.background_ratings, task.support_ratings[shown]]),
        items,
    )


def base_predictions(
    fit_on: Domain, name: str, options: Mapping[str, Any], seed: int, tasks: Sequence[Task], are_warm: bool = False
) -> BasePredictions:
    """Fit one base on `fit_on`, which holds none of the tasks' users, and predict the tasks.

    Runs in a worker process, on one thread: results do not depend on how many workers there are.

    Args:
        are_warm: whether `fit_on` may hold the tasks' users, with other ratings than those of the query items.

    Raises:
        InputError: the base raised an error; the message names the base and the domain.
    """
    held_out = _query_ratings(fit_on, tasks) if are_warm else _users(fit_on, tasks)
    if held_out:
        what = "ratings" if are_warm else "users"
        raise AssertionError(f"base {name} would be fitted on {held_out} of the {what} that it predicts")
    with one_thread():
        base = fit_base(name, fit_on, options, seed=seed)
        return predict_tasks([base], tasks, f'domain "{fit_on.name}"')[0]


def _users(fit_on: Domain, tasks: Sequence[Task]) -> int:
    """How many users of the tasks have ratings in a domain."""
    return len({task.user for task in tasks}.intersection(fit_on.ratings["user"].unique()))


def _query_ratings(fit_on: Domain, tasks: Sequence[Task]) -> int:
    """How many ratings of the tasks' query items are in a domain."""
    users = np.repeat([task.user for task in tasks], [len(task.query_items) for task in tasks])
    asked = pd.MultiIndex.from_arrays([users, np.concatenate([task.query_items for task in tasks])])
    return int(asked.isin(pd.MultiIndex.from_frame(fit_on.ratings[["user", "item"]])).sum())


def predict_tasks(
    bases: Iterable[BaseRecommender], tasks: Sequence[Task], where: str = "new users"
) -> list[BasePredictions]:
    """The predictions of fitted bases for the tasks; `where` they come from is for messages."""
    queries = QueryBatch(query for task in tasks for query in leave_one_out_queries(task))
    return [_by_task(answer_queries(base, queries, where), tasks) for base in bases]


def _by_task(answered: Iterable[Answer], tasks: Sequence[Task]) -> BasePredictions:
    answers = iter(answered)
    predictions = BasePredictions([], [], [], [])
    for task in tasks:
        answer = next(answers)
        predictions.query.append(answer.predictions)
        predictions.query_evidence.append(answer.evidence)
        left_out = [next(answers) for _ in task.support_items]
        predictions.support.append(np.array([answer.predictions[0] for answer in left_out]))
        predictions.support_evidence.append(np.array([answer.evidence[0] for answer in left_out]))
    return predictions
