"""Gains over several draws of users, with intervals and tests that take the draws as the unit.

A model that is fitted on a few drawn users is one observation for each draw, however many test users it is scored on.
The errors of a draw's test users share the luck of that draw, so an interval over all test users is too narrow.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import t, ttest_1samp

from metarec.evaluation.measures import RATING, Measure
from metarec.evaluation.metrics import RESAMPLES

__all__ = ["LEVEL", "DrawGain", "gains_over_draws", "verdict"]

LEVEL = 0.05

_ZERO = 1e-9
"""Gains by draw, in percent, that are this close are equal: they differ by rounding only."""


class DrawGain(NamedTuple):
    """How much better one model's first metric is than another's, in percent.

    Attributes:
        percent: over all rows of all draws.
        low, high: the ends of the 95 % interval over draws; None for fewer than two draws.
        p: of the two-sided paired t-test over the draws; None for fewer than two draws.
        by_draw: the gain in each draw.

    >>> print(DrawGain(1.0, 0.25, 1.75, 0.01, (0.5, 1.5)))
    +1.00 % [+0.25, +1.75]
    >>> print(DrawGain(1.0, None, None, None, (1.0,)))
    +1.00 % (one draw)
    """

    percent: float
    low: float | None
    high: float | None
    p: float | None
    by_draw: tuple[float, ...]

    def __str__(self) -> str:
        if self.low is None or self.high is None:
            return f"{self.percent:+.2f} % (one draw)"
        return f"{self.percent:+.2f} % [{self.low:+.2f}, {self.high:+.2f}]"

    def to_json(self) -> dict[str, Any]:
        """The gain as JSON values."""
        return {**self._asdict(), "by_draw": list(self.by_draw)}

    @property
    def verdict(self) -> str:
        """Whether the gain is significant by its interval over draws.

        >>> DrawGain(1.0, 0.25, 1.75, 0.01, (0.5, 1.5)).verdict, DrawGain(1.0, None, None, None, (1.0,)).verdict
        ('better', 'one draw, no test')
        """
        if self.low is None or self.high is None:
            return "one draw, no test"
        if self.low <= 0 <= self.high:
            return "no significant difference"
        return "better" if self.low > 0 else "worse"

    @property
    def is_above_zero(self) -> bool:
        """Whether the interval over draws is above 0."""
        return self.low is not None and self.low > 0


def gains_over_draws(
    sums: pd.DataFrame, pairs: Iterable[tuple[str, str]], *, measure: Measure = RATING, seed: int = 0
) -> dict[tuple[str, str], DrawGain]:
    """The gain of the first model of each pair over the second one.

    The standard error is that of a hierarchical bootstrap (Davison and Hinkley 1997, section 3.8): draws are drawn with
    replacement, and within each of them its test users. The interval is Student's, with the number of draws minus one
    as the degrees of freedom, because a percentile interval of a handful of draws is too narrow. The noise of users
    widens the interval twice, by the spread of the draws and within each draw. That is on the safe side, also where a
    test user occurs in several draws.

    Args:
        sums: what each test user of each draw adds to the measure, a row each, a column for each model. The first level
            of the index names the draw.
        measure: of the task; by default the sums are squared errors, and the gain is in RMSE.
        seed: of the bootstrap.
    """
    draws = [own.to_numpy() for _, own in sums.groupby(level=0, sort=False)]
    places = {str(name): place for place, name in enumerate(sums.columns)}
    totals = np.stack([own.sum(0) for own in draws])
    resampled = _resampled(draws, seed) if len(draws) > 1 else None
    found = {}
    for ours, theirs in pairs:
        a, b = places[ours], places[theirs]
        by_draw = measure.percent(totals[:, a], totals[:, b])
        whole = float(measure.percent(totals[:, a].sum(), totals[:, b].sum()))
        low = high = p = None
        if resampled is not None:
            wide = _quantile(len(draws)) * float(measure.percent(resampled[:, a], resampled[:, b]).std(ddof=1))
            low, high, p = whole - wide, whole + wide, _paired_p(by_draw)
        found[ours, theirs] = DrawGain(whole, low, high, p, tuple(by_draw.tolist()))
    return found


def verdict(gain: DrawGain, corrected: float | None) -> str:
    """better, worse, "no difference" or "one draw".

    "better" needs a corrected p below LEVEL and an interval above 0, "worse" an uncorrected p below LEVEL.
    """
    if gain.p is None or corrected is None:
        return "one draw"
    if gain.is_above_zero and corrected < LEVEL:
        return "better"
    return "worse" if gain.percent < 0 and gain.p < LEVEL else "no difference"


def _resampled(draws: list[np.ndarray], seed: int) -> np.ndarray:
    """[R, models] totals over resampled draws and, within each, resampled users."""
    rng = np.random.default_rng(seed)
    times = rng.multinomial(len(draws), np.full(len(draws), 1 / len(draws)), size=RESAMPLES)
    return sum(
        (
            rng.multinomial(own * len(errors), np.full(len(errors), 1 / len(errors))) @ errors
            for own, errors in zip(times.T, draws, strict=True)
        ),
        start=np.zeros((RESAMPLES, draws[0].shape[1])),
    )


def _quantile(draws: int) -> float:
    """Student's 97.5 % quantile, and the correction of the bootstrap's standard error for a small number of draws."""
    return float(t.ppf(0.975, draws - 1)) * (draws / (draws - 1)) ** 0.5


def _paired_p(by_draw: np.ndarray) -> float:
    """The two-sided p value of a paired t-test over draws."""
    if np.ptp(by_draw) < _ZERO:
        return 1.0 if abs(by_draw[0]) < _ZERO else 0.0
    return float(ttest_1samp(by_draw, 0.0).pvalue)
