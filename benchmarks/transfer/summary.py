"""Summarises finished cells for the report of the benchmark of transfer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.transfer.bars import (
    WANTED,
    FinishedCell,
    Line,
    auto_bar,
    few_users_bar,
    hostile_bar,
    ledger,
    lines_of,
    pairs_bar,
    pooled_few,
)
from benchmarks.transfer.cells import HOSTILE_PART, LEAVE_ONE_OUT, PAIRS
from benchmarks.transfer.statistics import Section, compare
from metarec.cells import Cell, CellStore
from metarec.transfer import STRATEGIES, competitors, controls

__all__ = ["CARRYING", "cells_json", "load", "summarise"]

CARRYING = tuple(name for name in STRATEGIES.names() if name not in controls())
"""The strategies that are compared with the controls."""


def load(store: CellStore, cells: Sequence[Cell]) -> list[tuple[FinishedCell, float]]:
    """The finished cells, and their seconds."""
    found = []
    for cell in cells:
        result = store.load(cell)
        if result is None:
            raise FileNotFoundError(f"the cell {cell.name} was finished but is no longer in {store.folder}")
        found.append((FinishedCell(cell.key, result.frames, result.notes), result.seconds))
    return found


def summarise(finished: Sequence[FinishedCell]) -> tuple[dict[str, Any], dict[Line, Section]]:
    """The numbers, as JSON values, and the sections of the leave-one-out part.

    Returns:
        "wanted", "controls", "left_out" (competitors that were not computed); "lines" and "few_users_pooled": all
        comparisons; and the bars "few_users", "auto", "ledger", "hostile", "pairs", which are None where they were not
        requested.
    """
    by_part: dict[str, list[FinishedCell]] = {LEAVE_ONE_OUT: [], PAIRS: [], HOSTILE_PART: []}
    for one in finished:
        by_part[one.key["part"]].append(one)
    left_out, pairs, hostile = by_part.values()
    lines = compare(lines_of(left_out), CARRYING, controls())
    pooled = compare(pooled_few(left_out), CARRYING, controls())
    computed = {name for section in lines.values() for name in section.rmse}
    return {
        "wanted": WANTED,
        "controls": controls(),
        "left_out": [name for name in competitors() if computed and name not in computed],
        "lines": [{**line._asdict(), **section.to_json()} for line, section in lines.items()],
        "few_users_pooled": [{**condition._asdict(), **section.to_json()} for condition, section in pooled.items()],
        "few_users": few_users_bar(lines, pooled) or None,
        "auto": auto_bar(lines),
        "ledger": ledger(left_out),
        "hostile": hostile_bar(hostile) or None,
        "pairs": pairs_bar(pairs) if pairs else None,
    }, lines


def cells_json(cells: Sequence[Cell], found: Sequence[tuple[FinishedCell, float]]) -> list[Mapping[str, Any]]:
    """Every cell with its seconds, its RMSE by competitor, and its notes."""
    return [
        {**cell.key, "digest": cell.digest, "seconds": seconds, "rmse": one.rmse, "notes": one.notes}
        for cell, (one, seconds) in zip(cells, found, strict=True)
    ]
