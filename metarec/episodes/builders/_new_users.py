"""The tasks of new users, made as the episodes of their domain: the inputs of a trained fusion network in use."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import numpy as np
import pandas as pd
import torch

from metarec.bases import BaseRecommender, Learned, QueryBatch, Stored, answer_queries, check_stored, fit_base
from metarec.episodes._episodes import EpisodeBatch, Episodes, FusionInputs
from metarec.episodes._features import CONTEXT_NAMES, FEATURE_NAMES, Priors, Rows, query_features, support_features
from metarec.episodes._item_facts import ItemFactsTable, item_facts
from metarec.episodes._predictions import padded, padded_predictions, predict_tasks, whole_query
from metarec.episodes._split import Task
from metarec.episodes._standards import Moments, Standards, unit_rows
from metarec.errors import InputError, shown
from metarec.ratings import Domain, RatingScale, ids_of, seconds_of

__all__ = ["History", "NewUsers", "TaskMaker", "task_of"]

_NOTHING = np.array([], dtype=object)


class History(NamedTuple):
    """A user's ratings so far: [k] item ids, ratings in the domain's own units, and times in seconds, or None."""

    items: np.ndarray
    ratings: np.ndarray
    times: np.ndarray | None = None

    @classmethod
    def of(cls, table: pd.DataFrame) -> Self:
        """From the columns ``item``, ``rating`` and, where there is one, ``timestamp``.

        Ids and times follow the rules of :func:`metarec.ratings.ids_of` and :func:`metarec.ratings.seconds_of`.

        Raises:
            InputError: a column is missing, or an id or a time breaks its rule.
        """
        for column in ("item", "rating"):
            if column not in table.columns:
                raise InputError(f'a history needs the columns item and rating, but "{column}" is missing')
        times = seconds_of(table["timestamp"], "timestamp") if "timestamp" in table.columns else None
        return cls(ids_of(table["item"]), table["rating"].to_numpy(dtype=np.float64), times)

    def rows(self, rows: np.ndarray) -> Self:
        """Some of them, by position."""
        return type(self)(self.items[rows], self.ratings[rows], None if self.times is None else self.times[rows])

    def latest(self, most: int) -> Self:
        """The latest `most` of them; a fixed draw where there are no times."""
        if len(self.items) <= most:
            return self
        if self.times is None:
            chosen = np.random.default_rng(0).permutation(len(self.items))[:most]
        else:
            chosen = np.argsort(-self.times, kind="stable")[:most]
        return self.rows(np.sort(chosen))


def task_of(user: str, history: History, shots: int | None, query: np.ndarray) -> tuple[History, Task]:
    """The support of a user, and the task, in which the earlier part of the history is the background.

    Args:
        shots: the most support ratings, the latest ones; None for all. query: [n] the items to predict.
    """
    support = history if shots is None else history.latest(shots)
    others = ~np.isin(history.items, support.items)
    task = Task(user, support.items, support.ratings, query, history.items[others], history.ratings[others])
    return support, task


@dataclass(frozen=True)
class TaskMaker:
    """Makes the tasks of new users exactly as the episodes of a domain.

    :meth:`users` gives the support rows that a meta-learner adapts on, and :meth:`NewUsers.query` the rows that the
    adapted network predicts.

    Attributes:
        scale: the domain's rating scale.
        bases: name -> fitted base recommender, in the order of the tensors' axis.
        item_table: the item facts from the ratings that the bases were fitted on.
        now: the time of the latest of these ratings, for rows without a time; None without timestamps.
        standards: the standardisation of features, from :attr:`DomainEpisodes.standards`.
        shots: the most support rows of a user, the latest ones; the bases get all ratings as the history. None makes
            all ratings support rows.
    """

    scale: RatingScale
    bases: Mapping[str, BaseRecommender]
    item_table: ItemFactsTable
    now: float | None
    standards: Standards
    shots: int | None = None

    @classmethod
    def fit(
        cls,
        domain: Domain,
        bases: Mapping[str, Mapping[str, Any]],
        standards: Standards,
        *,
        shots: int | None = None,
        seed: int = 0,
    ) -> TaskMaker:
        """Fit the bases on all ratings of `domain`, which must not hold those of test users, or test ratings.

        Args:
            bases: name -> options of each base recommender, in the order of the tensors' axis.
            standards: those of the episodes that the network was trained on. seed: of the bases, as there.
            shots: the most support rows of a user.
        """
        return cls(
            domain.scale,
            {name: fit_base(name, domain, options, seed=seed) for name, options in bases.items()},
            item_facts(domain, standards.damping),
            float(domain.ratings["timestamp"].max()) if domain.has_timestamps else None,
            standards,
            shots,
        )

    def arrays(self) -> dict[str, Learned]:
        """The item facts and the standards as plain arrays; :meth:`from_arrays` is the inverse."""
        items, standards = self.item_table, self.standards
        return {
            "items": items.items.to_numpy().astype(np.str_),
            "table": items.table,
            "first": items.first,
            "absolute_error": standards.priors.absolute_error,
            "variance": standards.priors.variance,
            "algorithm_mean": standards.algorithm.mean,
            "algorithm_spread": standards.algorithm.spread,
            "context_mean": standards.context.mean,
            "context_spread": standards.context.spread,
            "damping": standards.damping,
            **({} if self.shots is None else {"shots": float(self.shots)}),
        }

    @classmethod
    def from_arrays(
        cls, stored: Mapping[str, Any], scale: RatingScale, bases: Mapping[str, BaseRecommender], now: float | None
    ) -> TaskMaker:
        """The task maker with these fitted bases, from the arrays of :meth:`arrays`.

        Raises:
            InputError: an array is missing, or breaks its rule.
        """
        features = {"algorithm_mean": Stored("bases features"), "algorithm_spread": Stored("bases features", low=0)}
        rules = {
            "items": Stored("items", kind="text", unique=True),
            "table": Stored("items+1 4"),
            # An unknown item has no first time.
            "first": Stored("items+1", high=np.inf),
            "absolute_error": Stored("bases", low=0),
            "variance": Stored(low=0),
            **features,
            "context_mean": Stored("context"),
            "context_spread": Stored("context", low=0),
            "damping": Stored(low=1e-9),
            **({"shots": Stored(low=0)} if "shots" in stored else {}),
        }
        check_stored("the facts of the items", stored, rules, {"bases": len(bases)})
        items = pd.Index(stored["items"].astype(object), dtype=object)
        standards = Standards(
            Priors(stored["absolute_error"], float(stored["variance"])),
            Moments(stored["algorithm_mean"], stored["algorithm_spread"]),
            Moments(stored["context_mean"], stored["context_spread"]),
            float(stored["damping"]),
        )
        shots = int(stored["shots"]) if "shots" in stored else None
        return cls(scale, bases, ItemFactsTable(items, stored["table"], stored["first"]), now, standards, shots)

    def users(self, histories: Sequence[History]) -> NewUsers:
        """Fold in T users: every item of a history is predicted from the user's other ratings.

        Histories may be of different lengths, and empty.

        Raises:
            InputError: no histories; or in one of them an id that is no string, an item that is there twice, or a
                rating that is not in the domain's scale.
        """
        if not histories:
            raise InputError("histories must hold at least one user's but is empty")
        for history in histories:
            self.check(history)
        supports, tasks = zip(*(task_of("", history, self.shots, _NOTHING) for history in histories), strict=True)
        width = max(1, *(len(support.items) for support in supports))
        answers = predict_tasks(self.bases.values(), tasks)
        ratings = padded([self.scale.to_unit(support.ratings) for support in supports], width, 0.0)
        rows = self._rows(
            [padded_predictions(answer.support, width) for answer in answers],
            [padded_predictions(answer.support_evidence, width) for answer in answers],
            [support.items for support in supports],
            [support.times for support in supports],
        )
        features = support_features(rows, ratings, self.standards.priors, damping=self.standards.damping)
        return NewUsers(self, tasks, rows, ratings, self.standards.inputs(features, ratings, rows.mask))

    def _rows(
        self,
        predictions: Sequence[np.ndarray],
        evidence: Sequence[np.ndarray],
        items: Sequence[np.ndarray],
        times: Sequence[np.ndarray | None],
    ) -> Rows:
        """One side of T tasks: [T, n] of each base, and the items and times of each task."""
        width = predictions[0].shape[1]
        lengths = np.array([len(own) for own in items])
        # Padding holds the facts of an unknown item, because a user without a history needs the mean too.
        facts = np.tile(self.item_table(np.array([""], dtype=object), None), (len(items), width, 1))
        for row, (own, when) in enumerate(zip(items, times, strict=True)):
            if when is None and self.now is not None:
                when = np.full(len(own), self.now)
            facts[row, : len(own)] = self.item_table(own, when)
        mask = np.arange(width) < lengths[:, None]
        return unit_rows(np.stack(predictions, -1), np.stack(evidence, -1), facts, mask, self.scale)

    def check(self, history: History) -> None:
        """Raise InputError for a history that breaks a rule of :meth:`users`."""
        items, ratings = history.items, history.ratings
        if not len(items) == len(ratings) == len(ratings if history.times is None else history.times):
            raise InputError(f"a history must have a rating for each item but got {len(items)} and {len(ratings)}")
        _check_ids(items)
        if len(set(items)) < len(items):
            twice = Counter(items.tolist()).most_common(1)[0][0]
            raise InputError(f'a user rates an item once, but the history holds item "{shown(twice)}" again')
        inside = (ratings >= self.scale.low) & (ratings <= self.scale.high)
        if history.times is not None and not np.isfinite(history.times).all():
            raise InputError("every time of a history must be finite; leave out the column timestamp if one is unknown")
        if not inside.all():
            wrong = ratings[~inside][0]
            raise InputError(f"every rating must lie in {self.scale} but the history holds {wrong:g}")


@dataclass(frozen=True)
class NewUsers:
    """T users who have been folded in. Made by :meth:`TaskMaker.users`.

    Attributes:
        support: [T, K] rows for a meta-learner to adapt on; K is the longest history, and at least 1.
    """

    _maker: TaskMaker
    _tasks: Sequence[Task]
    _rows: Rows
    _ratings: np.ndarray
    support: FusionInputs

    def query(self, items: Sequence[np.ndarray], times: Sequence[np.ndarray] | None = None) -> FusionInputs:
        """The rows of items to be predicted, each from the user's whole history: [T, N], without targets.

        Args:
            items: [n] item ids for each user; N is the longest. Unknown items are allowed.
            times: [n] the times of the ratings to predict, in seconds, for each user; by default the time of the latest
                rating that the bases were fitted on.

        Raises:
            InputError: not as many arrays as users, or an id that is no string.
        """
        return self.episodes(items, times).batch.query

    def episodes(self, items: Sequence[np.ndarray], times: Sequence[np.ndarray | None] | None = None) -> Episodes:
        """The same as episodes, for stackers: the true ratings are all 0.

        Args and errors are those of :meth:`query`.
        """
        if len(items) != len(self._tasks):
            raise InputError(f"items must hold an array for each of the {len(self._tasks)} users but has {len(items)}")
        for own in items:
            _check_ids(own)
        maker, standards = self._maker, self._maker.standards
        tasks = zip(self._tasks, items, strict=True)
        queries = QueryBatch(whole_query(task._replace(query_items=own)) for task, own in tasks)
        answers = [answer_queries(base, queries) for base in maker.bases.values()]
        width = max(len(own) for own in items)
        rows = maker._rows(
            [padded_predictions([answer.predictions for answer in own], width) for own in answers],
            [padded_predictions([answer.evidence for answer in own], width) for own in answers],
            items,
            times if times is not None else [None] * len(items),
        )
        features = query_features(self._rows, self._ratings, rows, standards.priors, damping=standards.damping)
        nothing = np.zeros(rows.mask.shape)
        return Episodes(
            domain="",
            scale=maker.scale,
            base_names=tuple(maker.bases),
            feature_names=FEATURE_NAMES,
            context_names=CONTEXT_NAMES,
            batch=EpisodeBatch(self.support, standards.inputs(features, nothing, rows.mask)),
            users=np.full(len(items), "", dtype=object),
            support_items=padded([task.support_items for task in self._tasks], self.support.mask.shape[1], ""),
            query_items=padded(items, width, ""),
            query_fallback=torch.from_numpy(features.fallback).float(),
            query_ratings=nothing,
        )


def _check_ids(items: np.ndarray) -> None:
    for item in items:
        if not isinstance(item, str):
            raise InputError(f"item ids must be strings but got {shown(repr(item))}; convert them with str")
