"""Cells: pieces of a long run that are computed once, kept on disk, and shared by processes.

A cell is named by its key. Its facts are everything that its result depends on: the data, the settings, the code. Its
frames are written first and its record last, with their checksums: a cell without a whole record, or with a changed
frame, is computed again.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, wait
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from metarec.threads import one_thread
from metarec.workers import worker_pool

__all__ = ["Cell", "CellResult", "Store", "code_digest", "run_cells", "state_of"]

_UNKNOWN = "not there"


@dataclass(frozen=True)
class Cell:
    """One piece of work.

    >>> Cell({"set": "films", "fold": 0, "shots": 5}, {"seed": 1}).name
    'films/fold-0.shots-5'

    Attributes:
        key: identifies it among the cells of a run, in the order of its name; the first value is a folder.
        facts: what else its result depends on, as JSON values.
    """

    key: Mapping[str, Any]
    facts: Mapping[str, Any]

    @property
    def name(self) -> str:
        (_, folder), *rest = self.key.items()
        return f"{folder}/" + ".".join(f"{part}-{value}" for part, value in rest)

    @cached_property
    def digest(self) -> str:
        """A hash of key and facts."""
        return hashlib.sha256(json.dumps([self.key, self.facts], sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class CellResult:
    """The result of a cell: tables, notes for the report as JSON values, and the seconds that it took."""

    frames: Mapping[str, pd.DataFrame]
    notes: Mapping[str, Any]
    seconds: float = 0.0


@dataclass(frozen=True)
class Store:
    """Finished cells in a folder."""

    folder: Path

    def load(self, cell: Cell) -> CellResult | None:
        """The result; None if the cell is missing, half-written or damaged."""
        record = self._record(cell)
        if record is None:
            return None
        frames = {name: pd.read_parquet(self._frame(cell, name)) for name in record["frames"]}
        return CellResult(frames, record["notes"], record["seconds"])

    def finished(self, cell: Cell) -> bool:
        """Whether `load` returns a result."""
        return self._record(cell) is not None

    def save(self, cell: Cell, result: CellResult) -> None:
        """Write a result, whole or not at all."""
        sums = {}
        for name, frame in result.frames.items():
            path = self._frame(cell, name)
            content = frame.to_parquet()
            _write(path, content)
            sums[name] = hashlib.sha256(content).hexdigest()
        record = {
            "key": dict(cell.key),
            "facts": dict(cell.facts),
            "frames": sums,
            "notes": dict(result.notes),
            "seconds": result.seconds,
        }
        _write(self._path(cell), json.dumps(record, indent=1, default=_plain).encode())

    def why_stale(self, cell: Cell) -> list[str]:
        """What has changed since the newest result of the cell's name; empty if there is none.

        Each line names a fact with its old and its new value: ``code.bases: 1f3a… -> 9c0d…``.
        """
        place = self._path(cell)
        older = [path for path in place.parent.glob(f"{cell.name.rpartition('/')[2]}.*.json") if path != place]
        if not older:
            return []
        record = _read(max(older, key=lambda path: path.stat().st_mtime_ns)) or {}
        before, now = dict(_flat(record.get("facts", {}))), dict(_flat(cell.facts))
        return [
            f"{fact}: {before.get(fact, _UNKNOWN)} -> {now.get(fact, _UNKNOWN)}"
            for fact in sorted({*before, *now})
            if before.get(fact, _UNKNOWN) != now.get(fact, _UNKNOWN)
        ]

    def _record(self, cell: Cell) -> dict[str, Any] | None:
        record = _read(self._path(cell))
        if record is None:
            return None
        for name, checksum in record["frames"].items():
            path = self._frame(cell, name)
            if not path.exists() or hashlib.sha256(path.read_bytes()).hexdigest() != checksum:
                return None
        return record

    def _path(self, cell: Cell) -> Path:
        return self.folder / f"{cell.name}.{cell.digest}.json"

    def _frame(self, cell: Cell, name: str) -> Path:
        return self.folder / f"{cell.name}.{cell.digest}.{name}.parquet"


def state_of(name: str, cells: Sequence[Cell], missing: Sequence[Cell], store: Store) -> str:
    """A line that begins with a name: the number of finished cells, and each reason why others are stale."""
    reasons: dict[str, int] = {}
    stale = 0
    for cell in missing:
        changes = store.why_stale(cell)
        stale += bool(changes)
        for change in changes:
            reasons[change] = reasons.get(change, 0) + 1
    line = f"{name}: {len(cells) - len(missing)} of {len(cells)} cells are finished"
    if stale:
        line += f", {stale} are stale: " + "; ".join(f"{change} ({count} cells)" for change, count in reasons.items())
    return line


def run_cells(
    cells: Sequence[Cell],
    compute: Callable[[Cell], CellResult],
    store: Store,
    *,
    jobs: int = 1,
    on_done: Callable[[Cell, float], None] | None = None,
    together: Callable[[Cell], Hashable] | None = None,
) -> None:
    """Compute cells and save each one as soon as it is finished.

    Args:
        compute: from a cell to its result; picklable if there is more than one job.
        jobs: worker processes, each on one thread.
        on_done: called with each cell and its seconds when it and the cells of its group are finished.
        together: cells with the same value are a group, which one process computes one after the other, so that it
            makes what they share only once; by default each cell is a group.
    """
    groups: dict[Hashable, list[Cell]] = {}
    for place, cell in enumerate(cells):
        groups.setdefault(together(cell) if together else place, []).append(cell)
    for group, seconds in _worked(partial(_work_all, compute, store), list(groups.values()), jobs):
        for cell, own in zip(group, seconds, strict=True):
            if on_done:
                on_done(cell, own)


Group = Sequence[Cell]


def _worked(
    work: Callable[[Group], list[float]], groups: Sequence[Group], jobs: int
) -> Iterator[tuple[Group, list[float]]]:
    """Each group of cells and their seconds, in the order in which they end."""
    if jobs == 1:
        yield from ((group, work(group)) for group in groups)
        return
    ahead = iter(groups)
    with worker_pool(jobs) as pool:
        # Only as many as the workers can hold: a pool that ends with cancelled calls prints a traceback.
        running = {pool.submit(work, group): group for group in islice(ahead, jobs + 1)}
        while running:
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                group = running.pop(future)
                running |= {pool.submit(work, following): following for following in islice(ahead, 1)}
                yield group, future.result()


def code_digest(root: Path, parts: Sequence[str]) -> dict[str, str]:
    """A short hash of each part: a Python file below `root`, or all Python files in a folder."""
    return {part: _hash_of(root, root / part) for part in parts}


def _hash_of(root: Path, part: Path) -> str:
    digest = hashlib.sha256()
    for path in [part] if part.is_file() else sorted(part.rglob("*.py")):
        digest.update(path.relative_to(root).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()[:12]


def _work_all(compute: Callable[[Cell], CellResult], store: Store, group: Group) -> list[float]:
    return [_work(compute, store, cell) for cell in group]


def _work(compute: Callable[[Cell], CellResult], store: Store, cell: Cell) -> float:
    start = time.perf_counter()
    with one_thread():
        result = compute(cell)
    seconds = time.perf_counter() - start
    store.save(cell, CellResult(result.frames, result.notes, seconds))
    return seconds


def _plain(value: Any) -> Any:
    # Settings that were chosen from arrays are numpy scalars.
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    raise TypeError(f"a note must be a JSON value but is {type(value).__name__}")


def _read(path: Path) -> dict[str, Any] | None:
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    return content


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # A fixed name, so that the next write overwrites the rest of an interrupted one.
    temporary = path.with_name(path.name + ".part")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def _flat(facts: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in facts.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
