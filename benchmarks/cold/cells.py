"""The cells of the benchmark on cold users: what they are, what they depend on, and how one is computed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.cold.ranking import ndcg_by_user
from benchmarks.common.folders import ROOT
from benchmarks.common.sets import RatingSet
from benchmarks.common.statistics import SetPredictions, gather
from metarec.bases import BASES, applicable_bases
from metarec.cells import Cell, CellResult, CellStore
from metarec.episodes import DomainEpisodes, Episodes, EpisodeSettings
from metarec.evaluation.metrics import KEYS, METAREC, base_unit_predictions, prediction_rows
from metarec.files import code_facts
from metarec.ratings import Domain, RatingScale

__all__ = [
    "BASELINES",
    "LIBRARIES",
    "ROOT",
    "Models",
    "Plan",
    "bases_of",
    "cells_of",
    "folds_of",
    "predict_cell",
    "set_predictions",
]

BASELINES = "baselines"
"""The cells of all baselines together."""

LIBRARIES = ("lenskit", "lightgbm", "numpy", "scikit-learn", "scipy", "torch")


_SHARED = (
    *(f"metarec/{part}" for part in ("errors", "registry.py", "ratings", "bases", "episodes")),
    *(f"metarec/{part}" for part in ("fusion/stackers", "fusion/blend.py", "model", "evaluation/metrics.py")),
    *(f"benchmarks/{part}.py" for part in ("cold/baselines", "cold/cells", "cold/ranking", "common/sets")),
)
CODE = {
    BASELINES: _SHARED,
    METAREC: (
        *_SHARED,
        *(f"metarec/{part}" for part in ("fusion", "meta", "search", "study", "tracking")),
        "benchmarks/cold/models.py",
        "benchmarks/common/study.py",
    ),
}
"""The code that a cell's result depends on. Baselines do not depend on networks, and stay when these change."""

Settings = Mapping[str, Any]


@dataclass(frozen=True)
class Models:
    """What is compared, as functions that another process can import.

    Attributes:
        cross_validate: as :func:`metarec.episodes.cross_validate`.
        baselines: (episodes, seed) -> name -> [R] unit-scale predictions of the test query rows, and settings.
        metarec: (episodes, seed) -> the same for metarec and for its parts, and settings.
    """

    cross_validate: Callable[..., Any]
    baselines: Callable[[DomainEpisodes, int], tuple[Mapping[str, np.ndarray], Settings]]
    metarec: Callable[[DomainEpisodes, int], tuple[Mapping[str, np.ndarray], Settings]]


@dataclass(frozen=True)
class Plan:
    """A run: which sets, how users are split, and with how many training seeds.

    Attributes:
        sets: the rating sets. shots: sizes of the support sets.
        folds: of the users. seeds: metarec's training seeds are 0..seeds - 1; all else is drawn from seed 0.
        episodes: how episodes are cut; `shots` replaces its own number.
        work: the folder of finished cells and of the bases' predictions.
    """

    sets: tuple[RatingSet, ...]
    shots: tuple[int, ...]
    folds: int
    seeds: int
    episodes: EpisodeSettings
    work: Path
    models: Models

    @property
    def store(self) -> CellStore:
        """The finished cells."""
        return CellStore(self.work)


def bases_of(domain: Domain) -> dict[str, dict[str, Any]]:
    """Every base recommender that applies to this domain, with its usual options."""
    return {name: {} for name in applicable_bases(BASES.names(), [domain])}


def cells_of(plan: Plan, domain: Domain) -> list[Cell]:
    """All cells of one set, those that share episodes beside each other."""
    facts = {
        "data": domain.fingerprint(),
        "episodes": plan.episodes.model_dump(exclude={"shots"}),
        "shots": list(plan.shots),
        "folds": plan.folds,
        "bases": bases_of(domain),
    }
    code = {group: code_facts(parts, LIBRARIES, ROOT) for group, parts in CODE.items()}
    return [
        Cell(
            {"set": domain.name, "fold": fold, "shots": shots, "model": group, "seed": seed},
            facts | code[group],
        )
        for fold in range(plan.folds)
        for shots in plan.shots
        for group, seed in ((BASELINES, 0), *((METAREC, seed) for seed in range(plan.seeds)))
    ]


