"""The weights of a mixture of candidates that are best for a target's other users, as far as that can be expected.

The expectation is a weighted mean of two: what the candidates did for the users of each source as a target, and what
they do for the target's few users out of fold.

Shapes: U users, N rows of a user, K candidates.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np

from metarec.episodes import Episodes
from metarec.evaluation.measures import RANKING, RATING, Measure
from metarec.fusion import Task
from metarec.fusion.blend import bagged_greedy_weights
from metarec.fusion.ranks import RelevantRanks, ndcg
from metarec.transfer.strategies.parts.candidates import names_of
from metarec.transfer.strategies.parts.stacking import error_products, exchangeable, squared_error, stacking_weights

__all__ = ["Mixing", "mixing_of"]

PRIOR_USERS = 50
"""The weight of the source experience, in users of the target. Chosen for ratings on rounds 3 and 4 of seven sets; 20
to 100 were within .1 % of each other."""

STEPS, BAGS = 10, 8
"""Of the greedy selections of ranking."""


class Mixing(ABC):
    """How candidates are mixed for one task.

    Attributes:
        measure: of the task.
        hostile: nothing is transferred where the source models without a domain step are worse than the plain mean of
            the bases by this share or more. A step to the few users would hide it, and fail for others.
        unsafe: candidates that are left out without source experience: on a few users their errors are underestimated.
        scored_users: the most validation users of a source that candidates are scored on.
    """

    measure: ClassVar[Measure]
    hostile: ClassVar[float]
    unsafe: ClassVar[tuple[str, ...]]
    scored_users: ClassVar[int]

    @property
    def names(self) -> tuple[str, ...]:
        """The K candidates."""
        return names_of(self.measure.task)

    @abstractmethod
    def evidence(self, episodes: Episodes, predictions: np.ndarray) -> Any:
        """What is kept of the candidates' predictions [U, N, K] for these users."""

    @abstractmethod
    def sums(self, evidence: Any, weights: np.ndarray) -> np.ndarray:
        """[U] what each user adds to the measure of the mixture with these weights [K]."""

    @abstractmethod
    def expected(self, experience: Sequence[Any], source_weights: Sequence[float], own: Any) -> Any:
        """What can be expected of the target's other users.

        Args:
            experience: evidence from each source as a target. source_weights: of each, > 0.
            own: of the target's few users, out of fold unless there is only one.
        """

    @abstractmethod
    def weights(self, expected: Any, allowed: np.ndarray) -> np.ndarray:
        """[K] weights >= 0 that sum to 1, the best for the expected users; `allowed`: [K] which may be above 0."""

    @abstractmethod
    def cost(self, expected: Any, weights: np.ndarray) -> float:
        """The expected error of the mixture with these weights; less is better."""

    def user_gains(self, evidence: Any, before: np.ndarray, after: np.ndarray) -> np.ndarray:
        """[U] users' parts in the gain of the weights `after` over the weights `before`."""
        return self.measure.user_gains(self.sums(evidence, before), self.sums(evidence, after))


class _RatingMixing(Mixing):
    """The weights minimise the expected squared error (stacked regressions, Breiman 1996).

    The evidence is the products of the candidates' errors [U, K, K], in units of the mean squared error of the bases'
    mean, so that domains are comparable.
    """

    measure = RATING
    # Between real domains that happens with five users, hardly with more.
    hostile = 0.15
    unsafe = ("ridge", "fwls")
    scored_users = 100

    def evidence(self, episodes: Episodes, predictions: np.ndarray) -> np.ndarray:
        products = error_products(episodes, predictions)
        mean = self.names.index("mean")
        return products / max(float(products[:, mean, mean].mean()), 1e-12)

    def sums(self, evidence: np.ndarray, weights: np.ndarray) -> np.ndarray:
        return squared_error(evidence, weights)

    def expected(
        self, experience: Sequence[np.ndarray], source_weights: Sequence[float], own: np.ndarray
    ) -> np.ndarray:
        """[K, K] the expected error products."""
        own_mean = own.mean(0)
        each = [products.mean(0) for products in experience]
        prior = np.average(each, axis=0, weights=source_weights) if experience else exchangeable(own_mean)
        count = _out_of_fold(len(own))
        found: np.ndarray = (PRIOR_USERS * prior + count * own_mean) / (PRIOR_USERS + count)
        return found

    def weights(self, expected: np.ndarray, allowed: np.ndarray) -> np.ndarray:
        return stacking_weights(expected, allowed)

    def cost(self, expected: np.ndarray, weights: np.ndarray) -> float:
        return float(squared_error(expected, weights))


