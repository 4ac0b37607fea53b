"""What a trial keeps beside its numbers, and how it is kept while the next trial trains."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import CancelledError, Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import numpy as np
import pandas as pd
import yaml

from metarec.study.reporter import Reporter
from metarec.tracking import Run

__all__ = ["FileKeeper", "Files", "TrialFiles"]

logger = logging.getLogger(__name__)


class Files(Protocol):
    """What a trial keeps, of whatever kind. It may be written by another process."""

    def write(self, folder: Path, reporter: Reporter) -> None:
        """Write the files; the reporter draws the pictures."""


@dataclass(frozen=True)
class TrialFiles:
    """The files of a trial: its configuration and its validation predictions, and what its pictures are drawn from.

    Attributes:
        configuration: plain values. predictions: a row for each query of the validation users.
        curves: name -> a number for each epoch; best_epoch: the one that was kept.
        weights: [R, A] of each base in each row; None where the network has none. base_names: the A names.
    """

    configuration: Mapping[str, Any]
    predictions: pd.DataFrame
    curves: Mapping[str, Sequence[float]]
    best_epoch: int
    weights: np.ndarray | None
    base_names: Sequence[str]

    def write(self, folder: Path, reporter: Reporter) -> None:
        (folder / "configuration.yaml").write_text(yaml.safe_dump(self.configuration, sort_keys=False))
        self.predictions.to_parquet(folder / "validation_predictions.parquet")
        reporter.draw_trial(self, folder)


class FileKeeper:
    """Keeps trials' files with their runs: another process writes them, a thread hands them to the run.

    Use it in ``with``: when the block is left, however it ends, everything has been kept.

    Args:
        processes: where files are written; None writes and keeps them at once, in this process.
        reporter: draws the pictures.

    Raises:
        TrackingError: on leaving the block, if the store failed; and whatever else went wrong in writing.
    """

    def __init__(self, processes: Executor | None = None, *, reporter: Reporter | None = None) -> None:
        self.reporter = reporter or Reporter()
        self._processes = processes
        self._thread = ThreadPoolExecutor(1) if processes is not None else None
        self._kept: list[Future[None]] = []

    def keep(self, files: Files, record: Run) -> None:
        """See to it that these files are kept with this run."""
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
                # Ctrl-C has ended the other processes. The trial is finished, and its files are kept all the same.
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
            # The error that is already on its way says more than this one.
            logger.error("files of a trial could not be kept: %s", problem)
