"""The terminal output of a study: its progress, its tables, and the address of its runs."""

from __future__ import annotations

from collections.abc import Sequence

from optuna.trial import FrozenTrial, TrialState
from rich.console import Console
from rich.table import Table

from metarec.cli.terminal import ProgressLine, as_text, show_runs
from metarec.evaluation.engine_check import EngineCheck
from metarec.evaluation.measures import Measure
from metarec.evaluation.metrics import METAREC
from metarec.report.description import members_text, settings_text
from metarec.search import NETWORK, ranked
from metarec.study.job import Watcher
from metarec.study.results import (
    DomainResult,
    FrontLine,
    StrategyLine,
    StudyResult,
    complete_trials,
    microseconds,
    state_of,
)
from metarec.study.transfer_spec import STRATEGY
from metarec.tracking import loading_code

__all__ = ["TerminalWatcher", "show_result", "show_where"]


class TerminalWatcher(ProgressLine, Watcher):
    """A progress bar on a terminal, and a lasting line for each trial."""

    def on_episodes(self, done: int, total: int, what: str) -> None:
        self._show(f"base recommenders, {what}", done, total)

    def on_trial(self, trial: FrozenTrial, ended: Sequence[FrozenTrial], total: int, measure: Measure) -> None:
        seconds = trial.duration.total_seconds() if trial.duration else 0.0
        if trial.state == TrialState.COMPLETE:
            error, *further = trial.values
            mark = "  best so far" if ranked(complete_trials(ended))[0].number == trial.number else ""
            time = "".join(f", {microseconds(value)} a prediction" for value in further)
            outcome = f"{measure.validation_text(measure.shown(error))}{time}{mark}"
        else:
            outcome = state_of(trial)
        which = [trial.params[name] for name in (STRATEGY, NETWORK) if name in trial.params]
        self._console.print(as_text("  ".join([f"trial {trial.number:>3}", *which, outcome, f"{seconds:.1f} s"])))
        self._show("trials", len(ended), total)

    def on_stage(self, what: str) -> None:
        self._show(what)

    def on_stopping(self) -> None:
        self._console.print(as_text("stopping when the running trials have ended; a second Ctrl-C stops now"))


def show_result(console: Console, result: StudyResult) -> None:
    """Print the test table of every domain, the tuned bases, the engines, the strategies and the Pareto front."""
    for domain, outcome in result.test.items():
        console.print(_test_table(domain, outcome, result.target))
        if outcome.adds:
            console.print(as_text(outcome.adds))
    if result.bases:
        console.print(_base_table(result))
    if result.engines:
        console.print(_engine_table(result.engines))
    if result.strategies:
        console.print(_strategy_table(result.strategies, result.measure))
    if result.front:
        console.print(_front_table(result.front, result.measure))
    if result.strategies:
        best = result.strategies[0]
        console.print(
            as_text(f"metarec is the strategy {best.strategy} of study {result.name}, as trial {best.best} has it")
        )
    else:
        console.print(as_text(f"metarec is study {result.name}'s combination of {members_text(result.members)}"))
    parameters = ", ".join(
        f"{name}={value:.4g}" if isinstance(value, float) else f"{name}={value}"
        for name, value in result.best.params.items()
    )
    console.print(as_text(f"best single trial, {result.best.number}: {parameters}"))


def show_where(console: Console, result: StudyResult, tracking_uri: str) -> None:
    """Print the last lines: the predictions, the model, and the store of the runs."""
    console.print(as_text(f"predictions: {result.predictions}"), soft_wrap=True)
    if result.model_uri is not None:
        console.print(as_text(f"model: {loading_code(result.name, tracking_uri)}"), soft_wrap=True)
    show_runs(console, "this study", tracking_uri, result.experiment_id, result.run_id, trials=True)


def _test_table(domain: str, outcome: DomainResult, target: str) -> Table:
    measure, some = outcome.measure, outcome.scores[METAREC]
    role = "" if domain == target else " (source)"
    scale = f", scale {outcome.scale}" if outcome.scale else ""
    ratings = "" if some.n_ratings is None else f", {some.n_ratings:,} ratings"
    table = Table(
        title=f"{domain}{role}{scale}: {some.n_users:,} test users{ratings}",
        title_justify="left",
    )
    table.add_column("model")
    for label in measure.metrics.values():
        table.add_column(label, justify="right")
    table.add_column(f"metarec's gain in {measure.label} [95 %]", justify="right")
    for model, row in outcome.best_first():
        table.add_row(
            model,
            *(f"{row.values[metric]:.4f}" for metric in measure.metrics),
            str(outcome.gains.get(model, "")),
            style="bold" if model == METAREC else None,
        )
    return table


def _base_table(result: StudyResult) -> Table:
    number = max(len(own.trials) for own in result.bases.values())
    table = Table(title=f"base recommenders, {number} trials each, on validation users", title_justify="left")
    table.add_column("base")
    for column in (f"{result.measure.trial_label} of the defaults", "tuned"):
        table.add_column(column, justify="right")
    table.add_column("settings")
    for name, own in result.tuned.items():
        values = (f"{own[key]:.5f}" for key in ("default", "value"))
        table.add_row(name, *values, as_text(settings_text(own["options"])))
    return table


def _engine_table(checks: list[EngineCheck]) -> Table:
    table = Table(title="engines, on the winner's first meta-steps", title_justify="left")
    table.add_column("engine")
    table.add_column("one meta-step", justify="right")
    table.add_column("largest gradient difference", justify="right")
    for check in checks:
        time = f"{check.milliseconds:,.0f} ms" if check.milliseconds is not None else check.problem
        difference = "reference" if check.difference is None else f"{check.difference:.1e}"
        table.add_row(check.engine, as_text(time), difference if check.milliseconds is not None else "")
    return table


def _strategy_table(lines: list[StrategyLine], measure: Measure) -> Table:
    table = Table(title="strategies, on validation users", title_justify="left")
    table.add_column("strategy")
    for column in (f"best {measure.trial_label}", "in trial", "trials"):
        table.add_column(column, justify="right")
    for line in lines:
        table.add_row(line.strategy, f"{line.value:.5f}", str(line.best), str(line.trials))
    return table


def _front_table(lines: list[FrontLine], measure: Measure) -> Table:
    table = Table(title="Pareto front, on validation users", title_justify="left")
    for column in ("trial", measure.trial_label, "a prediction"):
        table.add_column(column, justify="right")
    for line in lines:
        table.add_row(str(line.trial), f"{measure.shown(line.error):.5f}", microseconds(line.seconds))
    return table
