"""From cells to the lines of a table: means over seeds, and gains over training from scratch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from metarec.compare.cells import StrategyResult
from metarec.compare.plan import SCRATCH, ComparisonPlan
from metarec.evaluation.metrics import Gain, paired_gains
from metarec.transfer.competitors import ORACLE
from metarec.transfer.rounds import Regime

__all__ = ["Comparison", "Line", "Setting", "best_of", "lines"]


class Setting(NamedTuple):
    """The setting of one table: what is scarce in the target, and how many users it has."""

    regime: Regime
    target_users: int

    def __str__(self) -> str:
        ending = "" if self.regime == "everything" else ", where only labels are few"
        return f"{self.target_users} known users{ending}"


class Line(NamedTuple):
    """One strategy in one setting.

    Attributes:
        shots: None for all numbers of shots together, where only the gain has a meaning.
        rmse, mae, unit_rmse: means over the seeds, the first two in the target's own units.
        gain: over training from scratch; None for scratch itself.
        n_users: test users of all seeds.
    """

    setting: Setting
    strategy: str
    shots: int | None
    rmse: float
    mae: float
    unit_rmse: float
    gain: Gain | None
    n_users: int


def lines(plan: ComparisonPlan, results: Sequence[StrategyResult]) -> list[Line]:
    """The summary of all cells, in the order of the plan.

    A gain compares the errors on the same rows: all rows of a test user, of all seeds (and numbers of shots) together,
    are drawn or left out at once, see :func:`~metarec.evaluation.metrics.paired_gains`.
    """
    found = []
    for setting in (Setting(regime, users) for regime in plan.regimes for users in plan.target_users):
        own = [
            one for one in results if Setting(one.cell.round.world.regime, one.cell.round.world.target_users) == setting
        ]
        for shots in (*plan.shots, None):
            judged = [one for one in own if shots is None or one.cell.round.shots == shots]
            found += _lines_of(plan, setting, shots, judged)
    return found


def _lines_of(
    plan: ComparisonPlan, setting: Setting, shots: int | None, results: Sequence[StrategyResult]
) -> list[Line]:
    squared = _squared(results)
    found = []
    for strategy in plan.strategies:
        scores = [one.scores for one in results if one.cell.strategy == strategy]
        rmse, mae, unit_rmse = np.mean(
            [[own.values[name] for name in ("rmse", "mae", "unit_rmse")] for own in scores], axis=0
        ).tolist()
        gain = None
        if strategy != SCRATCH:
            gain = paired_gains(squared[strategy].to_numpy(), squared[[SCRATCH]])[SCRATCH]
        found.append(Line(setting, strategy, shots, rmse, mae, unit_rmse, gain, len(squared)))
    return found


def _squared(results: Sequence[StrategyResult]) -> pd.DataFrame:
    """Sums of squared errors: a row for each test user, a column for each strategy."""
    parts = [pd.DataFrame({"user": one.users, "strategy": one.cell.strategy, "sum": one.squared}) for one in results]
    return pd.concat(parts).pivot_table(index="user", columns="strategy", values="sum", aggfunc="sum")


def best_of(some: Sequence[Line]) -> str | None:
    """The strategy with the lowest RMSE; the oracle, which has data that the others lack, does not count."""
    able = [line for line in some if line.strategy != ORACLE]
    return min(able, key=lambda line: line.rmse).strategy if able else None


@dataclass(frozen=True)
class Comparison:
    """A finished comparison.

    Attributes:
        scale: of the target. results: every cell, in the order of the plan.
        similarity: domain -> domain -> similarity in [0, 1], without any test user of the first round.
        experiment_id, run_id: of the parent run, where there is one.
    """

    name: str
    plan: ComparisonPlan
    scale: str
    results: Sequence[StrategyResult]
    lines: Sequence[Line]
    similarity: Mapping[str, Mapping[str, float]]
    experiment_id: str | None = None
    run_id: str | None = None

    def settings(self) -> list[Setting]:
        """One for each table."""
        return list(dict.fromkeys(line.setting for line in self.lines))

    def lines_of(self, setting: Setting, shots: int | None) -> list[Line]:
        """One for each strategy, in their order."""
        return [line for line in self.lines if line.setting == setting and line.shots == shots]

    def to_json(self) -> dict[str, Any]:
        """The contract of ``--json``, and beside the rows the gains over scratch."""
        gains = [
            {
                "strategy": line.strategy,
                "shots": line.shots,
                "target_users": line.setting.target_users,
                "regime": line.setting.regime,
                **line.gain._asdict(),
            }
            for line in self.lines
            if line.gain is not None
        ]
        return {"name": self.name, "rows": [result.row() for result in self.results], "gains": gains}
