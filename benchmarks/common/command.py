"""How the benchmark commands end at an error."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import typer

from metarec.errors import InputError

__all__ = ["BAD_INPUT", "INTERRUPTED", "ending_plainly", "make_folders"]

BAD_INPUT = 2
INTERRUPTED = 130


@contextmanager
def ending_plainly(after_interruption: str = "to continue, run the same command") -> Iterator[None]:
    """An InputError or Ctrl-C ends the command with one line and an exit code."""
    try:
        yield
    except InputError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(BAD_INPUT) from None
    except KeyboardInterrupt:
        typer.echo("; ".join(part for part in ("interrupted", after_interruption) if part), err=True)
        raise typer.Exit(INTERRUPTED) from None


def make_folders(*folders: Path) -> None:
    """Make folders, with those above them, or raise InputError."""
    for folder in folders:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"{folder}: cannot be made: {error.strerror}; give another folder") from None
