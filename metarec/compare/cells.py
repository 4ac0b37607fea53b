"""One cell of a comparison: the predictions of a strategy in a round, their errors, and how both are kept on disk."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from metarec.bases import BASES
from metarec.bases.ranking import RANKING_BASES
from metarec.cells import Cell, CellResult
from metarec.compare.plan import CellKey, ComparisonPlan, RoundKey
from metarec.evaluation.metrics import Scores
from metarec.files import code_facts
from metarec.fusion import NETWORKS
from metarec.ratings import Domain
from metarec.transfer import STRATEGIES, Round, predict_round

__all__ = ["StrategyResult", "cells_on_disk", "compute_cell", "plain"]

_CODE = (
    *("ratings", "bases", "episodes", "fusion", "meta", "model", "transfer"),
    *("evaluation/metrics.py", "evaluation/ranking.py", "evaluation/measures.py", "compare/cells.py"),
)
_LIBRARIES = ("lenskit", "lightgbm", "numpy", "scikit-learn", "scipy", "torch")


@dataclass(frozen=True)
class StrategyResult:
    """The result of one cell.

    Attributes:
        scores: over all test users; RMSE and MAE over all their query rows, in the target's own units.
        users: [U] the test users. sums: [U] what each one adds to the measure, see
            :class:`~metarec.evaluation.measures.ByUser`.
        reasons: what the strategy chose and why, as JSON values.
        began: in seconds since 1970. seconds: of work; the first cell of a round includes what all its cells share.
    """

    cell: CellKey
    target: str
    scores: Scores
    users: Sequence[str]
    sums: Sequence[float]
    reasons: Mapping[str, Any]
    began: float
    seconds: float

    def row(self) -> dict[str, Any]:
        """The contract of ``--json``."""
        return {"strategy": self.cell.strategy, "target": self.target, **self.cell.facts(), **self.scores.to_json()}

    def on_disk(self) -> CellResult:
        """The content of its files."""
        users = pd.DataFrame({"user": self.users, "sums": self.sums})
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
        columns = users["user"].tolist(), users["sums"].tolist()
        own = Scores(**notes["scores"])
        return cls(cell, notes["target"], own, *columns, notes["reasons"], notes["began"], result.seconds)


def cells_on_disk(plan: ComparisonPlan, domains: Mapping[str, Domain]) -> dict[CellKey, Cell]:
    """Each cell of the plan with everything that it depends on.

    That includes all numbers of shots, because the few users of a round have enough ratings for the largest. It does
    not include how many seeds and which numbers of target users there are.
    """
    bases = plan.make_rounds(domains).bases
    registry = RANKING_BASES if plan.fusion.task == "ranking" else BASES
    facts = {
        "domains": [[name, domain.fingerprint()] for name, domain in domains.items()],
        "target": plan.target,
        "shots": list(plan.shots),
        "episodes": plan.episodes.model_dump(mode="json"),
        "bases": [[name, dict(options)] for name, options in bases.items()],
        "link_users": plan.link_users,
        **({"ranking": plan.ranking.model_dump(mode="json")} if plan.fusion.task == "ranking" else {}),
        "fusion": plan.fusion.model_dump(mode="json"),
        "plug-ins": [
            registry.code_of(bases),
            NETWORKS.code_of([plan.fusion.network]),
        ],
        **code_facts(_CODE, _LIBRARIES),
    }
    return {key: Cell(key.facts(), {**facts, "strategy": STRATEGIES.code_of([key.strategy])}) for key in plan.cells()}


def compute_cell(cell: CellKey, plan: ComparisonPlan, rounds: Callable[[RoundKey], Round]) -> StrategyResult:
    """Predict with a strategy, seeded by the round's number, and score it on the test users of the round."""
    began, start = time.time(), time.perf_counter()
    given = rounds(cell.round)
    predicted = predict_round(cell.strategy, given, plan.fusion, cell.round.world.seed)
    judged = plan.measure.judge(given.plain_test, {cell.strategy: predicted.predictions})
    (own,) = judged.scores.values()
    sums = judged.by_user.sums[cell.strategy]
    users, seconds = [str(user) for user in sums.index], time.perf_counter() - start
    return StrategyResult(cell, plan.target, own, users, sums.tolist(), plain(predicted.reasons), began, seconds)


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
