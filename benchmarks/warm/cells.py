"""The cells of the benchmark on users with known histories: one fold of one published split."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common.folders import ROOT
from benchmarks.warm.sets import WARM_SETS
from metarec.bases import applicable_bases
from metarec.cells import Cell, CellResult, CellStore
from metarec.episodes import DomainEpisodes, RatingRoles, assign_ratings, build_warm_episodes
from metarec.evaluation.metrics import prediction_rows
from metarec.files import code_facts
from metarec.ratings import Domain
from metarec.study.bases import BaseSearch, tune_bases
from metarec.study.spec import StudySpec, load_spec

__all__ = ["LIBRARIES", "SETTINGS", "WarmPlan", "cells_of", "predict_cell", "spec_of"]

LIBRARIES = ("lenskit", "lightgbm", "numpy", "scikit-learn", "scipy", "torch")

_PARTS = ("errors", "registry.py", "ratings", "bases", "episodes", "fusion", "meta", "model", "search", "study")
CODE = (
    *(f"metarec/{part}" for part in _PARTS),
    *(f"benchmarks/{part}.py" for part in ("common/study", "warm/cells", "warm/sets")),
)
"""The code that a cell's result depends on."""

SETTINGS: Mapping[str, Any] = {"protocol": "warm", "episodes": {"shots": 20}, "tune_bases": 10, "trials": 10}
"""What is set beside the spec ``cold-start``."""

Predict = Callable[[DomainEpisodes, StudySpec], tuple[Mapping[str, np.ndarray], Mapping[str, Any]]]


@dataclass(frozen=True)
class WarmPlan:
    """A run.

    Attributes:
        sets: names. data: their folder. work: the folder of finished cells and of the bases' predictions.
        settings: keys of the spec ``cold-start`` and their values.
        models: (episodes, spec) -> model -> [T, N] unit-scale predictions of the test query rows, and settings.
        jobs: processes that fit bases.
    """

    sets: tuple[str, ...]
    data: Path
    work: Path
    settings: Mapping[str, Any]
    models: Predict
    jobs: int = 1

    @property
    def store(self) -> CellStore:
        """The finished cells."""
        return CellStore(self.work)


def spec_of(plan: WarmPlan, target: str) -> StudySpec:
    """The settings of ``python -m metarec.study cold-start`` with those of the plan."""
    spec = load_spec(str(ROOT / "studies" / "cold-start.yaml"), dict(plan.settings))
    return spec.model_copy(update={"target": target})


def cells_of(plan: WarmPlan, domain: Domain) -> list[Cell]:
    """A cell for each fold of one set."""
    facts = {
        "data": domain.fingerprint(),
        "spec": spec_of(plan, domain.name).model_dump(mode="json"),
        **code_facts(CODE, LIBRARIES, ROOT),
    }
    masks = WARM_SETS[domain.name].test_masks(domain, plan.data)
    return [Cell({"set": domain.name, "fold": fold}, {**facts, "folds": len(masks)}) for fold in range(len(masks))]


def predict_cell(plan: WarmPlan, cell: Cell) -> CellResult:
    """Learn from all ratings but those of the test, and predict these.

    Bases are tuned on the validation ratings. The frame `rows` has a row for each test rating: user, item, rating and
    each model, in the domain's units. The notes: settings, and bases. The folder of the plan must exist.
    """
    name = cell.key["set"]
    domain = WARM_SETS[name].read(plan.data)
    spec = spec_of(plan, name)
    mask = WARM_SETS[name].test_masks(domain, plan.data)[cell.key["fold"]]
    roles = assign_ratings(domain, spec.episodes, "random", spec.seed, test=mask)
    bases = {base: spec.bases[base] for base in applicable_bases(list(spec.bases), [domain])}
    tuned = _tuned(plan, cell, spec, roles, bases) if spec.tune_bases else {}
    episodes = build_warm_episodes(
        {name: roles},
        spec.episodes,
        bases | tuned,
        seed=spec.seed,
        cache=plan.work / "bases",
        jobs=plan.jobs,
    )[name]
    predictions, chosen = plan.models(episodes, spec)
    rows = prediction_rows(episodes.test, predictions)
    # They come as objects; a column of one type is what a file gives back.
    rows["user"], rows["item"] = rows["user"].astype(str), rows["item"].astype(str)
    return CellResult({"rows": rows}, {"settings": {**chosen, **tuned}, "bases": list(episodes.test.base_names)})


def _tuned(
    plan: WarmPlan, cell: Cell, spec: StudySpec, roles: RatingRoles, bases: Mapping[str, Mapping[str, Any]]
) -> dict[str, dict[str, Any]]:
    """Base -> the options that the validation ratings of the fold chose."""
    study = f"{cell.key['set']}.{cell.key['fold']}.{cell.digest}"
    storage = str(plan.work / "bases.journal")
    search = BaseSearch(
        study, storage, roles.domain, roles, "rating", spec.episodes, bases, spec.tune_bases, seed=spec.seed
    )
    found = tune_bases(search, jobs=plan.jobs)
    return {name: dict(own.options) for name, own in found.items()}