class _Lists(NamedTuple):
    """The candidates' lists of U users.

    Attributes:
        scores: [K, U, N] standard scores. targets, mask: [U, N] as in :class:`metarec.episodes.FusionInputs`.
        relevant: [U] see :attr:`metarec.episodes.Episodes.relevant`.
    """

    scores: np.ndarray
    targets: np.ndarray
    mask: np.ndarray
    relevant: np.ndarray

    def ndcg(self, scores: np.ndarray) -> np.ndarray:
        """[U] of scores [U, N]."""
        return ndcg(RelevantRanks.of(scores, self.targets, self.mask, self.relevant))

    @classmethod
    def joined(cls, several: Sequence[_Lists]) -> _Lists:
        """The users of all, in order."""
        width = max(one.mask.shape[1] for one in several)

        def padded(values: np.ndarray) -> np.ndarray:
            return np.pad(values, [*[(0, 0)] * (values.ndim - 1), (0, width - values.shape[-1])])

        return cls(
            np.concatenate([padded(one.scores) for one in several], axis=1),
            np.concatenate([padded(one.targets) for one in several]),
            np.concatenate([padded(one.mask) for one in several]),
            np.concatenate([one.relevant for one in several]),
        )


class _ExpectedLists(NamedTuple):
    """Users with the share of each [U], and the share of equal weights in the weights of a mixture."""

    lists: _Lists
    shares: np.ndarray
    equal: float


class _RankingMixing(Mixing):
    """The weights come from greedy selections by the expected nDCG@10, as those of a fusion's members do.

    The evidence is the candidates' lists (:func:`metarec.fusion.blend.bagged_greedy_weights`).
    """

    measure = RANKING
    # The mean nDCG@10 of twenty users has a standard error of about a fifth of it.
    hostile = 0.5
    unsafe = ("logistic",)
    # A selection ranks all lists some hundred times.
    scored_users = 40

    def evidence(self, episodes: Episodes, predictions: np.ndarray) -> _Lists:
        query = episodes.batch.query
        assert episodes.relevant is not None
        scores = np.moveaxis(predictions, -1, 0)
        return _Lists(scores, query.targets.numpy(), query.mask.numpy(), episodes.relevant)

    def sums(self, evidence: _Lists, weights: np.ndarray) -> np.ndarray:
        return evidence.ndcg(np.tensordot(weights, evidence.scores, 1))

    def expected(self, experience: Sequence[_Lists], source_weights: Sequence[float], own: _Lists) -> _ExpectedLists:
        users = len(own.relevant)
        count = _out_of_fold(users)
        if not experience:
            return _ExpectedLists(own, np.full(users, 1 / users), PRIOR_USERS / (PRIOR_USERS + count))
        totals = PRIOR_USERS * np.asarray(source_weights) / np.sum(source_weights)
        sizes = [len(one.relevant) for one in experience]
        shares = np.concatenate([np.repeat(totals / sizes, sizes), np.ones(count)])
        lists = _Lists.joined([*experience, own] if count else experience)
        return _ExpectedLists(lists, shares / shares.sum(), 0.0)

    def weights(self, expected: _ExpectedLists, allowed: np.ndarray) -> np.ndarray:
        lists, shares, equal = expected
        found = bagged_greedy_weights(lists.scores[allowed], lists.ndcg, steps=STEPS, bags=BAGS, seed=0, shares=shares)
        weights = np.zeros(len(allowed))
        weights[allowed] = (1 - equal) * found + equal / len(found)
        return weights

    def cost(self, expected: _ExpectedLists, weights: np.ndarray) -> float:
        return -float(expected.shares @ self.sums(expected.lists, weights))


_MIXINGS = {mixing.measure.task: mixing for mixing in (_RatingMixing(), _RankingMixing())}


def mixing_of(task: Task) -> Mixing:
    """The mixing of the task of this name."""
    return _MIXINGS[task]


def _out_of_fold(users: int) -> int:
    """The number of users whose predictions are out of fold: those of a single user are not."""
    return users if users > 1 else 0
