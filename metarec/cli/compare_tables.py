"""The terminal output of a comparison: its progress, its tables, and the address of its runs."""

from __future__ import annotations

from collections import defaultdict

from rich.console import Console
from rich.table import Table
from rich.text import Text

from metarec.cli.terminal import Messages, ProgressLine, as_text, show_runs
from metarec.compare.cells import StrategyResult
from metarec.compare.job import Watcher
from metarec.compare.plan import SCRATCH, RoundKey
from metarec.compare.summary import Comparison, Setting, best_of
from metarec.evaluation.measures import Measure
from metarec.transfer.competitors import ORACLE, ORACLE_USERS

__all__ = ["TerminalWatcher", "show_comparison", "show_where"]


class TerminalWatcher(ProgressLine, Watcher):
    """A progress bar on a terminal, and a lasting line for each round."""

    def __init__(self, console: Console, messages: Messages, cells_per_round: int, measure: Measure) -> None:
        super().__init__(console, messages)
        self._cells_per_round = cells_per_round
        self._measure = measure
        self._rounds: defaultdict[RoundKey, list[StrategyResult]] = defaultdict(list)

    def on_stage(self, what: str, done: int, total: int) -> None:
        self._show(what, done, total)

    def on_cell(self, result: StrategyResult, done: int, total: int) -> None:
        own = self._rounds[result.cell.round]
        own.append(result)
        if len(own) == self._cells_per_round:
            measure = self._measure
            values = {one.cell.strategy: one.scores.values[measure.key] for one in own}
            best = min((name for name in values if name != ORACLE), key=lambda name: measure.cost(values[name]))
            line = (
                f"{result.cell.round}: best {best}, {measure.label} {values[best]:.4f}; scratch {values[SCRATCH]:.4f}"
            )
            self._console.print(as_text(line), soft_wrap=True)
        self._show("cells", done, total)


def show_comparison(console: Console, comparison: Comparison) -> None:
    """Print a table for each setting."""
    for setting in comparison.settings():
        console.print(_table(comparison, setting))
    measure = comparison.plan.measure
    notes = [
        "* the best of its column",
        f"gain: how much {'more' if measure.maximised else 'less'} {measure.label} over all shots, with its 95 % "
        "interval over draws of users, bold where it is above 0",
    ]
    if ORACLE in comparison.plan.strategies:
        notes.append(f"{ORACLE}: {ORACLE_USERS}")
    console.print(as_text("; ".join(notes)))
    for sentence in (*comparison.verdicts(), *comparison.sentences()):
        console.print(as_text(sentence), soft_wrap=True)


def show_where(console: Console, comparison: Comparison, tracking_uri: str) -> None:
    """Print the last lines: the store of the runs and how to open it."""
    show_runs(console, "this comparison", tracking_uri, comparison.experiment_id, comparison.run_id)


def _table(comparison: Comparison, setting: Setting) -> Table:
    plan = comparison.plan
    together = comparison.lines_of(setting, None)
    draws = f"{plan.seeds} draws" if plan.seeds > 1 else "one draw"
    scale = f", scale {comparison.scale}" if comparison.scale else ""
    table = Table(
        title=f"{plan.target}{scale}: {plan.measure.label} with {setting}, mean over {draws}, "
        f"{together[0].n_users:,} test users",
        title_justify="left",
    )
    table.add_column("strategy; shots:")
    columns = [comparison.lines_of(setting, shots) for shots in plan.shots]
    for shots in plan.shots:
        table.add_column(str(shots), justify="right")
    table.add_column("gain over scratch [95 %]", justify="right")
    best = [best_of(column, plan.measure) for column in columns]
    for place, strategy in enumerate(plan.strategies):
        numbers = [
            f"{'*' if leader == strategy else ''}{column[place].value:.4f}"
            for column, leader in zip(columns, best, strict=True)
        ]
        gain = together[place].gain
        shown = Text("" if gain is None else str(gain), "bold" if gain is not None and gain.is_above_zero else "")
        table.add_row(strategy, *numbers, shown, style="dim" if strategy == ORACLE else None)
    return table
