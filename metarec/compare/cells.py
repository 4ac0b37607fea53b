"""One cell of a comparison: the predictions of a strategy in a round, their errors, and how both are kept on disk."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from metarec.bases import BASES
from metarec.cells import Cell, CellResult
from metarec.compare.plan import CellKey, ComparisonPlan, RoundKey
from metarec.evaluation.metrics import Scores, prediction_rows, scores, squared_errors
from metarec.files import code_facts
from metarec.fusion import NETWORKS
from metarec.ratings import Domain
from metarec.transfer import STRATEGIES, Round, predict_round

__all__ = ["StrategyResult", "cells_on_disk", "compute_cell", "plain"]

_CODE = (
    *("ratings", "bases", "episodes", "fusion", "meta", "model", "transfer"),
    *("evaluation/metrics.py", "compare/cells.py"),
)
_LIBRARIES = ("lenskit", "lightgbm", "numpy", "scikit-learn", "scipy", "torch")


@dataclass(frozen=True)
class StrategyResult:
    """The result of one cell.

    Attributes:
        scores: over all query rows of the test users; RMSE and MAE in the target's own units.
        users: [U] the test users. squared: [U] each one's sum of squared errors, in the square of these units.
        reasons: what the strategy chose and why, as JSON values.
        began: in seconds since 1970. seconds: of work; the first cell of a round includes what all its cells share.
    """

    cell: CellKey
    target: str
    scores: Scores
    users: Sequence[str]
    squared: Sequence[float]
    reasons: Mapping[str, Any]
    began: float
    seconds: float

    def row(self) -> dict[str, Any]:
        """The contract of ``--json``."""
        return {"strategy": self.cell.strategy, "target": self.target, **self.cell.facts(), **self.scores.to_json()}

    def on_disk(self) -> CellResult:
        """The content of its files."""
        users = pd.DataFrame({"user": self.users, "squared": self.squared})
        notes = {
            "target": self.target,
            "scores": dataclasses.asdict(self.scores),
            "reasons": self.reasons,
            "began": self.began,
        }
        return CellResult({"users": users}, notes, self.seconds)

    @classmethod
    def from_disk(cls, cell: CellKey, result: CellResult) -> StrategyResult:
        """The inverse of `on_disk`."""
        users, notes = result.frames["users"], result.notes
        columns = users["user"].tolist(), users["squared"].tolist()
        own = Scores(**notes["scores"])
        return cls(cell, notes["target"], own, *columns, notes["reasons"], notes["began"], result.seconds)


def cells_on_disk(plan: ComparisonPlan, domains: Mapping[str, Domain]) -> dict[CellKey, Cell]:
    """Each cell of the plan with everything that it depends on.

    That includes all numbers of shots, because the few users of a round have enough ratings for the largest. It does
    not include how many seeds and which numbers of target users there are.
    """
    bases = plan.make_rounds(domains).bases
    facts = {
        "domains": [[name, domain.fingerprint()] for name, domain in domains.items()],
        "target": plan.target,
        "shots": list(plan.shots),
        "episodes": plan.episodes.model_dump(mode="json"),
        "bases": [[name, dict(options)] for name, options in bases.items()],
        "link_users": plan.link_users,
        "fusion": plan.fusion.model_dump(mode="json"),
        "plug-ins": [BASES.code_of(bases), NETWORKS.code_of([plan.fusion.network])],
        **code_facts(_CODE, _LIBRARIES),
    }
    return {key: Cell(key.facts(), {**facts, "strategy": STRATEGIES.code_of([key.strategy])}) for key in plan.cells()}


def compute_cell(cell: CellKey, plan: ComparisonPlan, rounds: Callable[[RoundKey], Round]) -> StrategyResult:
    """Predict with a strategy, seeded by the round's number, and score it on the test users of the round."""
    began, start = time.time(), time.perf_counter()
    given = rounds(cell.round)
    predicted = predict_round(cell.strategy, given, plan.fusion, cell.round.world.seed)
    rows = prediction_rows(given.plain_test, {cell.strategy: predicted.predictions})
    (own,) = scores(rows, given.scale.span).values()
    squared = squared_errors(rows)[cell.strategy]
    users, seconds = [str(user) for user in squared.index], time.perf_counter() - start
    return StrategyResult(cell, plan.target, own, users, squared.tolist(), plain(predicted.reasons), began, seconds)


def plain(value: Any) -> Any:
    """The value as JSON values: without tuples, numbers of numpy, and NaN."""
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(inner) for inner in value]
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    if isinstance(value, float) and not abs(value) < float("inf"):
        return str(value)
    return value if isinstance(value, str | int | float | bool | None) else str(value)
