"""From out-of-fold predictions of known users to episodes, and the fusion that learns on them.

A user is a task, its support the user's other out-of-fold rows. Within a training fold the support of a row comes from
the row's own inner part: the bases that predicted it were fitted without the whole part, so neither a base nor an
error on the support has seen the rating that is to be predicted. A test row's support are the user's training rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch

from benchmarks.warm.bases import Predicted, rows_of_users
from benchmarks.warm.cells import Split
from benchmarks.warm.context import context_features
from benchmarks.warm.data import Table
from metarec.episodes import DomainEpisodes, EpisodeBatch, Episodes, FusionInputs
from metarec.model import Fusion, FusionConfig
from metarec.ratings import RatingScale

__all__ = ["Fused", "WarmEpisodes", "WarmSettings", "fuse", "make_episodes"]

FEATURES = ("deviation", "says", "spread", "support_error", "support_size_of_error")


class WarmSettings(NamedTuple):
    """How episodes are cut.

    Attributes:
        seed: of the draws. support_rows, query_rows: the most rows of a user in one episode.
        damping: how many rows of average error a base's errors on the support are shrunk by.
    """

    seed: int = 0
    support_rows: int = 40
    query_rows: int = 16
    damping: float = 10.0


class WarmEpisodes(NamedTuple):
    """Episodes to learn from, to choose by and to be judged on; the rows of the table behind the last ones' queries.

    The test episodes' targets are zero: the caller has the ratings and scores the predictions.
    """

    train: Episodes
    validation: Episodes
    test: Episodes
    test_rows: np.ndarray


class Fused(NamedTuple):
    """Predictions in stars for the test rows by name of the model, and the settings that were chosen."""

    predictions: dict[str, np.ndarray]
    settings: dict[str, Any]


class _Rows(NamedTuple):
    users: np.ndarray
    rows: np.ndarray
    unit: np.ndarray
    spreads: np.ndarray
    context: np.ndarray
    targets: np.ndarray


class _Task(NamedTuple):
    user: int
    support: np.ndarray
    query: np.ndarray


def make_episodes(
    table: Table,
    splits: Sequence[Split],
    answers: Mapping[int | str, Sequence[Predicted]],
    names: Sequence[str],
    scale: RatingScale,
    settings: WarmSettings,
    *,
    timed: bool = True,
) -> WarmEpisodes:
    """Episodes of one fold: all inner parts but the last to learn from, the last to choose by, the test rows.

    Args:
        splits: the inner parts and, at last, the test rows. answers: the predictions of the bases called `names` for each.
        timed: whether features may follow from timestamps.
    """
    rng = np.random.default_rng([settings.seed, splits[0].fold])
    inner = splits[:-1]
    blocks = [_block(table, split, answers[split.part], scale, timed) for split in splits]
    context_names = blocks[0][0]
    starts = np.cumsum([0, *(len(block.users) for _, block in blocks)])
    rows = _Rows(*(np.concatenate(columns) for columns in zip(*(block for _, block in blocks), strict=True)))
    tasks_of_part = [
        list(_halves(rows.users[first:last], table.shape[0], first, rng, settings))
        for first, last in pairwise(starts[: len(inner) + 1])
    ]
    train_tasks = [task for tasks in tasks_of_part[:-1] for task in tasks]
    seen = rows_of_users(rows.users[: starts[-2]], table.shape[0])
    asked = rows_of_users(rows.users[starts[-2] :], table.shape[0])
    test_tasks = [
        task
        for user, (history, wanted) in enumerate(zip(seen, asked, strict=True))
        for task in _tasks(user, rng.permutation(history), starts[-2] + wanted, settings)
    ]
    builder = _Builder(rows, names, context_names, scale, settings, train_tasks)
    return WarmEpisodes(
        builder.episodes(train_tasks),
        builder.episodes(tasks_of_part[-1]),
        builder.episodes(test_tasks),
        np.concatenate([rows.rows[task.query] for task in test_tasks]),
    )


def fuse(episodes: WarmEpisodes, config: FusionConfig, *, seed: int = 0) -> Fused:
    """Fit the fusion, and predict the test rows with it, with its stackers, and with these stackers alone.

    ``metarec`` is the fusion, ``stack`` the combination of its stackers without a network.
    """
    domain = DomainEpisodes(episodes.train, episodes.validation, episodes.test)
    fusion = Fusion(config, seed=seed).fit(domain)
    stack = Fusion(config.model_copy(update={"networks": {}}), seed=seed).fit(domain, stackers=fusion.stackers)
    members = fusion.members(episodes.test)
    predictions = {name: members[name] for name in fusion.stackers}
    chosen: dict[str, Any] = {name: stacker.settings for name, stacker in fusion.stackers.items()}
    if fusion.networks:
        predictions |= {"metarec": fusion.combine(members), "stack": stack.predict(episodes.test)}
        chosen |= {"metarec": fusion.weights, "stack": stack.weights}
    mask, scale = episodes.test.batch.query.mask.numpy(), episodes.test.scale
    return Fused(
        {name: scale.to_ratings(np.clip(values[mask], 0.0, 1.0)) for name, values in predictions.items()}, chosen
    )


def _block(
    table: Table, split: Split, answers: Sequence[Predicted], scale: RatingScale, timed: bool
) -> tuple[tuple[str, ...], _Rows]:
    known, asked = table.known(split.known), table.asked(split.asked)
    names, context = context_features(table, known, asked, timed=timed)
    unit = scale.to_unit(np.column_stack([answer.ratings for answer in answers]))
    fallback = np.where(np.isfinite(unit[:, 0]), unit[:, 0], scale.to_unit(known.ratings.mean()))
    spreads = np.column_stack([answer.spreads for answer in answers]) / scale.span
    is_test = isinstance(split.part, str)
    targets = np.zeros(len(split.asked)) if is_test else scale.to_unit(table.ratings[split.asked])
    context = np.column_stack([context, np.nanstd(unit, axis=1), fallback])
    return (*names, "disagreement", "fallback"), _Rows(asked.users, split.asked, unit, spreads, context, targets)


def _halves(
    users: np.ndarray, count: int, first: int, rng: np.random.Generator, settings: WarmSettings
) -> Iterator[_Task]:
    """Each user's rows of one part in two halves, each of which supports the other."""
    for user, own in enumerate(rows_of_users(users, count)):
        if len(own) == 1:
            yield from _tasks(user, own[:0], first + own, settings)
        elif len(own):
            mixed = first + rng.permutation(own)
            half = len(mixed) // 2
            yield from _tasks(user, mixed[:half], mixed[half:], settings)
            yield from _tasks(user, mixed[half:], mixed[:half], settings)


