"""From cells to the lines of a table: means over draws, gains over training from scratch, and what sources add."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from metarec.compare.cells import StrategyResult
from metarec.compare.plan import AUTO, SCRATCH, ComparisonPlan
from metarec.evaluation.draws import DrawGain, gains_over_draws
from metarec.evaluation.measures import Measure
from metarec.model.contrasts import STACK
from metarec.transfer.competitors import ORACLE
from metarec.transfer.rounds import Regime

__all__ = ["Comparison", "Line", "Setting", "added", "best_of", "lines"]


class Setting(NamedTuple):
    """The setting of one table: what is scarce in the target, and how many users it has."""

    regime: Regime
    target_users: int

    def __str__(self) -> str:
        ending = "" if self.regime == "everything" else ", where only labels are few"
        return f"{self.target_users} target users{ending}"


class Line(NamedTuple):
    """One strategy in one setting.

    Attributes:
        shots: None for all numbers of shots together, where only the gain has a meaning.
        values: metric -> mean over the draws. value: of the first metric, by which strategies are ranked.
        gain: over training from scratch; None for scratch itself.
        n_users: different test users of all draws.
    """

    setting: Setting
    strategy: str
    shots: int | None
    values: Mapping[str, float]
    value: float
    gain: DrawGain | None
    n_users: int


def lines(plan: ComparisonPlan, results: Sequence[StrategyResult]) -> list[Line]:
    """The summary of all cells, in the order of the plan.

    A gain compares the same rows of the same users. Each seed is a draw of users, and all rows of a test user in a
    draw, of all numbers of shots, belong together, see :func:`~metarec.evaluation.draws.gains_over_draws`.
    """
    found = []
    for setting, own in _by_setting(plan, results).items():
        for shots in (*plan.shots, None):
            judged = [one for one in own if shots is None or one.cell.round.shots == shots]
            found += _lines_of(plan, setting, shots, judged)
    return found


def added(plan: ComparisonPlan, results: Sequence[StrategyResult]) -> dict[Setting, DrawGain]:
    """What the sources' models add: the gain of auto over stack, over all shots; empty unless both are in the plan."""
    if not {AUTO, STACK} <= set(plan.strategies):
        return {}
    return {
        setting: gains_over_draws(_sums(own), [(AUTO, STACK)], measure=plan.measure)[AUTO, STACK]
        for setting, own in _by_setting(plan, results).items()
    }


def _by_setting(plan: ComparisonPlan, results: Sequence[StrategyResult]) -> dict[Setting, list[StrategyResult]]:
    found: dict[Setting, list[StrategyResult]] = {
        Setting(regime, users): [] for regime in plan.regimes for users in plan.target_users
    }
    for one in results:
        world = one.cell.round.world
        found[Setting(world.regime, world.target_users)].append(one)
    return found


def _lines_of(
    plan: ComparisonPlan, setting: Setting, shots: int | None, results: Sequence[StrategyResult]
) -> list[Line]:
    sums = _sums(results)
    others = [strategy for strategy in plan.strategies if strategy != SCRATCH]
    gains = gains_over_draws(sums, [(strategy, SCRATCH) for strategy in others], measure=plan.measure)
    n_users = sums.index.get_level_values("user").nunique()
    found = []
    for strategy in plan.strategies:
        scores = [one.scores for one in results if one.cell.strategy == strategy]
        values = {name: float(np.mean([own.values[name] for own in scores])) for name in scores[0].values}
        gain = gains.get((strategy, SCRATCH))
        found.append(Line(setting, strategy, shots, values, values[plan.measure.key], gain, n_users))
    return found


def _sums(results: Sequence[StrategyResult]) -> pd.DataFrame:
    """What users add to the measure: a row for each draw and test user, a column for each strategy."""
    parts = [
        pd.DataFrame(
            {"draw": one.cell.round.world.seed, "user": one.users, "strategy": one.cell.strategy, "sum": one.sums}
        )
        for one in results
    ]
    return pd.concat(parts).pivot_table(index=["draw", "user"], columns="strategy", values="sum", aggfunc="sum")


def best_of(some: Sequence[Line], measure: Measure) -> str | None:
    """The best strategy by the first metric; the oracle, which has data that the others lack, does not count."""
    able = [line for line in some if line.strategy != ORACLE]
    return min(able, key=lambda line: measure.cost(line.value)).strategy if able else None


@dataclass(frozen=True)
class Comparison:
    """A finished comparison.

    Attributes:
        scale: of the target, empty where it has none. results: every cell, in the order of the plan.
        added: setting -> the gain of auto over stack, see :func:`added`.
        similarity: domain -> domain -> similarity in [0, 1], without any test user of the first round.
        experiment_id, run_id: of the parent run, where there is one.
    """

    name: str
    plan: ComparisonPlan
    scale: str
    results: Sequence[StrategyResult]
    lines: Sequence[Line]
    added: Mapping[Setting, DrawGain]
    similarity: Mapping[str, Mapping[str, float]]
    experiment_id: str | None = None
    run_id: str | None = None

    def settings(self) -> list[Setting]:
        """One for each table."""
        return list(dict.fromkeys(line.setting for line in self.lines))

    def lines_of(self, setting: Setting, shots: int | None) -> list[Line]:
        """One for each strategy, in their order."""
        return [line for line in self.lines if line.setting == setting and line.shots == shots]

    def verdicts(self) -> list[str]:
        """The best strategy over all numbers of shots, in hindsight, in one sentence for each setting."""
        found = []
        for setting in self.settings():
            able = [line for line in self.lines_of(setting, None) if line.strategy != ORACLE]
            best = max(able, key=lambda line: 0.0 if line.gain is None else line.gain.percent)
            text = f"is the best of {len(able)} in hindsight with {setting}"
            if best.gain is None:
                found.append(f"{best.strategy} {text}: no other one has a gain over {SCRATCH}.")
            else:
                found.append(f"{best.strategy} {text}: {best.gain} against {SCRATCH} ({best.gain.verdict}).")
        return found

    def sentences(self) -> list[str]:
        """What the sources' models add, in one sentence for each setting."""
        draws = self.plan.seeds
        over = f", over {draws} draws of users" if draws > 1 else ""
        return [
            f"With {setting} the sources' models add {gain} to the mixture of stackers ({AUTO} against {STACK}{over})."
            for setting, gain in self.added.items()
        ]

    def to_json(self) -> dict[str, Any]:
        """The contract of ``--json``, and beside the rows the gains over scratch, and of auto over stack."""
        gains = [
            {
                "strategy": line.strategy,
                "shots": line.shots,
                "target_users": line.setting.target_users,
                "regime": line.setting.regime,
                **line.gain.to_json(),
            }
            for line in self.lines
            if line.gain is not None
        ]
        added = [
            {"target_users": setting.target_users, "regime": setting.regime, **gain.to_json()}
            for setting, gain in self.added.items()
        ]
        rows = [result.row() for result in self.results]
        measure = {"metric": self.plan.measure.key, "direction": self.plan.measure.direction}
        return {"name": self.name, **measure, "rows": rows, "gains": gains, "auto_over_stack": added}
