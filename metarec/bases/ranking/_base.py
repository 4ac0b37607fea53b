"""The interface of ranking bases, and what they share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar, Literal, NamedTuple, Self, TypeAlias

import numpy as np
from scipy import sparse

from metarec.bases._base import BaseConfig, Configured
from metarec.bases._learned import Learned, Stored, check_stored
from metarec.bases._searched import Limits
from metarec.ratings import Domain

__all__ = ["Histories", "RankingBase", "WeightedConfig", "strengths", "user_rows"]

Weights: TypeAlias = Literal["log", "binary"]


class Histories(NamedTuple):
    """The histories of B users as flat arrays with R entries, user after user, each in the order of time.

    Attributes:
        lengths: [B] the number of entries of each history.
        items: [R] item codes, which are positions in the `item_index` of the domain of the fit.
        weights: [R] float32 > 0.
    """

    lengths: np.ndarray
    items: np.ndarray
    weights: np.ndarray

    @property
    def owners(self) -> np.ndarray:
        """[R] the user of each entry."""
        return np.repeat(np.arange(len(self.lengths)), self.lengths)

    def rows(self, values: np.ndarray, num_items: int) -> sparse.csr_array:
        """[B, I] a sparse row for each user with `values` ([R]) at the user's items."""
        bounds = np.concatenate([[0], np.cumsum(self.lengths)])
        return sparse.csr_array((values, self.items, bounds), shape=(len(self.lengths), num_items))


class WeightedConfig(BaseConfig):
    """What bases that may use the weights of events have in common."""

    weights: Weights = "binary"
    "`log`: an event of weight w counts log2(1 + w), so that a single one counts 1. `binary`: every event counts 1."


def strengths(weights: np.ndarray, how: Weights) -> np.ndarray:
    """float32 values of events as `WeightedConfig` describes them.

    >>> strengths(np.array([1.0, 3.0]), "log")
    array([1., 2.], dtype=float32)
    """
    return np.log2(1 + weights).astype(np.float32) if how == "log" else np.ones(len(weights), dtype=np.float32)


def user_rows(domain: Domain, how: Weights) -> sparse.csr_array:
    """[U, I] float32 values of the events of a domain. The order of the table's rows does not matter."""
    events = domain.ratings
    users, names = events["user"].factorize(sort=True)
    items = domain.item_index.get_indexer(events["item"])
    values = strengths(events["weight"].to_numpy(dtype=np.float64), how)
    rows = sparse.coo_array((values, (users, items)), shape=(len(names), len(domain.item_index))).tocsr()
    rows.sort_indices()
    return rows


class RankingBase(Configured, ABC):
    """Scores every item of the catalogue from a user's history.

    A base sees the history only, never the user's id (fold-in), so it scores for users outside of its fit. A subclass
    defines `name`, `Config`, `learned`, `fit` and `score_items`; a plug-in is a subclass too.

    Attributes:
        needs: the part of a domain without which the base has nothing to learn from.
        searched: the settings that a search may vary, with their values. The default of each is among them.
        is_personal: whether the scores depend on the history. A personal base says nothing of an empty history.
        learned: the values that `fit` sets, and the rule of each: ``"vectors"`` for the attribute ``_vectors``. At
            least one has an axis "items".
    """

    needs: ClassVar[Literal["timestamps", "items"] | None] = None
    searched: ClassVar[Mapping[str, Limits]] = {}
    is_personal: ClassVar[bool] = True
    learned: ClassVar[Mapping[str, Stored]]

    @abstractmethod
    def fit(self, domain: Domain) -> Self:
        """Learn from the events (and item features) of a domain with implicit feedback."""

    @abstractmethod
    def score_items(self, histories: Histories) -> np.ndarray:
        """[B, I] finite scores, higher for better. A row of one value means that the base has nothing to say."""

    def score(self, histories: Histories) -> np.ndarray:
        """Scores of the whole catalogue. The user's own items have scores as well.

        Args:
            histories: B histories. The result has B times I numbers, so the caller passes users in blocks.

        Returns:
            [B, I] float32, higher for better. A row is finite, or NaN where the base has nothing to say.

        Raises:
            ValueError: the base returned another shape, or a score that is not finite.
        """
        scores = np.asarray(self.score_items(histories), dtype=np.float32)
        expected = (len(histories.lengths), self.num_items)
        if scores.shape != expected:
            raise ValueError(
                f"ranking base {self.name} must return an array of shape {expected} but returned {scores.shape}"
            )
        lowest, highest = scores.min(axis=1), scores.max(axis=1)
        if not (np.isfinite(lowest) & np.isfinite(highest)).all():
            raise ValueError(f"ranking base {self.name} must return finite scores")
        if self.is_personal:
            scores[(lowest == highest) | (histories.lengths == 0)] = np.nan
        return scores

    @property
    def num_items(self) -> int:
        """I, the number of items that were there at the fit."""
        name, place = next(
            (name, rule.axes.split().index("items"))
            for name, rule in self.learned.items()
            if "items" in rule.axes.split()
        )
        return int(getattr(self, f"_{name}").shape[place])

    def _derive(self) -> None:
        """Derive from the learned values what scoring needs besides; raise InputError where they do not fit."""

    def state(self) -> dict[str, Learned]:
        """The learned values; :meth:`restore` makes the same base of them, with the same settings."""
        return {name: getattr(self, f"_{name}") for name in self.learned}

    def restore(self, state: Mapping[str, Learned]) -> Self:
        """Take the state of another base with the same settings.

        Raises:
            InputError: something is missing from the state, or breaks its rule.
        """
        check_stored(f"the state of the ranking base {self.name}", state, self.learned)
        for name in self.learned:
            setattr(self, f"_{name}", state[name])
        self._derive()
        return self