def _tasks(user: int, support: np.ndarray, query: np.ndarray, settings: WarmSettings) -> Iterator[_Task]:
    """One user's tasks. Long queries are cut, so that a user's part in the loss grows with its rows."""
    for first in range(0, len(query), settings.query_rows):
        yield _Task(user, support[: settings.support_rows], query[first : first + settings.query_rows])


class _Builder:
    """Pads tasks to episodes, with features standardised over the query rows to learn from."""

    def __init__(
        self,
        rows: _Rows,
        names: Sequence[str],
        context_names: Sequence[str],
        scale: RatingScale,
        settings: WarmSettings,
        train_tasks: Sequence[_Task],
    ) -> None:
        self._rows = rows
        self._names = tuple(names)
        self._context_names = (*context_names, "support_count")
        self._scale = scale
        self._damping = settings.damping
        says = np.isfinite(rows.unit)
        fallback = rows.context[:, -1]
        filled = np.where(says, rows.unit, fallback[:, None])
        self._errors = rows.targets[:, None] - filled
        deviations = filled - filled.mean(axis=1, keepdims=True)
        self._own = np.stack([deviations, says.astype(float), rows.spreads], axis=2)
        known = np.concatenate([task.query for task in train_tasks])
        self._typical = float((self._errors[known] ** 2).mean())
        features, context = zip(*(self._features(task) for task in train_tasks), strict=True)
        self._feature_moments = _moments(np.concatenate(features))
        self._context_moments = _moments(np.concatenate(context))

    def episodes(self, tasks: Sequence[_Task]) -> Episodes:
        support_width = max(1, *(len(task.support) for task in tasks))
        query_width = max(len(task.query) for task in tasks)
        support = self._inputs(tasks, True, support_width)
        query = self._inputs(tasks, False, query_width)
        fallback = _padded([self._rows.context[task.query, -1] for task in tasks], query_width, 0.5)
        ids = np.array([str(task.user) for task in tasks], dtype=object)
        return Episodes(
            domain="known users",
            scale=self._scale,
            base_names=self._names,
            feature_names=FEATURES,
            context_names=self._context_names,
            batch=EpisodeBatch(support, query),
            users=ids,
            support_items=np.full(support.mask.shape, "", dtype=object),
            query_items=np.full(query.mask.shape, "", dtype=object),
            query_fallback=torch.from_numpy(fallback).float(),
            query_ratings=self._scale.to_ratings(query.targets.numpy()) * query.mask.numpy(),
        )

    def _features(self, task: _Task, of_support: bool = False) -> tuple[np.ndarray, np.ndarray]:
        """[n, A, F] and [n, C] of a task's query rows, or of its support rows without their own error."""
        rows = task.support if of_support else task.query
        errors = self._errors[task.support]
        count = len(errors) - of_support + self._damping
        total, squares = errors.sum(axis=0), (errors**2).sum(axis=0)
        mean = (total - errors if of_support else total) / count
        size = np.sqrt(((squares - errors**2 if of_support else squares) + self._damping * self._typical) / count)
        evidence = np.broadcast_to(np.stack([mean, size], axis=-1), (len(rows), len(self._names), 2))
        number = np.full((len(rows), 1), np.log1p(len(errors)))
        return (
            np.concatenate([self._own[rows], evidence], axis=2),
            np.concatenate([self._rows.context[rows], number], axis=1),
        )

    def _inputs(self, tasks: Sequence[_Task], of_support: bool, width: int) -> FusionInputs:
        chosen = [task.support if of_support else task.query for task in tasks]
        features, context = zip(*(self._features(task, of_support) for task in tasks), strict=True)
        mask = np.arange(width) < np.array([len(rows) for rows in chosen])[:, None]

        def tensor(values: Sequence[np.ndarray], padding: float = 0.0) -> torch.Tensor:
            return torch.from_numpy(_padded(values, width, padding)).float()

        return FusionInputs(
            predictions=tensor([self._rows.unit[rows] for rows in chosen], 0.5),
            algorithm_features=tensor([_scaled(values, self._feature_moments) for values in features]),
            context=tensor([_scaled(values, self._context_moments) for values in context]),
            targets=tensor([self._rows.targets[rows] for rows in chosen]),
            mask=torch.from_numpy(mask),
        )


def _padded(values: Sequence[np.ndarray], width: int, padding: float) -> np.ndarray:
    out = np.full((len(values), width, *values[0].shape[1:]), padding)
    for place, own in enumerate(values):
        out[place, : len(own)] = own
    return out


def _moments(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return values.mean(axis=0), values.std(axis=0)


def _scaled(values: np.ndarray, moments: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    mean, spread = moments
    return np.where(spread > 1e-6, np.clip((values - mean) / np.maximum(spread, 1e-6), -5.0, 5.0), 0.0)
