"""From out-of-fold predictions of known users to episodes, and what learns to combine the bases on them.

A user is a task, its support the user's other out-of-fold rows. Within a training fold the support of a row comes from
the row's own inner part: the bases that predicted it were fitted without the whole part, so neither a base nor an
error on the support has seen the rating that is to be predicted. A test row's support are the user's training rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch

from benchmarks.warm.bases import Predicted, rows_of_users
from benchmarks.warm.cells import Split
from benchmarks.warm.context import context_features
from benchmarks.warm.data import Table
from metarec.episodes import EpisodeBatch, Episodes, FusionInputs
from metarec.fusion import NETWORKS
from metarec.fusion.stackers import STACKERS, Stacker
from metarec.meta import MetaLearningTrainer, make_engine
from metarec.ratings import RatingScale

__all__ = ["Fused", "FusionSettings", "WarmEpisodes", "fuse", "make_episodes"]

LINEAR = ("ridge", "fwls")
FEATURES = ("deviation", "says", "spread", "support_error", "support_size_of_error")


@dataclass(frozen=True)
class FusionSettings:
    """How the fusion learns; chosen on the inner parts of the first fold's training rows.

    Attributes:
        network: the name of the network; options: its arguments.
        inner_steps: of gradient descent on a user's support, at the rate inner_lr.
        seeds: of the networks whose mean is the fusion; the first one also draws the episodes.
        blends: the networks' possible weights against the stacker that they start from.
        support_rows, query_rows: a user's rows in one episode at the most.
        damping: how many rows of average error a base's errors on the support are shrunk by.
    """

    network: str = "attention"
    options: Mapping[str, Any] = field(
        default_factory=lambda: {"anchored": True, "hidden_dim": 32, "meta_hidden_dim": 32, "combine": "product"}
    )
    inner_steps: int = 0
    inner_lr: float = 0.01
    epochs: int = 12
    learning_rate: float = 0.001
    patience: int = 4
    batch_size: int = 32
    seeds: tuple[int, ...] = (0, 1)
    blends: tuple[float, ...] = (1.0, 0.75, 0.5, 0.25)
    support_rows: int = 40
    query_rows: int = 16
    damping: float = 10.0


class WarmEpisodes(NamedTuple):
    """Episodes to learn from, to choose by and to be judged on; the rows of the table behind the last ones' queries.

    The test episodes' targets are zero: whoever has the ratings scores the predictions.
    """

    train: Episodes
    validation: Episodes
    test: Episodes
    test_rows: np.ndarray


class Fused(NamedTuple):
    """Predictions in stars for the test rows by name of the model, RMSE on validation rows, and what was chosen."""

    predictions: dict[str, np.ndarray]
    validation_rmse: dict[str, float]
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
    settings: FusionSettings,
    *,
    timed: bool = True,
) -> WarmEpisodes:
    """Episodes of one fold: all inner parts but the last to learn from, the last to choose by, the test rows.

    Args:
        splits: the inner parts and, at last, the test rows. answers: what the bases called `names` say of each.
        timed: whether features may follow from timestamps.
    """
    rng = np.random.default_rng([settings.seeds[0], splits[0].fold])
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


def fuse(
    episodes: WarmEpisodes, settings: FusionSettings, *, stackers: Sequence[str] | None = None, networks: bool = True
) -> Fused:
    """Fit the stackers, all unless named, and where `networks` metarec's networks; predict the test rows.

    The networks have one base more, the linear stacker that does best on validation rows. metarec is the mean of the
    networks of all seeds, blended with that stacker as does best there.
    """
    predictions, scores, chosen = {}, {}, {}
    mask = episodes.test.batch.query.mask.numpy()
    scale = episodes.test.scale
    fitted = {}
    for name in STACKERS.names() if stackers is None else stackers:
        stacker = STACKERS.get(name)().fit(episodes.train, episodes.validation, seed=settings.seeds[0])
        fitted[name] = stacker
        predictions[name] = scale.to_ratings(stacker.predict(episodes.test)[mask])
        scores[name] = stacker.validation_rmse * scale.span
        chosen[name] = stacker.settings
    if networks:
        anchor = min((fitted[name] for name in LINEAR), key=lambda stacker: stacker.validation_rmse)
        answers = _networks_answers(episodes, anchor, settings)
        held_out = episodes.validation.batch.query
        own, truth = held_out.mask.numpy(), held_out.targets.numpy()
        starts = [anchor.predict(part) for part in (episodes.validation, episodes.test)]
        errors = {
            blend: float(np.sqrt(np.mean((_blended(blend, answers[0], starts[0]) - truth)[own] ** 2)))
            for blend in settings.blends
        }
        blend = min(errors, key=lambda weight: errors[weight])
        predictions["metarec"] = scale.to_ratings(_blended(blend, answers[1], starts[1])[mask])
        scores["metarec"] = errors[blend] * scale.span
        chosen["metarec"] = {"starts_from": anchor.name, "blend": blend}
    return Fused(predictions, scores, chosen)


def _blended(blend: float, networks: np.ndarray, start: np.ndarray) -> np.ndarray:
    return np.clip(blend * networks + (1.0 - blend) * start, 0.0, 1.0)


def _networks_answers(
    episodes: WarmEpisodes, anchor: Stacker, settings: FusionSettings
) -> tuple[np.ndarray, np.ndarray]:
    """What the networks of all seeds say on average of the validation and of the test rows, on the unit scale."""
    train, validation, test = (_with_base(part, anchor).batch for part in episodes[:3])
    shape = (train.query.predictions.shape[-1], train.query.algorithm_features.shape[-1], train.query.context.shape[-1])
    answers = []
    for seed in settings.seeds:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = NETWORKS.get(settings.network).for_episodes(*shape, **settings.options)
        engine = make_engine(
            "batched", network, inner_lr=settings.inner_lr, inner_steps=settings.inner_steps, loss="mse"
        )
        MetaLearningTrainer(engine, seed=seed).fit(
            train,
            validation,
            num_epochs=settings.epochs,
            learning_rate=settings.learning_rate,
            batch_size=settings.batch_size,
            patience=settings.patience,
        )
        answers.append((_predict(engine, validation), _predict(engine, test)))
    first, second = zip(*answers, strict=True)
    return np.mean(first, axis=0), np.mean(second, axis=0)


def _predict(engine: Any, batch: EpisodeBatch) -> np.ndarray:
    answers = []
    for tasks in torch.arange(batch.num_tasks).split(128):
        support, query = batch.select(tasks)
        answers.append(engine.adapt(support).predict(query).detach().numpy())
    return np.concatenate(answers)


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
    users: np.ndarray, count: int, first: int, rng: np.random.Generator, settings: FusionSettings
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


def _tasks(user: int, support: np.ndarray, query: np.ndarray, settings: FusionSettings) -> Iterator[_Task]:
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
        settings: FusionSettings,
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


def _with_base(episodes: Episodes, stacker: Stacker) -> Episodes:
    """The same episodes with a fitted stacker's prediction as one more base, the last."""
    batch = episodes.batch
    alone = replace(
        episodes,
        batch=EpisodeBatch(batch.support._replace(mask=torch.zeros_like(batch.support.mask)), batch.support),
        query_fallback=torch.full(batch.support.mask.shape, 0.5),
    )
    sides = [
        _appended(side, torch.from_numpy(stacker.predict(asked)).float())
        for side, asked in ((batch.support, alone), (batch.query, episodes))
    ]
    return replace(episodes, base_names=(*episodes.base_names, stacker.name), batch=EpisodeBatch(*sides))


def _appended(side: FusionInputs, unit: torch.Tensor) -> FusionInputs:
    own = torch.zeros_like(side.algorithm_features[..., :1, :])
    own[..., 0, 0] = 10.0 * (unit - side.predictions.nanmean(-1)) * side.mask
    return side._replace(
        predictions=torch.cat([side.predictions, unit.unsqueeze(-1)], dim=-1),
        algorithm_features=torch.cat([side.algorithm_features, own], dim=-2),
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
