"""Paired comparisons of transfer strategies with controls, over draws of users.

A round is a draw: other target users, other test users, another seed. It is one observation of a strategy, however many
test users it has. So intervals and tests take the draw as the unit, see :mod:`metarec.evaluation.draws`. RMSE and MAE
are over all query rows of all draws, on the unit scale of the target. The p values of each strategy are Holm-corrected
over all its comparisons in one call. "better" needs the corrected p and an interval above 0, "worse" the uncorrected p.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import numpy as np
import pandas as pd
from scipy.stats import ttest_1samp

from benchmarks.common.statistics import holm
from metarec.evaluation.draws import DrawGain, gains_over_draws, verdict

__all__ = ["Against", "Errors", "MeanGain", "Section", "compare", "gain"]

Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True)
class Errors:
    """Sums of errors on the unit scale by draw and test user.

    Attributes:
        ratings: the number of predicted ratings, indexed by draw and user.
        squared, absolute: sums over these ratings; the same rows, a column for each competitor.
    """

    ratings: pd.Series
    squared: pd.DataFrame
    absolute: pd.DataFrame

    @classmethod
    def of(cls, several: Iterable[tuple[int, Mapping[str, pd.DataFrame]]]) -> Errors:
        """From draws and the frames of cells; errors of a user in a draw, such as with other shots, are summed."""
        tables = list(several)
        squared, absolute = (
            pd.concat([frames[measure].assign(draw=draw) for draw, frames in tables])
            .groupby(["draw", "user"], sort=False)
            .sum()
            for measure in ("squared", "absolute")
        )
        return cls(squared.pop("ratings"), squared, absolute.drop(columns="ratings"))

    @property
    def n_users(self) -> int:
        """The number of different test users; a user can be in several draws."""
        return int(self.ratings.index.get_level_values("user").nunique())

    @property
    def n_draws(self) -> int:
        """The number of draws."""
        return int(self.ratings.index.get_level_values("draw").nunique())

    def rmse(self) -> dict[str, float]:
        """Competitor -> the root of its mean squared error over all ratings."""
        return self._by_name(np.sqrt(self.squared.sum() / self.ratings.sum()))

    def mae(self) -> dict[str, float]:
        """Competitor -> its mean absolute error over all ratings."""
        return self._by_name(self.absolute.sum() / self.ratings.sum())

    @staticmethod
    def _by_name(values: pd.Series) -> dict[str, float]:
        return {str(name): float(value) for name, value in values.items()}


class Against(NamedTuple):
    """A strategy against one control.

    Attributes:
        difference: how much lower the strategy's RMSE is, in percent. by_draw: the same in each draw.
        interval: of the difference, 95 %, over draws. p: of the paired t-test over draws. p_holm: corrected. All three
            are None for one draw.
        verdict: better, worse, "no difference" or "one draw".
    """

    difference: float
    interval: tuple[float, float] | None
    p: float | None
    p_holm: float | None
    by_draw: tuple[float, ...]
    verdict: str

    @classmethod
    def of(cls, found: DrawGain, p_holm: float | None) -> Against:
        """From a gain and its corrected p."""
        interval = None if found.low is None or found.high is None else (found.low, found.high)
        return cls(found.percent, interval, found.p, p_holm, found.by_draw, verdict(found, p_holm))


class MeanGain(NamedTuple):
    """The mean of several targets' gains, in percent, for these very targets.

    Attributes:
        by_draw: the mean over the targets in each draw.
        interval, p: Student's 95 % interval and t-test over the draws' means, uncorrected; None for one draw.
    """

    difference: float
    interval: tuple[float, float] | None
    p: float | None
    by_draw: tuple[float, ...]

    @classmethod
    def of(cls, gains: Sequence[Against]) -> MeanGain:
        """From the gains of the targets, which have the same draws."""
        by_draw = np.mean([own.by_draw for own in gains], axis=0)
        interval = p = None
        if len(by_draw) > 1 and np.ptp(by_draw) > 0:
            test = ttest_1samp(by_draw, 0.0)
            low, high = test.confidence_interval(0.95)
            interval, p = (float(low), float(high)), float(test.pvalue)
        return cls(float(by_draw.mean()), interval, p, tuple(by_draw.tolist()))


@dataclass(frozen=True)
class Section:
    """The numbers of one target under one condition.

    Attributes:
        n_users: different test users. n_draws: draws of users.
        rmse, mae: competitor -> the error on the unit scale.
        controls: what the strategies are compared with. strategies: those that are compared.
        against: strategy -> control -> the comparison.
    """

    n_users: int
    n_draws: int
    n_ratings: int
    rmse: Mapping[str, float]
    mae: Mapping[str, float]
    controls: Sequence[str]
    strategies: Sequence[str]
    against: Mapping[str, Mapping[str, Against]]

    @property
    def best_control(self) -> str:
        """The control with the lowest RMSE on these very test users: chosen with hindsight."""
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

    def over_best(self, strategy: str) -> Against:
        """The comparison with the best control."""
        return self.against[strategy][self.best_control]

    def to_json(self) -> dict[str, Any]:
        """All of it as JSON values."""
        return {
            "n_users": self.n_users,
            "n_draws": self.n_draws,
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
    gains = {
        key: gains_over_draws(
            errors.squared, [(name, control) for name in there[key] for control in controls], seed=seed
        )
        for key, errors in conditions.items()
    }
    corrected = _corrected(gains, strategies)
    return {
        key: Section(
            errors.n_users,
            errors.n_draws,
            int(errors.ratings.sum()),
            errors.rmse(),
            errors.mae(),
            tuple(controls),
            tuple(there[key]),
            {
                name: {
                    control: Against.of(gains[key][name, control], corrected.get((key, name, control)))
                    for control in controls
                }
                for name in there[key]
            },
        )
        for key, errors in conditions.items()
    }


def _corrected(
    gains: Mapping[Key, Mapping[tuple[str, str], DrawGain]], strategies: Sequence[str]
) -> dict[tuple[Key, str, str], float]:
    """The corrected p values; comparisons without one are left out."""
    found: dict[tuple[Key, str, str], float] = {}
    for strategy in strategies:
        family = {
            (key, name, control): own.p
            for key, several in gains.items()
            for (name, control), own in several.items()
            if name == strategy and own.p is not None
        }
        found |= dict(zip(family, map(float, holm(list(family.values()))), strict=True))
    return found
