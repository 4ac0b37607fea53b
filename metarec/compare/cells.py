"""One cell: what a competitor predicts in a round, and how far that is from what users said."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from metarec.compare.plan import Cell
from metarec.evaluation.metrics import Scores, prediction_rows, scores, squared_errors
from metarec.transfer import Round, TransferSettings, predict_round

__all__ = ["CellResult", "compute_cell"]


@dataclass(frozen=True)
class CellResult:
    """What came out of one cell.

    Attributes:
        scores: over all query rows of the test users; RMSE and MAE in the target's own units.
        users: [U] the test users. squared: [U] each one's sum of squared errors, in the square of these units.
        reasons: what the competitor chose and why.
        began: in seconds since 1970. seconds: of work. What the sources teach is learned in the first cell that asks.
    """

    cell: Cell
    target: str
    scores: Scores
    users: Sequence[str]
    squared: Sequence[float]
    reasons: Mapping[str, Any]
    began: float
    seconds: float

    def row(self) -> dict[str, Any]:
        """The contract of ``--json``."""
        (regime, target_users, seed), shots = self.cell.round
        return {
            "strategy": self.cell.strategy,
            "target": self.target,
            "shots": shots,
            "target_users": target_users,
            "seed": seed,
            "regime": regime,
            **self.scores.to_json(),
        }


def compute_cell(cell: Cell, target: str, given: Round, settings: TransferSettings) -> CellResult:
    """Let a competitor predict, and judge it on the test users of the round; seeded by the round's number."""
    began, start = time.time(), time.perf_counter()
    said = predict_round(cell.strategy, given, settings, cell.round.world.seed)
    rows = prediction_rows(given.plain_test, {cell.strategy: said.predictions})
    (own,) = scores(rows, given.scale.span).values()
    squared = squared_errors(rows)[cell.strategy]
    users = [str(user) for user in squared.index]
    return CellResult(cell, target, own, users, squared.tolist(), said.reasons, began, time.perf_counter() - start)
