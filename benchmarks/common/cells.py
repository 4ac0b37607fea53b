"""What the terminal shows of the cells of a benchmark."""

from __future__ import annotations

from collections.abc import Sequence

from metarec.cells import Cell, CellStore

__all__ = ["state_of"]


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
