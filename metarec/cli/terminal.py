"""The terminal output of all commands: messages, progress, the data, and the address of the runs."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from logging.handlers import MemoryHandler
from typing import Self

from rich.console import Console
from rich.logging import RichHandler
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)
from rich.text import Text

from metarec.errors import masked, printable
from metarec.ratings import Domain
from metarec.tracking import runs_address, shown_uri, ui_command

__all__ = [
    "Messages",
    "ProgressLine",
    "as_text",
    "library_messages",
    "progress_line",
    "show_data",
    "show_runs",
    "terminal",
]


def terminal(*, errors: bool = False) -> Console:
    """The console of the results, or of progress and errors. It takes text as it is, without markup."""
    # A pipe has no width; the tables need about a hundred columns.
    width = None if errors or sys.stdout.isatty() else 100
    return Console(stderr=errors, width=width, markup=False, emoji=False)


def as_text(text: str) -> Text:
    """A line that cannot control the terminal, whatever names and messages are in it."""
    return Text(printable(text))


class _OneLine(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))


class Messages(MemoryHandler):
    """Shows the library's log on `console`, but only after the input is checked.

    So bad input prints one line, the error, and no earlier messages.
    """

    def __init__(self, console: Console) -> None:
        shown = RichHandler(console=console, show_time=False, show_path=False, show_level=False, markup=False)
        shown.addFilter(_add_level)
        shown.setFormatter(_OneLine("%(message)s"))
        # Only `show` flushes the messages, not a full buffer, an error or closing.
        super().__init__(sys.maxsize, flushLevel=sys.maxsize, target=shown, flushOnClose=False)

    def show(self) -> None:
        """Show the messages so far, and later ones immediately."""
        self.capacity = 0
        self.flush()


@contextmanager
def library_messages(console: Console) -> Iterator[Messages]:
    """Collect the library's log during the block."""
    messages = Messages(console)
    logger = logging.getLogger("metarec")
    level = logger.level
    logger.addHandler(messages)
    logger.setLevel(logging.INFO)
    try:
        yield messages
    finally:
        logger.removeHandler(messages)
        messages.close()
        logger.setLevel(level)


def _add_level(record: logging.LogRecord) -> bool:
    level = f"{record.levelname.lower()}: " if record.levelno >= logging.WARNING else ""
    record.msg, record.args = masked(level + record.getMessage()), ()
    return True


class _TimeLeft(ProgressColumn):
    """How long the remaining steps will take, if they are as fast as those of the last hour."""

    max_refresh = 1.0

    def render(self, task: Task) -> Text:
        # Its module imports the models, which a command without a bar does not need.
        from metarec.report.description import duration

        left = task.time_remaining
        return Text("" if left is None or task.finished else f"{duration(left)} left")


def progress_line(console: Console) -> Progress:
    """A progress bar that disappears at the end; nothing without a terminal or a notebook with widgets."""
    in_notebook = console.is_jupyter and find_spec("ipywidgets") is not None
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        _TimeLeft(),
        # The steps of a job take minutes.
        speed_estimate_period=3600.0,
        console=console,
        transient=True,
        # In a notebook, a thread that draws would catch the lines that are printed meanwhile.
        auto_refresh=not in_notebook,
        disable=not (console.is_terminal or in_notebook),
    )


class ProgressLine:
    """A progress bar for the watcher of a job; it disappears at the end of its ``with`` block."""

    def __init__(self, console: Console, messages: Messages) -> None:
        self._console = console
        self._messages = messages
        self._progress = progress_line(console)
        self._task: TaskID | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def on_begin(self, domains: Mapping[str, Domain]) -> None:
        """The input is valid: show the messages so far, and the data."""
        self._progress.start()
        self._messages.show()
        show_data(self._console, domains)

    def _show(self, description: str, done: int | None = None, total: int | None = None) -> None:
        text, done = printable(description), done or 0
        task = next((one for one in self._progress.tasks if one.id == self._task), None)
        if task is not None and total is not None and task.total == total and task.completed <= done:
            # The next step of the same work: its time goes on.
            self._progress.update(task.id, description=text, completed=done)
            return
        if task is not None:
            self._progress.remove_task(task.id)
        self._task = self._progress.add_task(text, total=total, completed=done)


def show_data(console: Console, domains: Mapping[str, Domain]) -> None:
    """A line for each domain."""
    for name, domain in domains.items():
        size = f"{len(domain.ratings):,}"
        feedback = f"{size} events" if domain.scale is None else f"{size} ratings, scale {domain.scale}"
        console.print(
            as_text(
                f"{name}: {domain.num_users:,} users, {domain.num_items:,} items, {feedback}, "
                f"{'timestamps' if domain.has_timestamps else 'no timestamps'}, "
                f"{'item features' if domain.items is not None else 'no item features'}"
            )
        )


def show_runs(
    console: Console,
    own: str,
    tracking_uri: str,
    experiment_id: str | None,
    run_id: str | None = None,
    *,
    trials: bool = False,
) -> None:
    """Print the store of the runs, how to open it, and the pages of a job.

    They are the leaderboard, the trials if it has `trials`, and the job's own run, which `own` names.
    """
    console.print(as_text(f"runs: {shown_uri(tracking_uri)}"), soft_wrap=True)
    command = ui_command(tracking_uri)
    if command:
        console.print(as_text(f"open them: {command}"), soft_wrap=True)
    if experiment_id is not None:
        server = tracking_uri if tracking_uri.startswith("http") else "http://127.0.0.1:5000"
        look = "then look at" if command else "look at"
        pages = {
            look: runs_address(experiment_id, run_id, view="row", server=server),
            **({"its trials": runs_address(experiment_id, run_id, view="trial", server=server)} if trials else {}),
            own: runs_address(experiment_id, run_id, server=server),
        }
        for name, page in pages.items():
            console.print(as_text(f"{name}: {page}"), soft_wrap=True)
