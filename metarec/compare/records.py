"""The records of a comparison: the parameters and metrics of its run, and the run of each cell."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from metarec.compare.cells import StrategyResult
from metarec.compare.plan import SCRATCH, ComparisonPlan
from metarec.ratings import Domain
from metarec.tracking import CellRecord, ComparisonRun, Row, Run, View

if TYPE_CHECKING:
    from metarec.compare.summary import Comparison, Line

__all__ = ["Reporter", "added_metrics", "cell_record", "fixed_params", "plan_params", "record_rows", "start_rows"]

GAIN = "gain over scratch"
"""The tag with a strategy's gain over all numbers of shots, its interval and what that means."""

Rows = Mapping[tuple[str, int, str], Run]
"""Regime, target users and strategy -> the run of their row."""


class Reporter:
    """Writes nothing. :class:`metarec.report.ComparisonReporter` writes descriptions, tables and pictures."""

    def prepare(self) -> None:
        """Import the modules that :meth:`report` needs, in a thread while the bases are fitted."""

    def description(self, plan: ComparisonPlan, domains: Mapping[str, Domain], name: str) -> str:
        """The description of the comparison's run while cells are computed, in Markdown."""
        return ""

    def report(self, run: ComparisonRun, comparison: Comparison, domains: Mapping[str, Domain]) -> None:
        """Write the report of a finished comparison to its run."""


def plan_params(plan: ComparisonPlan, domains: Mapping[str, Domain]) -> dict[str, Any]:
    """The parameters of the comparison's own run."""
    numbers = {
        "target": plan.target,
        "strategies": ", ".join(plan.strategies),
        "shots": ", ".join(map(str, plan.shots)),
        "target_users": ", ".join(map(str, plan.target_users)),
        "seeds": plan.seeds,
        "regimes": ", ".join(plan.regimes),
        "link_users": plan.link_users,
    }
    fusion = {f"fusion.{key}": value for key, value in plan.fusion.model_dump().items()}
    data = {f"domains.{name}": domain.fingerprint()[:16] for name, domain in domains.items()}
    return numbers | fusion | data


ADDED = ("strategies", "shots", "target_users", "seeds", "regimes")
"""Parameters to which a comparison may add when it goes on."""


def fixed_params(plan: ComparisonPlan, domains: Mapping[str, Domain]) -> dict[str, Any]:
    """The data and settings that a comparison keeps when it goes on, because a table must not mix two of them."""
    params = {key: value for key, value in plan_params(plan, domains).items() if key not in ADDED}
    episodes = {f"episodes.{key}": value for key, value in plan.episodes.model_dump().items() if key != "shots"}
    lists = {f"ranking.{key}": value for key, value in plan.ranking.model_dump().items()}
    return params | episodes | lists | {"bases": json.dumps(plan.bases)}


def added_metrics(comparison: Comparison) -> dict[str, float]:
    """The gain of auto over stack in each setting, for the comparison's own run. Its rows have the other numbers."""
    return {
        f"{regime}/{users} users/auto_over_stack": gain.percent for (regime, users), gain in comparison.added.items()
    }


def start_rows(plan: ComparisonPlan, run: ComparisonRun) -> Rows:
    """Begin a run for each strategy in each setting; its cells lie below it."""
    rows: dict[tuple[str, int, str], Run] = {}
    for regime in plan.regimes:
        for users in plan.target_users:
            setting = {"target": plan.target, "regime": regime, "target_users": users}
            ending = f" · {users} users, {regime}" if len(plan.regimes) * len(plan.target_users) > 1 else ""
            for strategy in plan.strategies:
                params = {"strategy": strategy, **setting}
                row = Row(_row_key(regime, users, strategy), f"{strategy}{ending}", params)
                rows[regime, users, strategy] = run.start_row(row)
    return rows


def record_rows(run: ComparisonRun, rows: Rows, comparison: Comparison) -> None:
    """Record the numbers of each row: by numbers of shots, which are the steps, and over all of them."""
    measure = comparison.plan.measure
    for setting in comparison.settings():
        for together in comparison.lines_of(setting, None):
            row = rows[(*setting, together.strategy)]
            for line in comparison.lines:
                if (line.setting, line.strategy) == (setting, together.strategy) and line.shots is not None:
                    row.log_metrics({**line.values, **_gain_metrics(line)}, step=line.shots)
            overall = {measure.key: together.value, **_gain_metrics(together)}
            row.log_metrics({f"overall_{name}": value for name, value in overall.items()})
            row.log_metrics({"test_users": together.n_users})
            row.tag(GAIN, "" if together.gain is None else f"{together.gain}: {together.gain.verdict}")
            row.finish("complete", value=together.value)
    several = len(comparison.settings()) > 1
    run.show(
        View(
            "row",
            "overall_gain_percent",
            ascending=False,
            metrics=["overall_gain_percent"],
            params=["target_users", "regime"] if several else [],
            tags=[GAIN],
        )
    )


def _gain_metrics(line: Line) -> dict[str, float]:
    """The gain over scratch; scratch itself has none, so that its row has the same metric.

    MLflow orders charts by names, so the gain is the first one.
    """
    if line.gain is None:
        return {"gain_percent": 0.0} if line.strategy == SCRATCH else {}
    ends = {"interval_low": line.gain.low, "interval_high": line.gain.high, "p_value": line.gain.p}
    return {"gain_percent": line.gain.percent, **{name: value for name, value in ends.items() if value is not None}}


def _row_key(regime: str, users: int, strategy: str) -> str:
    return json.dumps([regime, users, strategy])


def cell_record(key: str, result: StrategyResult) -> CellRecord:
    """The child run of one cell."""
    row = result.row()
    names = ("strategy", "target", "shots", "target_users", "seed", "regime")
    files = {"reasons.json": json.dumps(result.reasons, indent=2) + "\n"} if result.reasons else {}
    return CellRecord(
        key,
        str(result.cell),
        {name: row[name] for name in names},
        result.scores.to_json(),
        result.began,
        result.seconds,
        files,
        row=_row_key(row["regime"], row["target_users"], row["strategy"]),
    )
