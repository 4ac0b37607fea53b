"""Paired comparisons of transfer strategies with controls without sources, over all test users of all rounds.

Test users of different rounds are different people, so they are pooled: RMSE and MAE are over all their query rows, on
the unit scale of the target. The Wilcoxon signed-rank test is over users, on the differences of their mean squared
errors. The p values of each strategy are Holm-corrected over all its comparisons in one call; verdicts are those
of :mod:`benchmarks.common.statistics`: "better" needs the corrected p, "worse" the uncorrected one.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import pandas as pd

from benchmarks.common.statistics import Comparison, SignedRank, holm, signed_rank, verdict
from metarec.evaluation.metrics import RESAMPLES, Gain

__all__ = ["Errors", "Section", "compare", "gain"]

Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True)
class Errors:
    """Sums of errors on the unit scale by test user.

    Attributes:
        ratings: [U] the number of predicted ratings, by user.
        squared, absolute: [U, competitors] sums over these ratings, by user.
    """

    ratings: pd.Series
    squared: pd.DataFrame
    absolute: pd.DataFrame

    @classmethod
    def of(cls, several: Iterable[Mapping[str, pd.DataFrame]]) -> Errors:
        """From the frames of cells; errors of a user in several of them, such as with other shots, are summed."""
        tables = list(several)
        squared, absolute = (
            pd.concat([table[measure] for table in tables]).groupby("user", sort=False).sum()
            for measure in ("squared", "absolute")
        )
        return cls(squared.pop("ratings"), squared, absolute.drop(columns="ratings"))

    def rmse(self) -> dict[str, float]:
        """Competitor -> the root of its mean squared error over all ratings."""
        return self._by_name(np.sqrt(self.squared.sum() / self.ratings.sum()))

    def mae(self) -> dict[str, float]:
        """Competitor -> its mean absolute error over all ratings."""
        return self._by_name(self.absolute.sum() / self.ratings.sum())

    @staticmethod
    def _by_name(values: pd.Series) -> dict[str, float]:
        return {str(name): float(value) for name, value in values.items()}


@dataclass(frozen=True)
class Section:
    """The numbers of one target under one condition.

    Attributes:
        rmse, mae: competitor -> the error on the unit scale.
        controls: competitors without sources. strategies: those that are compared with them.
        against: strategy -> control -> the comparison; a difference above 0: the strategy's RMSE is lower, in percent.
    """

    n_users: int
    n_ratings: int
    rmse: Mapping[str, float]
    mae: Mapping[str, float]
    controls: Sequence[str]
    strategies: Sequence[str]
    against: Mapping[str, Mapping[str, Comparison]]

    @property
    def best_control(self) -> str:
        """The control with the lowest RMSE on these very test users."""
        return self.best_of(self.controls)

    @property
    def best_strategy(self) -> str:
        """The strategy with the lowest RMSE on these very test users: chosen with hindsight."""
        return self.best_of(self.strategies)

    def best_of(self, names: Iterable[str]) -> str:
        """The one of them with the lowest RMSE; of equals the first in the alphabet."""
        return min(names, key=lambda name: (self.rmse[name], name))

    def verdicts(self, strategy: str) -> list[str]:
        """The strategy's verdict against each control."""
        return [comparison.verdict for comparison in self.against[strategy].values()]

    def beats_all(self, strategy: str) -> bool:
        """Whether the strategy is significantly better than every control."""
        return all(word == "better" for word in self.verdicts(strategy))

    def over_best(self, strategy: str) -> Comparison:
        """The comparison with the best control."""
        return self.against[strategy][self.best_control]

    def to_json(self) -> dict[str, Any]:
        """All of it as JSON values."""
        return {
            "n_users": self.n_users,
            "n_ratings": self.n_ratings,
            "rmse": dict(self.rmse),
            "mae": dict(self.mae),
            "best_control": self.best_control,
            "best_strategy": self.best_strategy if self.strategies else None,
            "against": {
                name: {control: comparison._asdict() for control, comparison in own.items()}
                for name, own in self.against.items()
            },
        }


def gain(rmse: Mapping[str, float], ours: str, theirs: Iterable[str]) -> float:
    """How much lower the RMSE of `ours` is than the lowest of `theirs`, in percent.

    >>> gain({"auto": 0.19, "mean": 0.2, "scratch": 0.25}, "auto", ["mean", "scratch"])
    5.0
    """
    best = min(rmse[name] for name in theirs)
    return round(100 * (1 - rmse[ours] / best), 12)


def compare(
    conditions: Mapping[Key, Errors], strategies: Sequence[str], controls: Sequence[str], *, seed: int = 0
) -> dict[Key, Section]:
    """The numbers under every condition, with p values corrected over all of them for each strategy.

    Args:
        strategies, controls: columns of the errors; strategies that are not there are left out.
        seed: of the bootstrap.
    """
    there = {key: [name for name in strategies if name in errors.squared] for key, errors in conditions.items()}
    gains = {key: _gains(errors, there[key], controls, seed) for key, errors in conditions.items()}
    tests = {key: _tests(errors, there[key], controls) for key, errors in conditions.items()}
    against: dict[Key, dict[str, dict[str, Comparison]]] = {
        key: {name: {} for name in names} for key, names in there.items()
    }
    for name in strategies:
        family = [(key, control) for key in conditions if name in there[key] for control in controls]
        corrected = holm([tests[key][name, control].p for key, control in family])
        for (key, control), p_holm in zip(family, corrected, strict=True):
            found, test = gains[key][name, control], tests[key][name, control]
            against[key][name][control] = Comparison(
                found.percent,
                (found.low, found.high),
                test.p,
                float(p_holm),
                test.effect,
                verdict(found.percent, test, float(p_holm)),
            )
    return {
        key: Section(
            len(errors.ratings),
            int(errors.ratings.sum()),
            errors.rmse(),
            errors.mae(),
            tuple(controls),
            tuple(there[key]),
            against[key],
        )
        for key, errors in conditions.items()
    }


def _tests(errors: Errors, strategies: Sequence[str], controls: Sequence[str]) -> dict[tuple[str, str], SignedRank]:
    means = errors.squared.div(errors.ratings, axis=0)
    return {
        (name, control): signed_rank((means[control] - means[name]).to_numpy())
        for name in strategies
        for control in controls
    }


def _gains(
    errors: Errors, strategies: Sequence[str], controls: Sequence[str], seed: int
) -> dict[tuple[str, str], Gain]:
    """With 95 % intervals: a percentile bootstrap over users, with the same draws for all."""
    number = len(errors.ratings)
    draws = np.random.default_rng(seed).multinomial(number, np.full(number, 1 / number), size=RESAMPLES)
    names = list(dict.fromkeys([*strategies, *controls]))
    sums = errors.squared[names].to_numpy()
    drawn = dict(zip(names, (draws @ sums).T, strict=True))
    whole = dict(zip(names, sums.sum(0), strict=True))
    found = {}
    for name in strategies:
        for control in controls:
            low, high = np.percentile(_percent(drawn[name], drawn[control]), [2.5, 97.5])
            found[name, control] = Gain(float(_percent(whole[name], whole[control])), float(low), float(high))
    return found


def _percent(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    return 100 * (1 - np.sqrt(ours / np.maximum(theirs, 1e-300)))
