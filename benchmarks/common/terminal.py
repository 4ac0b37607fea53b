"""The progress of a benchmark on stderr."""

from __future__ import annotations

from rich.console import Console
from rich.progress import TaskID
from rich.text import Text

from metarec.cli.terminal import progress_line

__all__ = ["Board"]


class Board:
    """Permanent lines, and one progress line if stderr is a terminal. A context manager."""

    def __init__(self) -> None:
        self._progress = progress_line(Console(stderr=True))
        self._task: TaskID | None = None
        self._total = 0

    def __enter__(self) -> Board:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def say(self, line: str) -> None:
        """Print a permanent line."""
        self._progress.console.print(Text(line), soft_wrap=True)

    def show(self, done: int, total: int, what: str) -> None:
        """Show that `done` of `total` steps of a stage are done."""
        if self._task is None or total != self._total:
            if self._task is not None:
                self._progress.remove_task(self._task)
            self._task = self._progress.add_task(what, total=total)
            self._total = total
        self._progress.update(self._task, completed=done, description=what)
