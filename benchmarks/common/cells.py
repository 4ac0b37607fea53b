"""The cells of a benchmark: computed where they are missing, and shown in the terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from benchmarks.common.terminal import Board
from metarec.cells import Cell, CellResult, CellStore, run_cells
from metarec.errors import InputError
from metarec.registry import suggest

__all__ = ["chosen_sets", "compute_missing", "finished_cells", "resumable_board", "state_of"]

Set = TypeVar("Set")


def chosen_sets(names: Sequence[str], known: Mapping[str, Set]) -> list[Set]:
    """The sets of these names, the value of ``--sets``.

    Raises:
        InputError: an unknown name, one that is there twice, or none.
    """
    for name in names:
        if name not in known:
            raise InputError(f'--sets: unknown set "{name}"; {suggest(name, known)}')
    if not names or len(set(names)) < len(names):
        raise InputError(f"--sets must name different sets but got {','.join(names) or 'none'}")
    return [known[name] for name in names]


@contextmanager
def resumable_board() -> Iterator[Board]:
    """A board that says, after Ctrl-C, how to continue."""
    with Board() as board:
        try:
            yield board
        except KeyboardInterrupt:
            board.say("interrupted; to continue, run the same command")
            raise


def compute_missing(
    board: Board,
    name: str,
    cells: Sequence[Cell],
    compute: Callable[[Cell], CellResult],
    store: CellStore,
    *,
    jobs: int = 1,
    prepare: Callable[[], Any] = lambda: None,
) -> None:
    """Compute the cells of one set that are missing.

    Args:
        compute: as for :func:`metarec.cells.run_cells`, and so are `store` and `jobs`.
        prepare: called before missing cells are computed.
    """
    missing = [cell for cell in cells if not store.finished(cell)]
    board.say(state_of(name, cells, missing, store))
    if missing:
        prepare()
        run_cells(missing, compute, store, jobs=jobs, on_done=_Counter(board, name, len(missing)))


def finished_cells(
    board: Board,
    name: str,
    cells: Sequence[Cell],
    compute: Callable[[Cell], CellResult],
    store: CellStore,
    **how: Any,
) -> list[tuple[Cell, CellResult]]:
    """The cells of one set with their results; those that are missing are computed.

    The arguments are those of :func:`compute_missing`.
    """
    compute_missing(board, name, cells, compute, store, **how)
    found = []
    for cell in cells:
        result = store.load(cell)
        assert result is not None, "the cell was finished above"
        found.append((cell, result))
    return found


class _Counter:
    """Shows each finished cell of one set on the board."""

    def __init__(self, board: Board, name: str, total: int) -> None:
        self._board = board
        self._name = name
        self._total = total
        self._done = 0

    def __call__(self, cell: Cell, result: CellResult) -> None:
        self._done += 1
        self._board.show(self._done, self._total, f"{self._name}: cells")
        self._board.say(f"{cell.name}  {result.seconds:.1f} s")


def state_of(name: str, cells: Sequence[Cell], missing: Sequence[Cell], store: CellStore) -> str:
    """How many cells are there, and what makes others stale, each reason once; in one line that begins with a name."""
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
