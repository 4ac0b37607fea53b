"""The cells of the benchmark of transfer: the facts that they depend on, and how one is computed.

A cell is one round with its competitors: a target with a few users, and its sources.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.common.folders import ROOT
from benchmarks.common.sets import RatingSet
from benchmarks.transfer.hostile import HOSTILE, hostile_domain, largest_other
from metarec.cells import Cell, CellResult, CellStore
from metarec.episodes.settings import Progress
from metarec.files import code_facts
from metarec.meta import Shape
from metarec.ratings import Domain
from metarec.transfer import (
    STRATEGIES,
    Round,
    TransferRounds,
    TransferSettings,
    competitors,
    controls,
    domain_similarity,
    predict_round,
)

__all__ = [
    "HOSTILE_PART",
    "LEAVE_ONE_OUT",
    "LIBRARIES",
    "OTHERS",
    "PAIRS",
    "PARTS",
    "ROOT",
    "SHOTS",
    "TransferPlan",
    "compute_cell",
    "facts_of",
    "make_rounds",
    "sources_of",
    "together",
]

LEAVE_ONE_OUT, PAIRS, HOSTILE_PART = PARTS = ("leave-one-out", "pairs", "hostile")

OTHERS = "others"
"""The source of a cell that learns from all other sets."""

SHOTS = (0, 1, 2, 5, 10)
"""The numbers of shots that rounds can have."""

COMPETITORS: Mapping[str, tuple[str, ...]] = {
    # gradient_based and feature_alignment are left out, because ten draws take long enough without them.
    LEAVE_ONE_OUT: ("auto", "model_agnostic", "prototype_based", "oracle", *controls()),
    PAIRS: ("scratch", "zero_shot", "model_agnostic", "mean", "best-single"),
    HOSTILE_PART: ("auto", "scratch", "mean", "best-single", "zero_shot"),
}
"""Part -> its competitors."""

LIBRARIES = ("lenskit", "lightgbm", "numpy", "scikit-learn", "scipy", "torch")


CODE = (
    *(
        f"metarec/{part}"
        for part in ("errors", "registry.py", "ratings", "bases", "episodes", "fusion", "meta", "model")
    ),
    "metarec/transfer",
    "benchmarks/transfer/hostile.py",
    "benchmarks/transfer/cells.py",
)


@dataclass(frozen=True)
class TransferPlan:
    """A group of rating sets (any may be the target) and the folder of finished cells.

    Attributes:
        sets: the group: users have the same fold in all of them, and bases apply to all of them.
        work: the folder. settings: of the fusion, the same for all competitors.
        bases: names of the base recommenders; by default all that apply to every set.
        shots: the numbers of shots of all rounds. The draws of users and their folds depend on them.
    """

    sets: tuple[RatingSet, ...]
    work: Path
    settings: TransferSettings = field(default_factory=TransferSettings, hash=False)
    bases: tuple[str, ...] | None = None
    shots: tuple[int, ...] = SHOTS

    @property
    def store(self) -> CellStore:
        """The finished cells."""
        return CellStore(self.work)


def make_rounds(
    plan: TransferPlan, domains: Mapping[str, Domain], *, jobs: int = 1, on_progress: Progress | None = None
) -> TransferRounds:
    """The rounds of a group and of the hostile sources that are made of it; base predictions are kept on disk.

    Hostile sources have the users of their original sets, so that they do not change the folds.
    """
    largest = dict.fromkeys(largest_other(domains, target) for target in domains)
    hostile = [hostile_domain(domains[name], kind) for name in largest for kind in HOSTILE]
    return TransferRounds(
        {**domains, **{domain.name: domain for domain in hostile}},
        plan.shots,
        bases=None if plan.bases is None else {name: {} for name in plan.bases},
        cache=plan.work / "bases",
        jobs=jobs,
        on_progress=on_progress,
    )


def facts_of(plan: TransferPlan, domains: Mapping[str, Domain], rounds: TransferRounds) -> dict[str, dict[str, Any]]:
    """Part -> the facts that its cells depend on, besides their keys."""
    shared = {
        "data": {name: domain.fingerprint() for name, domain in domains.items()},
        "shots": list(plan.shots),
        "episodes": rounds.settings.model_dump(exclude={"shots"}),
        "bases": list(rounds.bases),
        "fusion": repr(plan.settings),
        **code_facts(CODE, LIBRARIES, ROOT),
    }
    return {part: {**shared, "competitors": _competing(part)} for part in PARTS}


def together(cell: Cell) -> tuple[Any, ...]:
    """A key that cells share if they share source models."""
    key = cell.key
    group = key["target"] if key["source"] == OTHERS else key["source"]
    size = key["users"] if key["regime"] == "everything" else None
    return key["source"] == OTHERS, group, key["regime"], key["shots"], size, key["round"]


def sources_of(key: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    """The source domains of a cell; `names` are those of the group."""
    return [name for name in names if name != key["target"]] if key["source"] == OTHERS else [key["source"]]


def compute_cell(plan: TransferPlan, cell: Cell) -> CellResult:
    """Make the round, and score all competitors in it.

    The frames `squared` and `absolute` have a row for each test user: user, number of ratings, and a column for each
    competitor with the sum of its errors on the unit scale of the target. The notes: seconds by competitor (those of
    the shared source models are under ``teaching``), the reasons of strategies, and the similarity of a pair.
    """
    key = cell.key
    seconds: dict[str, float] = {}
    rounds = _rounds(plan)
    names = [rating_set.name for rating_set in plan.sets]
    with _clock(seconds, "round"):
        given = rounds.round(
            key["target"],
            shots=key["shots"],
            target_users=key["users"],
            regime=key["regime"],
            number=key["round"],
            sources=sources_of(key, names),
        )
    with _clock(seconds, "teaching"):
        given.sources.model(plan.settings, key["round"])
    frames, reasons = _scored(given, _competing(key["part"]), plan.settings, key["round"], seconds)
    notes: dict[str, Any] = {"seconds": seconds, "reasons": reasons}
    if key["part"] == PAIRS:
        notes["similarity"] = _similarity(given, plan.settings, key["round"])
    return CellResult(frames, notes)


def _competing(part: str) -> list[str]:
    return [name for name in competitors() if name in COMPETITORS[part]]


def _scored(
    given: Round, names: Sequence[str], settings: TransferSettings, seed: int, seconds: dict[str, float]
) -> tuple[dict[str, pd.DataFrame], dict[str, Any]]:
    test = given.plain_test
    for other in (given.test, given.more_users.test):
        if not np.array_equal(other.query_items, test.query_items) or list(other.users) != list(test.users):
            raise ValueError(f"{test.domain}: competitors do not predict the same rows")
    mask = test.batch.query.mask.numpy()
    truth = given.scale.to_unit(test.query_ratings)
    columns: dict[str, dict[str, Any]] = {
        measure: {"user": test.users, "ratings": mask.sum(1)} for measure in ("squared", "absolute")
    }
    reasons = {}
    for name in names:
        with _clock(seconds, name):
            predicted = predict_round(name, given, settings, seed)
        errors = np.where(mask, predicted.predictions - truth, 0.0)
        if not np.isfinite(errors).all():
            raise FloatingPointError(f"{name} makes predictions for {test.domain} that are not finite")
        columns["squared"][name] = np.square(errors).sum(1)
        columns["absolute"][name] = np.abs(errors).sum(1)
        if name in STRATEGIES.names() and predicted.reasons:
            reasons[name] = predicted.reasons
    return {measure: pd.DataFrame(own) for measure, own in columns.items()}, reasons


def _similarity(given: Round, settings: TransferSettings, seed: int) -> dict[str, Any]:
    """The similarity of the only source and the target's few users, with an untrained learner."""
    (source,) = given.sources.values()
    few = replace(given.more_users, train=given.few, standards=given.few_standards)
    found = domain_similarity(source, few, learner=settings.build(Shape.of(given.few.batch), seed))
    return {"score": found.score, "parts": dict(found.parts)}


@contextmanager
def _clock(seconds: dict[str, float], what: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    seconds[what] = round(time.perf_counter() - start, 3)


# Rounds are large and take long to read, so a process keeps them.
@lru_cache(maxsize=1)
def _rounds(plan: TransferPlan) -> TransferRounds:
    return make_rounds(plan, {rating_set.name: rating_set.read() for rating_set in plan.sets})
