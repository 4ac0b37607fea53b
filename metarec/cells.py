"""Cells: pieces of a long computation that are computed once, kept on disk, and shared by processes.

A cell has a key, by which it is named, and facts, which are all that its result depends on besides: data, settings,
code. Its frames are written first and its record, with their checksums, last. A cell whose record or
frame is missing or does not match its checksum is computed again.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
import time
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, replace
from functools import cached_property, partial
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from metarec.files import content_key, dotted, write_whole
from metarec.threads import one_thread
from metarec.workers import worker_pool

__all__ = ["Cell", "CellResult", "CellStore", "run_cells"]

logger = logging.getLogger(__name__)

POLL_S = 0.5
"""How often `run_cells` looks for the cells that its workers have finished."""


@dataclass(frozen=True)
class Cell:
    """One piece of work.

    >>> Cell({"set": "films", "fold": 0, "shots": 5}, {"seed": 1}).name
    'films/fold-0.shots-5'

    Attributes:
        key: distinguishes it from the other cells of a run, in the order of its name; the first value is a folder.
        facts: what its result depends on besides, as JSON values.
    """

    key: Mapping[str, Any]
    facts: Mapping[str, Any]

    @property
    def name(self) -> str:
        (_, folder), *rest = self.key.items()
        file = ".".join(f"{part}-{value}" for part, value in rest)
        return "/".join(re.sub(r"[^\w.-]+", "-", str(step)) for step in (folder, file))

    @cached_property
    def digest(self) -> str:
        """A hash of key and facts."""
        return content_key({"key": self.key, "facts": self.facts})[:16]


@dataclass(frozen=True)
class CellResult:
    """The result of a cell: tables, notes as JSON values, and how many seconds it took."""

    frames: Mapping[str, pd.DataFrame]
    notes: Mapping[str, Any]
    seconds: float = 0.0


@dataclass(frozen=True)
class CellStore:
    """Finished cells in a folder."""

    folder: Path

    def load(self, cell: Cell) -> CellResult | None:
        """The result; None, with a warning if it is damaged, where there is no whole one."""
        path = self._path(cell, "json")
        try:
            record = json.loads(path.read_bytes())
            # Older records have no checksum of their own.
            checksum = record.pop("sha256", None)
            if checksum not in (None, content_key(record)):
                raise ValueError("sha256")
            frames = {name: self._frame(cell, name, checksum) for name, checksum in record["frames"].items()}
            return CellResult(frames, record["notes"], record["seconds"])
        except FileNotFoundError:
            if not path.exists():
                return None
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            pass
        logger.warning("the cell %s is damaged; it is computed again", path)
        return None

    def finished(self, cell: Cell) -> bool:
        """Whether `load` finds it."""
        return self.load(cell) is not None

    def save(self, cell: Cell, result: CellResult) -> None:
        """Write a result so that it is there whole or not at all.

        Raises:
            TypeError: a note is not a JSON value.
        """
        checksums = {}
        for name, frame in result.frames.items():
            content = frame.to_parquet()
            write_whole(self._path(cell, f"{name}.parquet"), content)
            checksums[name] = hashlib.sha256(content).hexdigest()
        record = {
            "key": dict(cell.key),
            "facts": dict(cell.facts),
            "frames": checksums,
            "notes": dict(result.notes),
            "seconds": result.seconds,
        }
        plain = json.loads(json.dumps(record, default=_plain))
        whole = {**plain, "sha256": content_key(plain)}
        write_whole(self._path(cell, "json"), json.dumps(whole, indent=1).encode())

    def why_stale(self, cell: Cell) -> list[str]:
        """The facts that have changed since the newest result of this name; empty where there is none.

        Each line names a fact with its old and its new value: ``code.bases: 1f3a… -> 9c0d…``.
        """
        own = self._path(cell, "json")
        older = [path for path in own.parent.glob(f"{Path(cell.name).name}.*.json") if path != own]
        if not older:
            return []
        try:
            before = dotted(json.loads(max(older, key=lambda path: path.stat().st_mtime_ns).read_bytes())["facts"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            before = {}
        now = dotted(cell.facts)
        both = {fact: (before.get(fact, "not there"), now.get(fact, "not there")) for fact in sorted({*before, *now})}
        return [f"{fact}: {old} -> {new}" for fact, (old, new) in both.items() if old != new]

    def _path(self, cell: Cell, ending: str) -> Path:
        return self.folder / f"{cell.name}.{cell.digest}.{ending}"

    def _frame(self, cell: Cell, name: str, checksum: str) -> pd.DataFrame:
        content = self._path(cell, f"{name}.parquet").read_bytes()
        if hashlib.sha256(content).hexdigest() != checksum:
            raise ValueError(name)
        return pd.read_parquet(BytesIO(content))


def run_cells(
    cells: Sequence[Cell],
    compute: Callable[[Cell], CellResult],
    store: CellStore,
    *,
    jobs: int = 1,
    on_done: Callable[[Cell, CellResult], None] | None = None,
    together: Callable[[Cell], Hashable] | None = None,
) -> None:
    """Compute cells and keep each one as soon as it is there.

    Args:
        compute: returns the result of a cell; picklable if there is more than one job.
        jobs: worker processes, each on one thread.
        on_done: called in this process with each cell that is finished.
        together: cells with the same value are computed by one process in a row, so that it makes what they share
            once. By default each is on its own.
    """
    groups: dict[Hashable, list[Cell]] = {}
    for place, cell in enumerate(cells):
        groups.setdefault(together(cell) if together else place, []).append(cell)
    for cell, result in _finished(partial(_work, compute, store), list(groups.values()), store, jobs):
        if on_done:
            on_done(cell, result)


def _finished(
    work: Callable[[Sequence[Cell]], None], groups: Sequence[Sequence[Cell]], store: CellStore, jobs: int
) -> Iterator[tuple[Cell, CellResult]]:
    """The cells and their results, in the order in which they are finished."""

    def arrived(cells: Sequence[Cell]) -> list[tuple[Cell, CellResult]]:
        return [(cell, result) for cell in cells if (result := store.load(cell)) is not None]

    if jobs <= 1:
        for cell in (cell for group in groups for cell in group):
            work([cell])
            yield from arrived([cell])
        return
    with worker_pool(jobs) as pool:
        running: dict[Future[None], Sequence[Cell]] = {pool.submit(work, group): group for group in groups}
        while running:
            done = wait(running, POLL_S, FIRST_COMPLETED).done
            for future, waiting in list(running.items()):
                found = arrived(waiting)
                yield from found
                running[future] = [cell for cell in waiting if all(cell is not other for other, _ in found)]
                if future in done:
                    future.result()
                    del running[future]


def _work(compute: Callable[[Cell], CellResult], store: CellStore, cells: Sequence[Cell]) -> None:
    for cell in cells:
        start = time.perf_counter()
        with one_thread():
            result = compute(cell)
        store.save(cell, replace(result, seconds=time.perf_counter() - start))


def _plain(value: Any) -> Any:
    # Settings that were chosen from arrays are numpy's numbers.
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    raise TypeError(f"a note must be a JSON value but is {type(value).__name__}")
