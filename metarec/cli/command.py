"""Checks of options, and exit codes, for all commands.

Only typer is imported here, so that ``--help`` answers at once.
"""

from __future__ import annotations

import atexit
import errno
import gc
import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

import typer

from metarec.errors import InputError, check_name, masked, printable, shown_address

__all__ = [
    "BAD_INPUT",
    "INTERRUPTED",
    "TERMINATED",
    "check_json",
    "check_storage",
    "cores",
    "named_paths",
    "new_app",
    "resumable",
    "run_command",
]

BAD_INPUT = 2
INTERRUPTED = 130
TERMINATED = 143


def new_app(**options: Any) -> typer.Typer:
    """A command, or several, with ``-h`` and without decoration; `options` are typer's."""
    usual = {"add_completion": False, "pretty_exceptions_enable": False, "rich_markup_mode": None}
    return typer.Typer(context_settings={"help_option_names": ["-h", "--help"]}, **{**usual, **options})


def named_paths(entries: Sequence[str]) -> dict[str, str]:
    """Domain -> path, from the NAME=PATH of each ``--data``.

    Raises:
        InputError: an entry has another form, or a name is given twice.
    """
    paths: dict[str, str] = {}
    for name, path in map(_named_path, entries):
        if name in paths:
            raise InputError(f'--data names the domain "{name}" twice; give each domain a name of its own')
        paths[name] = path
    return paths


def _named_path(entry: str) -> tuple[str, str]:
    name, equals, path = entry.partition("=")
    if not (name and equals and path):
        raise InputError(f'--data must be NAME=PATH but got "{entry}"; for example movies=ratings.csv')
    check_name("--data: the name of a domain", name)
    return name, path


def check_json(path: Path | None, out: Path) -> None:
    """Raise InputError if the file of ``--json`` cannot be written; the job makes the folder `out` itself."""
    if path is None:
        return
    folder = path.absolute().parent
    there = folder == out.absolute() or (folder.is_dir() and os.access(folder, os.W_OK))
    if path.is_dir() or not there:
        raise InputError(f"--json {path}: cannot be written there; name a file in a folder that exists")


def check_storage(url: str | None) -> None:
    """Raise InputError if an Optuna storage is no URL."""
    if url is not None and "://" not in url:
        raise InputError(f'--storage must be a URL such as postgresql://user@host/name but got "{shown_address(url)}"')


def cores() -> int:
    """The number of cores that this process may use."""
    return max(1, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)


@contextmanager
def resumable(option: str, name: str) -> Iterator[None]:
    """On Ctrl-C or SIGTERM, print how to continue the job by the name that `option` gives."""
    try:
        yield
    except KeyboardInterrupt:
        typer.echo(f"interrupted; to continue, run the same command with {option} {name}", err=True)
        raise


def run_command(app: typer.Typer, program: str | None = None) -> None:
    """Run a command; an error that the user can correct becomes one line and an exit code.

    Args:
        program: its name in messages; by default that with which Python was started.
    """
    sys.excepthook = _show_masked
    # Without this, Python collects garbage for a second or two before the process ends.
    atexit.register(gc.freeze)
    with _terminable() as terminated:
        try:
            # Typer returns the code of its own exits, such as 130 after Ctrl-C.
            code = app(standalone_mode=False, prog_name=program)
        except InputError as error:
            _stop(str(error), BAD_INPUT)
        except KeyboardInterrupt:
            code = INTERRUPTED
        except typer.Abort as abort:
            # Typer takes an EOFError for Ctrl-D at a prompt, and there is no prompt.
            _stop_by_kind(abort.__cause__ or abort)
        except Exception as error:
            _stop_by_kind(error)
        if code:
            sys.exit(TERMINATED if code == INTERRUPTED and terminated else code)


@contextmanager
def _terminable() -> Iterator[list[int]]:
    """While the block runs, SIGTERM interrupts as Ctrl-C does. Yields a list, which is empty until then."""
    terminated: list[int] = []

    def interrupt(number: int, _: FrameType | None) -> None:
        terminated.append(number)
        raise KeyboardInterrupt

    # Only the main thread can handle signals.
    if threading.current_thread() is not threading.main_thread():
        yield terminated
        return
    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield terminated
    finally:
        signal.signal(signal.SIGTERM, before)


def _stop_by_kind(error: BaseException) -> None:
    # An error of the installed click, or of the copy in newer versions of typer.
    if hasattr(error, "format_message"):
        _stop(f"{error.format_message().rstrip('.')}; --help lists the options", BAD_INPUT)
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
        where = f" for {error.filename}" if error.filename else ""
        _stop(f"{error.strerror}{where}; make room, and the same command with the same name goes on", 1)
    # They are compared by name, because their modules import heavy libraries.
    if type(error).__name__ in ("StudyFailed", "TrackingError", "WorkerEnded"):
        _stop(str(error), 1)
    raise error


def _stop(message: str, code: int) -> None:
    typer.echo("error: " + printable(masked(" ".join(message.split()))), err=True)
    sys.exit(code)


def _show_masked(_: type[BaseException], error: BaseException, __: TracebackType | None) -> None:
    sys.stderr.write(masked("".join(traceback.format_exception(error))))
