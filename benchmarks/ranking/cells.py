"""The cells of the benchmark on ranking: one fold of users of one set after one number of shots."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from benchmarks.common.folders import ROOT
from benchmarks.ranking.sets import RANKING_SETS
from metarec.bases.ranking import RANKING_BASES, applicable_ranking_bases
from metarec.cells import Cell, CellResult, CellStore
from metarec.episodes import EpisodeSettings, UserRoles, fold_roles
from metarec.episodes.ranking import RankingEpisodes, RankingSettings, build_ranking_episodes
from metarec.evaluation.ranking import catalogue_coverage, ranking_rows, top_lists
from metarec.files import code_facts
from metarec.ratings import Domain
from metarec.study.bases import BaseSearch, tune_bases

__all__ = ["LIBRARIES", "RankingPlan", "bases_of", "cells_of", "predict_cell"]

LIBRARIES = ("lenskit", "lightgbm", "numpy", "scikit-learn", "scipy", "torch")

_PARTS = ("errors", "registry.py", "ratings", "bases", "episodes", "fusion", "meta", "model", "search", "study")
CODE = (
    *(f"metarec/{part}" for part in _PARTS),
    "metarec/evaluation/ranking.py",
    *(f"benchmarks/ranking/{part}.py" for part in ("cells", "models")),
)
"""The code that a cell's result depends on."""

TOP = 10
"""The length of the lists whose share of the catalogue is measured."""

Predict = Callable[[RankingEpisodes, int], tuple[Mapping[str, Any], Mapping[str, Any]]]


@dataclass(frozen=True)
class RankingPlan:
    """A run: which sets, how users are split, and how often metarec is trained.

    Attributes:
        sets: names. shots: sizes of the support sets. folds: of the users. seeds: of metarec's training and search; all
            else is drawn from seed 0.
        data: the folder of the sets. work: the folder of finished cells and of the lists.
        tune_bases: trials for the settings of each base, on the validation users of the fold; 0 leaves the defaults.
        models: (episodes, seed) -> model -> [T, N] scores of the test users' candidates, and settings.
    """

    sets: tuple[str, ...]
    shots: tuple[int, ...]
    folds: int
    seeds: int
    data: Path
    work: Path
    models: Predict
    tune_bases: int = 0

    @property
    def store(self) -> CellStore:
        """The finished cells."""
        return CellStore(self.work)


def bases_of(domain: Domain) -> dict[str, dict[str, Any]]:
    """Every ranking base that applies to this domain, with its usual options."""
    return {name: {} for name in applicable_ranking_bases(RANKING_BASES.names(), [domain])}


def cells_of(plan: RankingPlan, domain: Domain) -> list[Cell]:
    """All cells of one set."""
    facts = {
        "data": domain.fingerprint(),
        "folds": plan.folds,
        "bases": bases_of(domain),
        "tune_bases": plan.tune_bases,
        "spec": (ROOT / "studies" / "ranking.yaml").read_text(encoding="utf-8"),
        **code_facts(CODE, LIBRARIES, ROOT),
    }
    return [
        Cell({"set": domain.name, "shots": shots, "fold": fold, "seed": seed}, facts)
        for shots in plan.shots
        for fold in range(plan.folds)
        for seed in range(plan.seeds)
    ]


def predict_cell(plan: RankingPlan, cell: Cell) -> CellResult:
    """Fit everything on the users of the other folds, and rank for the users of this fold.

    The frames: `users`, a row for each user and model with all metrics. The notes: settings, and the share of the
    catalogue in the lists of each model.
    """
    key = cell.key
    domain = _domain(plan, key["set"])
    settings = EpisodeSettings(shots=key["shots"])
    roles = fold_roles(domain, settings, fold=key["fold"], folds=plan.folds, seed=0)
    bases = bases_of(domain)
    tuned = tune_bases(_search(plan, cell, domain, roles, settings)) if plan.tune_bases else {}
    episodes = build_ranking_episodes(
        {domain.name: domain},
        domain.name,
        settings,
        RankingSettings(),
        bases | {name: dict(own.options) for name, own in tuned.items()},
        cache=plan.work / "lists",
        roles=roles,
    )[domain.name]
    predictions, chosen = plan.models(episodes, key["seed"])
    test = episodes.test
    chosen = {**chosen, **{name: dict(own.options) for name, own in tuned.items()}}
    lists = {name: top_lists(test, scores, TOP) for name, scores in predictions.items()}
    coverage = {name: catalogue_coverage(own, episodes.num_items) for name, own in lists.items()}
    users = ranking_rows(test, predictions).drop(columns="domain")
    users["user"] = users["user"].astype(str)
    assert test.relevant is not None, "these are ranking episodes"
    proposed, relevant = float(test.batch.query.targets.sum()), int(test.relevant.sum())
    notes = {
        "settings": chosen,
        "coverage": coverage,
        "proposed": proposed / relevant,
        "bases": list(test.base_names),
    }
    return CellResult({"users": users}, notes)


def _search(plan: RankingPlan, cell: Cell, domain: Domain, roles: UserRoles, settings: EpisodeSettings) -> BaseSearch:
    """The search of the bases' settings for one fold, which the cells of all seeds share."""
    shared = Cell({**cell.key, "seed": 0}, cell.facts)
    name = f"{domain.name}.{cell.key['shots']}.{cell.key['fold']}.{shared.digest}"
    storage = str(plan.work / "bases.journal")
    return BaseSearch(name, storage, domain, roles, "ranking", settings, bases_of(domain), plan.tune_bases, seed=0)


# Cells come set by set.
@lru_cache(maxsize=1)
def _domain(plan: RankingPlan, name: str) -> Domain:
    return RANKING_SETS[name].read(plan.data)
