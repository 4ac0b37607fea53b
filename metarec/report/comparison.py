"""The report of a comparison: its description with the table, files, and pictures."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any

from metarec.compare.cells import StrategyResult
from metarec.compare.plan import AUTO, ComparisonPlan
from metarec.compare.records import Reporter
from metarec.compare.summary import Comparison, Line, Setting, best_of
from metarec.evaluation.measures import Measure
from metarec.model.contrasts import STACK
from metarec.ratings import Domain
from metarec.tracking import ComparisonRun, Markdown, markdown_table, markdown_text
from metarec.transfer.competitors import ORACLE, ORACLE_USERS

__all__ = ["ComparisonReporter", "chosen_markdown", "explanation", "table_csv", "table_markdown"]


class ComparisonReporter(Reporter):
    """Writes descriptions, tables and pictures."""

    def prepare(self) -> None:
        import_module("metarec.report.figures.comparison")

    def description(self, plan: ComparisonPlan, domains: Mapping[str, Domain], name: str) -> str:
        rows = "events" if plan.fusion.task == "ranking" else "ratings"
        scales = {key: "" if d.scale is None else str(d.scale) for key, d in domains.items()}
        data = markdown_table(
            ["domain", "users", "items", rows, "scale"],
            [[key, d.num_users, d.num_items, len(d.ratings), scales[key]] for key, d in domains.items()],
        )
        sources = ", ".join(markdown_text(name) for name in domains if name != plan.target)
        return (
            f"**{markdown_text(name)}** compares how {sources} help {markdown_text(plan.target)}, a domain with few "
            f"train users.\n\n"
            f"{data}\n\nEach child run is one strategy in one round: a number of shots, of target users, and a seed."
        )

    def report(self, run: ComparisonRun, comparison: Comparison, domains: Mapping[str, Domain]) -> None:
        from metarec.report.figures import comparison as figures
        from metarec.report.figures.canvas import save

        tables = table_markdown(comparison)
        about = self.description(comparison.plan, domains, comparison.name)
        run.describe(f"{about}\n\n{explanation(comparison)}\n\n{tables}")
        chosen = [result for result in comparison.results if result.cell.strategy == AUTO]
        with run.artifacts() as folder:
            (folder / "table.md").write_text(tables + "\n", encoding="utf-8")
            (folder / "table.csv").write_text(table_csv(comparison.lines), encoding="utf-8")
            save(figures.gain_over_scratch(comparison), folder / "gain_over_scratch.png")
            save(figures.similarity(comparison.similarity), folder / "similarity.png")
            if chosen:
                whole = [{**result.row(), "reasons": result.reasons} for result in chosen]
                (folder / "auto.json").write_text(json.dumps(whole, indent=2) + "\n", encoding="utf-8")
                (folder / "auto.md").write_text(chosen_markdown(chosen, comparison.plan.measure), encoding="utf-8")


def explanation(comparison: Comparison) -> str:
    """The text above the tables: what the numbers are, and what the sources' models add."""
    plan = comparison.plan
    draws = f"{plan.seeds} draws of users" if plan.seeds > 1 else "one draw of users, so there are no intervals"
    scale = f" ({comparison.scale})" if comparison.scale else ""
    parts = [
        f"{plan.measure.label} on {markdown_text(plan.target)}{scale}, mean over {draws}; the best of each column "
        "has a star. In brackets: the gain over scratch, in percent, and its 95 % interval over draws of users and, "
        "within each draw, over its test users; bold where the interval is above 0. Scratch, and the baselines in the "
        f"last rows, learn from the target's few users alone. {STACK} is the mixture of {AUTO} without the sources' "
        "models.",
        *comparison.sentences(),
    ]
    if ORACLE in plan.strategies:
        parts.append(f"The {ORACLE} {ORACLE_USERS}; it does not count as the best.")
    return " ".join(parts)


def table_markdown(comparison: Comparison) -> str:
    """A table for each setting: strategies by numbers of shots."""
    return "\n\n".join(f"### {setting}\n\n{_setting_table(comparison, setting)}" for setting in comparison.settings())


def _setting_table(comparison: Comparison, setting: Setting) -> str:
    plan = comparison.plan
    columns = [comparison.lines_of(setting, shots) for shots in plan.shots]
    best = [best_of(column, plan.measure) for column in columns]
    together = comparison.lines_of(setting, None)
    rows = []
    for place, strategy in enumerate(plan.strategies):
        cells = [_cell(column[place], marked=strategy == leader) for column, leader in zip(columns, best, strict=True)]
        rows.append([strategy, *cells, _gain(together[place])])
    heads = [f"{shots} shots" for shots in plan.shots]
    return markdown_table(["strategy", *heads, "gain over scratch, all shots"], rows)


def _cell(line: Line, *, marked: bool) -> Markdown:
    value = f"{line.value:.4f}\\*" if marked else f"{line.value:.4f}"
    return Markdown(f"{value} ({_gain(line)})" if line.gain is not None else value)


def _gain(line: Line) -> Markdown:
    if line.gain is None:
        return Markdown("")
    return Markdown(f"**{line.gain}**" if line.gain.is_above_zero else str(line.gain))


def table_csv(lines: Sequence[Line]) -> str:
    """One row for each strategy, setting and number of shots; an empty number stands for all shots together."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    metrics = list(lines[0].values)
    gains = ("gain_percent", "low", "high", "p")
    writer.writerow(["regime", "target_users", "shots", "strategy", *metrics, *gains, "n_users"])
    for line in lines:
        gain = line.gain[:4] if line.gain is not None else [""] * 4
        values = [line.values[name] for name in metrics]
        writer.writerow([*line.setting, line.shots, line.strategy, *values, *gain, line.n_users])
    return text.getvalue()


def chosen_markdown(chosen: Sequence[StrategyResult], measure: Measure) -> str:
    """The choices of a strategy in each round, with its reasons as nested lists."""
    parts = [f"# Choices of {AUTO}, with reasons\n"]
    for result in chosen:
        parts.append(f"## {result.cell.round}: {measure.label} {result.scores.values[measure.key]:.4f}\n")
        parts += _bullets(result.reasons, 0) or ["It gives no reasons."]
        parts.append("")
    return "\n".join(parts)


def _bullets(value: Any, depth: int) -> list[str]:
    """Nested lists; a list of plain values is one line."""
    indent = "  " * depth
    if isinstance(value, dict):
        found = []
        for key, inner in value.items():
            if isinstance(inner, dict | list) and inner:
                found += [f"{indent}- {markdown_text(key)}:", *_bullets(inner, depth + 1)]
            else:
                found.append(f"{indent}- {markdown_text(key)}: {_text(inner)}")
        return found
    if isinstance(value, list):
        if all(not isinstance(inner, dict | list) for inner in value):
            return [f"{indent}- {', '.join(map(_text, value))}"] if value else []
        return [line for inner in value for line in _bullets(inner, depth)]
    return [f"{indent}- {_text(value)}"]


def _text(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else markdown_text(value)
