"""The files of a trial, which are written while the next trial trains."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from concurrent.futures import CancelledError, Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pandas as pd
import yaml

from metarec.study.reporter import Reporter, TrialPictures
from metarec.tracking import Run

__all__ = ["FileKeeper", "Files"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Files:
    """The files of a trial; another process may write them.

    Attributes:
        configuration: plain values. predictions: a row for each query of the validation users.
        pictures: their data; None for a trial without pictures.
    """

    configuration: Mapping[str, Any]
    predictions: pd.DataFrame
    pictures: TrialPictures | None = field(default=None, kw_only=True)

    def write(self, folder: Path, reporter: Reporter) -> None:
        """Write the files; the reporter draws the pictures."""
        (folder / "configuration.yaml").write_text(yaml.safe_dump(self.configuration, sort_keys=False))
        self.predictions.to_parquet(folder / "validation_predictions.parquet")
        if self.pictures is not None:
            reporter.draw_trial(self.pictures, folder)


class FileKeeper:
    """Writes trials' files in another process, and sends them to their runs in a thread.

    The end of its ``with`` block waits until all files are stored.

    Args:
        processes: they write the files; None writes and stores them at once, in this process.
        reporter: draws the pictures.

    Raises:
        TrackingError: at the end of the block, if the store failed; errors in writing are raised there, too.
    """

    def __init__(self, processes: Executor | None = None, *, reporter: Reporter | None = None) -> None:
        self.reporter = reporter or Reporter()
        self._processes = processes
        self._thread = ThreadPoolExecutor(1) if processes is not None else None
        self._kept: list[Future[None]] = []

    def keep(self, files: Files, record: Run) -> None:
        """Store these files with this run."""
        if self._processes is None or self._thread is None:
            with record.artifacts() as folder:
                files.write(folder, self.reporter)
            return
        self._kept.append(self._thread.submit(self._write_and_upload, self._processes, files, record))

    def _write_and_upload(self, processes: Executor, files: Files, record: Run) -> None:
        with record.artifacts() as folder:
            try:
                processes.submit(files.write, folder, self.reporter).result()
            except (RuntimeError, CancelledError):
                # Ctrl-C has ended the other processes. The files of the finished trial are still written.
                files.write(folder, self.reporter)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._thread is not None:
            self._thread.shutdown(wait=True)
        problems = [problem for kept in self._kept if (problem := kept.exception()) is not None]
        if problems and error is None:
            raise problems[0]
        for problem in problems:
            # The error of the block is more informative than this one.
            logger.error("files of a trial could not be kept: %s", problem)