def predict_cell(plan: Plan, cell: Cell) -> CellResult:
    """Fit the cell's models on its fold's train and validation users, and predict its test users.

    The frames: `rows`, the test query rows with a column for each model, and `ndcg`, one line a user.
    """
    key = cell.key
    test = (episodes := _episodes(plan, key["set"], key["fold"], key["shots"])).test
    notes: dict[str, Any] = {}
    if key["model"] == BASELINES:
        predictions, settings = plan.models.baselines(episodes, key["seed"])
        bases = base_unit_predictions(test)
        twice = sorted(set(bases) & set(predictions))
        if twice:
            raise ValueError(f"a baseline and a base are both called {twice[0]}")
        unit = {**_placed(predictions, test), **bases}
        notes = {"baselines": list(predictions), "bases": list(bases)}
    else:
        predictions, settings = plan.models.metarec(episodes, key["seed"])
        unit = _placed(predictions, test)
    rows = _rows(test, unit)
    ndcg = ndcg_by_user(rows, lowest=test.scale.low).reset_index()
    return CellResult({"rows": rows, "ndcg": ndcg}, {"settings": settings, **notes})


def _placed(flat: Mapping[str, np.ndarray], episodes: Episodes) -> dict[str, np.ndarray]:
    """From [R] to [T, N] predictions; 0.5 in padding."""
    mask = episodes.batch.query.mask.numpy()
    placed = {}
    for name, values in flat.items():
        placed[name] = np.full(mask.shape, 0.5)
        placed[name][mask] = values
    return placed


def _rows(episodes: Episodes, unit: Mapping[str, np.ndarray]) -> pd.DataFrame:
    rows = prediction_rows(episodes, unit)
    # They come as objects; a column of one type is what a file gives back.
    rows["user"], rows["item"] = rows["user"].astype(str), rows["item"].astype(str)
    return rows


def set_predictions(store: CellStore, cells: Sequence[Cell], shots: int, scale: RatingScale) -> SetPredictions:
    """The predictions of all folds of one set after a number of shots, from finished cells."""
    chosen = [cell for cell in cells if cell.key["shots"] == shots]
    results = list(zip(chosen, _loaded(store, chosen), strict=True))
    stacked = [result for cell, result in results if cell.key["model"] == BASELINES]
    ours: dict[int, list[CellResult]] = {}
    for cell, result in results:
        if cell.key["model"] == METAREC:
            ours.setdefault(cell.key["seed"], []).append(result)

    def whole(frame: str, on: Sequence[str]) -> tuple[Any, dict[str, list[str]]]:
        own = {seed: [result.frames[frame] for result in found] for seed, found in ours.items()}
        return gather([result.frames[frame] for result in stacked], own, on)

    rows, columns = whole("rows", KEYS)
    ndcg, _ = whole("ndcg", ["user"])
    notes = stacked[0].notes
    names = columns.pop(METAREC)
    return SetPredictions(rows, ndcg.set_index("user"), scale.span, names, notes["baselines"], notes["bases"], columns)


def folds_of(plan: Plan, domain: Domain, *, jobs: int = 1, on_progress: Any = None) -> Any:
    """The episodes of every fold; the predictions of the bases are kept in the plan's folder."""
    return plan.models.cross_validate(
        domain,
        plan.episodes,
        bases_of(domain),
        shots=plan.shots,
        folds=plan.folds,
        seed=0,
        cache=plan.work / "bases",
        jobs=jobs,
        on_progress=on_progress,
    )


# Cells come set by set and fold by fold, so one of each is enough.
@lru_cache(maxsize=1)
def _folds(plan: Plan, name: str) -> Any:
    (chosen,) = (rating_set for rating_set in plan.sets if rating_set.name == name)
    return folds_of(plan, chosen.read())


@lru_cache(maxsize=1)
def _episodes(plan: Plan, name: str, fold: int, shots: int) -> DomainEpisodes:
    episodes: DomainEpisodes = _folds(plan, name).episodes(fold, shots)
    return episodes


def _loaded(store: CellStore, cells: Sequence[Cell]) -> Iterator[CellResult]:
    for cell in cells:
        result = store.load(cell)
        if result is None:
            raise FileNotFoundError(f"the cell {cell.name} was finished but is no longer in {store.folder}")
        yield result
