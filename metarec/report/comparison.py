"""The report of a comparison: its description with the table, files, and pictures."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path

from metarec.compare.plan import AUTO, ComparisonPlan
from metarec.compare.records import Reporter
from metarec.compare.summary import Comparison, Line, Setting, best_of
from metarec.model.contrasts import STACK
from metarec.ratings import Domain
from metarec.report.comparison_page import comparison_page
from metarec.report.description import FILE, fitting
from metarec.study.results import REPORT
from metarec.tracking import ComparisonRun, Markdown, markdown_table, markdown_text
from metarec.transfer.competitors import ORACLE, ORACLE_USERS

__all__ = ["ComparisonReporter", "explanation", "table_csv", "tables_markdown"]


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
            f"{data}\n\nEach child run is a strategy in one setting. Its rounds are below it, in their own experiment."
        )

    def report(self, run: ComparisonRun, comparison: Comparison, domains: Mapping[str, Domain]) -> None:
        tables = tables_markdown(comparison)
        about = self.description(comparison.plan, domains, comparison.name)
        verdict = " ".join([*comparison.verdicts(), *comparison.sentences()])
        run.describe(fitting([f"{markdown_text(verdict)} {FILE}", explanation(comparison), *tables, about]))
        with run.artifacts() as folder:
            (folder / "table.md").write_text("\n\n".join(tables) + "\n", encoding="utf-8")
            (folder / "table.csv").write_text(table_csv(comparison.lines), encoding="utf-8")
            pictures = _draw(comparison, folder)
            (folder / REPORT).write_text(comparison_page(comparison, domains, pictures, folder), encoding="utf-8")
            chosen = [result for result in comparison.results if result.cell.strategy == AUTO]
            if chosen:
                whole = [{**result.row(), "reasons": result.reasons} for result in chosen]
                (folder / "auto.json").write_text(json.dumps(whole, indent=2) + "\n", encoding="utf-8")


def _draw(comparison: Comparison, folder: Path) -> list[dict[str, str]]:
    """Draw the pictures into a folder; those that would be empty are left out."""
    from metarec.report.figures import comparison as figures
    from metarec.report.figures.canvas import save

    drawn = []
    if any(line.gain is not None for line in comparison.lines):
        caption = "Above 0: better than training on the few users alone. Intervals are over draws of users."
        save(figures.gain_over_scratch(comparison), folder / "gain_over_scratch.png")
        drawn.append({"file": "gain_over_scratch.png", "title": "Gain over scratch", "caption": caption})
    if len(comparison.similarity) > 1:
        caption = "From the ratings, the errors of the bases and the users, without any test user."
        save(figures.similarity(comparison.similarity), folder / "similarity.png")
        drawn.append({"file": "similarity.png", "title": "Similarity of domains", "caption": caption})
    return drawn


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
    ]
    if ORACLE in plan.strategies:
        parts.append(f"The {ORACLE} {ORACLE_USERS}; it does not count as the best.")
    return " ".join(parts)


def tables_markdown(comparison: Comparison) -> list[str]:
    """A table for each setting: strategies by numbers of shots."""
    return [f"### {setting}\n\n{_setting_table(comparison, setting)}" for setting in comparison.settings()]


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
