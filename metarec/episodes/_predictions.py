"""What each base predicts in each episode: fitted without the episode's user, support items left out one by one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from metarec.bases import HistoryQuery, make_base, predict_queries
from metarec.episodes._split import Task
from metarec.ratings import Domain
from metarec.threads import one_thread

__all__ = ["BasePredictions", "base_predictions", "leave_one_out_queries"]


class BasePredictions(NamedTuple):
    """One base's predictions for some tasks, an array a task, in the domain's own units; NaN where it cannot say."""

    support: list[np.ndarray]
    query: list[np.ndarray]

    def padded(self, shots: int, queries: int) -> tuple[np.ndarray, np.ndarray]:
        """[T, shots] and [T, queries] predictions, NaN in padding; float32, which is enough for a rating."""
        support = np.full((len(self.support), shots), np.nan, dtype=np.float32)
        query = np.full((len(self.query), queries), np.nan, dtype=np.float32)
        for place, (support_row, query_row) in enumerate(zip(self.support, self.query, strict=True)):
            support[place, : len(support_row)] = support_row
            query[place, : len(query_row)] = query_row
        return support, query


def leave_one_out_queries(task: Task) -> Iterator[HistoryQuery]:
    """The calls that one task makes of a base: the query items from the whole support set, then every support item
    from the others. What is predicted is never in the history that it is predicted from."""
    yield HistoryQuery(task.support_items, task.support_ratings, task.query_items)
    for left_out in range(len(task.support_items)):
        others = np.arange(len(task.support_items)) != left_out
        items = task.support_items[left_out : left_out + 1]
        yield HistoryQuery(task.support_items[others], task.support_ratings[others], items)


def base_predictions(
    fit_on: Domain, name: str, options: Mapping[str, Any], seed: int, tasks: Sequence[Task]
) -> BasePredictions:
    """Fit one base on `fit_on`, which holds none of the tasks' users, and predict the tasks.

    Runs in a worker process, on one thread: results do not depend on how many workers there are.
    """
    held_out = {task.user for task in tasks}.intersection(fit_on.ratings["user"].unique())
    if held_out:
        raise AssertionError(f"base {name} would be fitted on {len(held_out)} of the users that it predicts")
    with one_thread():
        base = make_base(name, seed=seed, **options).fit(fit_on)
        answers = iter(predict_queries(base, [query for task in tasks for query in leave_one_out_queries(task)]))
    support, query = [], []
    for task in tasks:
        query.append(next(answers))
        support.append(np.array([next(answers)[0] for _ in task.support_items]))
    return BasePredictions(support, query)
