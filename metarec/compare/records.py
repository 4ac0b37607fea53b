"""The records of a comparison: the parameters and metrics of its run, and the run of each cell."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from metarec.compare.cells import StrategyResult
from metarec.compare.plan import ComparisonPlan
from metarec.ratings import Domain
from metarec.tracking import CellRecord, ComparisonRun

if TYPE_CHECKING:
    from metarec.compare.summary import Comparison, Line

__all__ = ["Reporter", "cell_record", "line_metrics", "plan_params"]


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


def line_metrics(comparison: Comparison) -> dict[str, float]:
    """The first metric of each line of the table, and the gain of auto over stack, for the comparison's own run."""
    added = {
        f"{regime}/{users} users/auto_over_stack": gain.percent for (regime, users), gain in comparison.added.items()
    }
    return {_metric(comparison, line): line.value for line in comparison.lines if line.shots is not None} | added


def _metric(comparison: Comparison, line: Line) -> str:
    regime, users = line.setting
    return f"{regime}/{users} users/{line.shots} shots/{line.strategy}/{comparison.plan.measure.key}"


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
    )
