"""The cells of the benchmark on ranking: one fold of users of one set after one number of shots."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.common.folders import ROOT
from benchmarks.ranking.sets import RANKING_SETS
from metarec.bases.ranking import RANKING_BASES, applicable_ranking_bases
from metarec.cells import Cell, CellResult, CellStore
from metarec.episodes import EpisodeSettings, fold_roles
from metarec.episodes.ranking import RankingEpisodes, RankingSettings, build_ranking_episodes
from metarec.files import code_facts
from metarec.fusion.ranks import RelevantRanks, hit, mrr, ndcg, recall
from metarec.ratings import Domain

__all__ = ["LIBRARIES", "METRICS", "RankingPlan", "bases_of", "cells_of", "predict_cell", "user_metrics"]

LIBRARIES = ("lenskit", "lightgbm", "numpy", "scikit-learn", "scipy", "torch")

_PARTS = ("errors", "registry.py", "ratings", "bases", "episodes", "fusion", "meta", "model", "search", "study")
CODE = (*(f"metarec/{part}" for part in _PARTS), *(f"benchmarks/ranking/{part}.py" for part in ("cells", "models")))
"""The code that a cell's result depends on."""

METRICS: Mapping[str, Callable[[RelevantRanks], np.ndarray]] = {
    "ndcg@10": lambda ranks: ndcg(ranks, 10),
    "ndcg@5": lambda ranks: ndcg(ranks, 5),
    "ndcg@20": lambda ranks: ndcg(ranks, 20),
    "recall@20": lambda ranks: recall(ranks, 20),
    "mrr": mrr,
    "hit@10": lambda ranks: hit(ranks, 10),
}
"""Name -> the metric of each user."""

TOP = 10
"""The length of the lists whose share of the catalogue is measured."""

Predict = Callable[[RankingEpisodes, int], tuple[Mapping[str, np.ndarray], Mapping[str, Any]]]


@dataclass(frozen=True)
class RankingPlan:
    """A run: which sets, how users are split, and how often metarec is trained.

    Attributes:
        sets: names. shots: sizes of the support sets. folds: of the users. seeds: of metarec's training and search; all
            else is drawn from seed 0.
        data: the folder of the sets. work: the folder of finished cells and of the lists.
        models: (episodes, seed) -> model -> [T, N] scores of the test users' candidates, and settings.
    """

    sets: tuple[str, ...]
    shots: tuple[int, ...]
    folds: int
    seeds: int
    data: Path
    work: Path
    models: Predict

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
    episodes = build_ranking_episodes(
        {domain.name: domain},
        domain.name,
        settings,
        RankingSettings(),
        bases_of(domain),
        cache=plan.work / "lists",
        roles=roles,
    )[domain.name]
    predictions, chosen = plan.models(episodes, key["seed"])
    test = episodes.test
    shown = {name: _top(scores, test.query_items) for name, scores in predictions.items()}
    coverage = {name: len(set(items.ravel()) - {""}) / episodes.num_items for name, items in shown.items()}
    proposed = float(test.batch.query.targets.sum()) / float(test.relevant.sum())
    notes = {"settings": chosen, "coverage": coverage, "proposed": proposed, "bases": list(test.base_names)}
    return CellResult({"users": user_metrics(episodes, predictions)}, notes)


def user_metrics(episodes: RankingEpisodes, predictions: Mapping[str, np.ndarray]) -> pd.DataFrame:
    """A row for each test user and model: user, model and every metric over the whole catalogue."""
    test = episodes.test
    targets, mask = test.batch.query.targets.numpy(), test.batch.query.mask.numpy()
    frames = []
    for name, scores in predictions.items():
        ranks = RelevantRanks.of(scores, targets, mask, test.relevant)
        values = {metric: of(ranks) for metric, of in METRICS.items()}
        frames.append(pd.DataFrame({"user": test.users.astype(str), "model": name, **values}))
    return pd.concat(frames, ignore_index=True)


def _top(scores: np.ndarray, items: np.ndarray) -> np.ndarray:
    order = np.argsort(-np.where(items == "", -np.inf, scores), axis=1, kind="stable")[:, :TOP]
    return np.take_along_axis(items, order, axis=1)


# Cells come set by set.
@lru_cache(maxsize=1)
def _domain(plan: RankingPlan, name: str) -> Domain:
    return RANKING_SETS[name].read(plan.data)
