"""From finished cells to all that the report of the benchmark of transfer says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.transfer.bars import (
    SCRATCH,
    WANTED,
    Line,
    Outcome,
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
from metarec.transfer import STRATEGIES
from metarec.transfer.competitors import baselines

__all__ = ["CARRYING", "cells_json", "load", "summarise"]

CONTROLS = (SCRATCH, "zero_shot", "pooled")
"""Strategies that nobody proposes, but that show what the others add."""

CARRYING = tuple(name for name in STRATEGIES.names() if name not in CONTROLS)
"""The strategies that are compared with what can be had without a source."""


def load(store: CellStore, cells: Sequence[Cell]) -> list[tuple[Outcome, float]]:
    """What finished cells found, and their seconds."""
    found = []
    for cell in cells:
        result = store.load(cell)
        if result is None:
            raise FileNotFoundError(f"the cell {cell.name} was finished but is no longer in {store.folder}")
        found.append((Outcome(cell.key, result.frames, result.notes), result.seconds))
    return found


def summarise(outcomes: Sequence[Outcome]) -> tuple[dict[str, Any], dict[Line, Section]]:
    """The numbers, as values that JSON knows, and the sections of the leave-one-out part.

    Returns:
        "wanted", "controls"; "lines" and "few_users_pooled": all comparisons; and the bars "few_users", "auto",
        "ledger", "hostile", "pairs", which are None where nothing of the kind was asked for.
    """
    by_part: dict[str, list[Outcome]] = {LEAVE_ONE_OUT: [], PAIRS: [], HOSTILE_PART: []}
    for outcome in outcomes:
        by_part[outcome.key["part"]].append(outcome)
    left_out, pairs, hostile = by_part.values()
    controls = [SCRATCH, *baselines()]
    lines = compare(lines_of(left_out), CARRYING, controls)
    pooled = compare(pooled_few(left_out), CARRYING, controls)
    return {
        "wanted": WANTED,
        "controls": controls,
        "lines": [{**line._asdict(), **section.to_json()} for line, section in lines.items()],
        "few_users_pooled": [{**condition._asdict(), **section.to_json()} for condition, section in pooled.items()],
        "few_users": few_users_bar(lines, pooled) or None,
        "auto": auto_bar(lines, [name for name in STRATEGIES.names() if name != "auto"]),
        "ledger": ledger(left_out),
        "hostile": hostile_bar(hostile) or None,
        "pairs": pairs_bar(pairs) if pairs else None,
    }, lines


def cells_json(cells: Sequence[Cell], found: Sequence[tuple[Outcome, float]]) -> list[Mapping[str, Any]]:
    """Every cell with its seconds, its RMSE by competitor, and its notes."""
    return [
        {**cell.key, "digest": cell.digest, "seconds": seconds, "rmse": outcome.rmse, "notes": outcome.notes}
        for cell, (outcome, seconds) in zip(cells, found, strict=True)
    ]
