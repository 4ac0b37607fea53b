"""The cells of the ablation: one fold of users of one set, with every part of a fusion alone and together."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import torch

from benchmarks.cold.cells import bases_of
from benchmarks.common.folders import ROOT
from benchmarks.common.sets import RatingSet
from metarec.cells import Cell, CellResult, CellStore
from metarec.episodes import DomainEpisodes, EpisodeSettings, cross_validate
from metarec.evaluation.metrics import prediction_rows
from metarec.files import code_facts
from metarec.meta import NetworkConfig
from metarec.model import Fusion, FusionConfig
from metarec.ratings import Domain

__all__ = ["BOTH", "CROSSED", "LIBRARIES", "NETWORKS", "STACK", "AblationPlan", "cells_of", "folds_of", "predict_cell"]

NETWORKS: Mapping[str, NetworkConfig] = {
    "0 steps": NetworkConfig(inner_steps=0),
    "1 step": NetworkConfig(inner_steps=1),
    "3 steps": NetworkConfig(inner_steps=3),
    "ridge head": NetworkConfig(adapted="ridge"),
}
"""The gated network with the defaults of a study, without adaptation and with three kinds of it."""

STACK = "stack"
BOTH = "stack + {network}"
"""The name of a combination of all stackers and one network."""

CROSSED = " × 4"
"""The end of the name of a cross-fitted model."""

FITS = 4

LIBRARIES = ("lenskit", "lightgbm", "numpy", "scikit-learn", "scipy", "torch")
_PARTS = ("errors", "registry.py", "ratings", "bases", "episodes", "fusion", "meta", "model", "evaluation/metrics.py")
CODE = (
    *(f"metarec/{part}" for part in _PARTS),
    *(f"benchmarks/{part}.py" for part in ("ablation/cells", "common/sets")),
)
"""The code that a cell's result depends on."""


@dataclass(frozen=True)
class AblationPlan:
    """A run.

    Attributes:
        sets: the rating sets. shots: the size of the support sets. folds: of the users.
        stackers: names. networks: name -> the network that is combined with them.
        work: the folder of finished cells and of the bases' predictions.
    """

    sets: tuple[RatingSet, ...]
    shots: int
    folds: int
    stackers: tuple[str, ...]
    networks: Mapping[str, NetworkConfig]
    work: Path

    def __hash__(self) -> int:
        return hash((self.sets, self.shots, self.folds, self.work))

    @property
    def store(self) -> CellStore:
        """The finished cells."""
        return CellStore(self.work)


def cells_of(plan: AblationPlan, domain: Domain) -> list[Cell]:
    """A cell for each fold of one set."""
    facts = {
        "data": domain.fingerprint(),
        "folds": plan.folds,
        "bases": bases_of(domain),
        "stackers": list(plan.stackers),
        "networks": {name: config.model_dump(mode="json") for name, config in plan.networks.items()},
        **code_facts(CODE, LIBRARIES, ROOT),
    }
    return [
        Cell({"set": domain.name, "shots": plan.shots, "part": "ablation", "fold": fold}, facts)
        for fold in range(plan.folds)
    ]


def folds_of(plan: AblationPlan, domain: Domain, *, jobs: int = 1, on_progress: Any = None) -> Any:
    """The episodes of every fold; the predictions of the bases are kept in the plan's folder."""
    return cross_validate(
        domain,
        EpisodeSettings(),
        bases_of(domain),
        shots=[plan.shots],
        folds=plan.folds,
        seed=0,
        cache=plan.work / "bases",
        jobs=jobs,
        on_progress=on_progress,
    )


def predict_cell(plan: AblationPlan, cell: Cell) -> CellResult:
    """Fit every part once and cross-fitted, and predict for the test users of the fold.

    The frame `rows` has a row for each test rating: user, item, rating and each model, in the domain's units. The
    notes: the seconds that the fits of each model took.
    """
    episodes = _folds(plan, cell.key["set"]).episodes(cell.key["fold"], cell.key["shots"])
    predictions: dict[str, Any] = {}
    seconds: dict[str, float] = {}
    _import_all(plan, episodes)
    for fits, end in ((0, ""), (FITS, CROSSED)):
        parts = _fitted(plan, episodes, fits)
        fusion = Fusion(FusionConfig(networks=dict(plan.networks), stackers=plan.stackers, cross_fit=fits)).fit(
            episodes, networks=parts.networks, stackers=parts.stackers
        )
        for name, members in _models(plan).items():
            part = fusion.part(members)
            predictions[name + end] = part.predict(episodes.test)
            seconds[name + end] = sum(parts.seconds[member] for member in members)
    rows = prediction_rows(episodes.test, predictions)
    # They come as objects; a column of one type is what a file gives back.
    rows["user"], rows["item"] = rows["user"].astype(str), rows["item"].astype(str)
    return CellResult({"rows": rows}, {"seconds": seconds})


def _import_all(plan: AblationPlan, episodes: DomainEpisodes) -> None:
    """Fit every member on a few users: the first fit of a process imports libraries, which is not to be timed."""
    few = torch.arange(min(len(episodes.train), len(episodes.validation), 12))
    small = DomainEpisodes(episodes.train.select(few), episodes.validation.select(few), episodes.test)
    networks = {name: config.model_copy(update={"epochs": 1}) for name, config in plan.networks.items()}
    _fitted(replace(plan, networks=networks), small, 0)


def _models(plan: AblationPlan) -> dict[str, Sequence[str]]:
    """Model -> its members."""
    together = {BOTH.format(network=name): (*plan.stackers, name) for name in plan.networks}
    alone = {name: (name,) for name in plan.networks}
    return {STACK: plan.stackers, **alone, **together, "all": (*plan.stackers, *plan.networks)}


class _Parts(NamedTuple):
    """Fitted members, and member -> the seconds of its fit."""

    networks: dict[str, Any]
    stackers: dict[str, Any]
    seconds: dict[str, float]


def _fitted(plan: AblationPlan, episodes: DomainEpisodes, fits: int) -> _Parts:
    """Each member on its own, so that its fit is timed."""
    found = _Parts({}, {}, {})
    for name in plan.stackers:
        start = time.perf_counter()
        config = FusionConfig(networks={}, stackers=(name,), weights="equal", cross_fit=fits)
        found.stackers.update(Fusion(config).fit(episodes).stackers)
        found.seconds[name] = time.perf_counter() - start
    for name, network in plan.networks.items():
        start = time.perf_counter()
        config = FusionConfig(networks={name: network}, stackers=(), weights="equal", cross_fit=fits)
        found.networks.update(Fusion(config).fit(episodes).networks)
        found.seconds[name] = time.perf_counter() - start
    return found


# Cells come set by set.
@lru_cache(maxsize=1)
def _folds(plan: AblationPlan, name: str) -> Any:
    (chosen,) = (one for one in plan.sets if one.name == name)
    return folds_of(plan, chosen.read())
