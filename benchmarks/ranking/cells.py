"""The cells of the benchmark on ranking: one fold of users, or one cut in time, of one set after some shots."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias, get_args

import numpy as np

from benchmarks.common.folders import ROOT
from benchmarks.ranking.sets import RANKING_SETS
from metarec.bases.ranking import RANKING_BASES, applicable_ranking_bases
from metarec.cells import Cell, CellResult, CellStore
from metarec.episodes import MIN_USERS, EpisodeSettings, UserRoles, fold_roles
from metarec.episodes.ranking import RankingEpisodes, RankingSettings, build_ranking_episodes, build_timed_episodes
from metarec.errors import InputError
from metarec.evaluation.ranking import catalogue_coverage, ranking_rows, top_lists
from metarec.files import code_facts
from metarec.ratings import Domain
from metarec.study.bases import BaseSearch, tune_bases

__all__ = ["LIBRARIES", "RankingPlan", "Split", "bases_of", "cells_of", "check_split", "parts_of", "predict_cell"]

Split: TypeAlias = Literal["users", "time"]
"""Folds of users; or one cut in time, after which warm and cold users are tested apart."""

LIBRARIES = ("lenskit", "lightgbm", "numpy", "scikit-learn", "scipy", "torch")

_PARTS = ("errors", "registry.py", "ratings", "bases", "episodes", "fusion", "meta", "model", "search", "study")
CODE = (
    *(f"metarec/{part}" for part in _PARTS),
    "metarec/evaluation/ranking.py",
    *(f"benchmarks/{part}.py" for part in ("common/study", "ranking/cells", "ranking/models")),
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
        split: of the users or of time; with a split by time there is one fold, and bases are not tuned.
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
    split: Split = "users"

    @property
    def store(self) -> CellStore:
        """The finished cells."""
        return CellStore(self.work)


def bases_of(domain: Domain) -> dict[str, dict[str, Any]]:
    """Every ranking base that applies to this domain, with its usual options."""
    return {name: {} for name in applicable_ranking_bases(RANKING_BASES.names(), [domain])}


def check_split(split: str) -> Split:
    """The kind of split; :class:`InputError` for an unknown one."""
    if split not in get_args(Split):
        raise InputError(f'--split must be one of {", ".join(get_args(Split))} but got "{split}"')
    return split  # type: ignore[return-value]  # it is one of the literals


def cells_of(plan: RankingPlan, domain: Domain) -> list[Cell]:
    """All cells of one set."""
    facts = {
        "split": plan.split,
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
        for fold in range(plan.folds if plan.split == "users" else 1)
        for seed in range(plan.seeds)
    ]


def predict_cell(plan: RankingPlan, cell: Cell) -> CellResult:
    """Fit everything on the users of the other folds, or before the cut, and rank for the test users.

    The frames: `users`, a row for each user and model with all metrics, and the user's `part`: all, or warm or cold.
    The notes: settings, bases, and for each part the share of the catalogue in the lists of each model, and the share
    of the relevant items that the bases propose.
    """
    key = cell.key
    domain = _domain(plan, key["set"])
    episodes, part, tuned = (_by_users if plan.split == "users" else _by_time)(plan, domain, cell)
    predictions, chosen = plan.models(episodes, key["seed"])
    test = episodes.test
    assert test.relevant is not None, "these are ranking episodes"
    users = ranking_rows(test, predictions).drop(columns="domain")
    users = users.assign(user=users["user"].astype(str), part=np.tile(part, len(predictions)))
    proposed = test.batch.query.targets.sum(1).numpy()
    lists = {name: top_lists(test, scores, TOP) for name, scores in predictions.items()}
    parts = {}
    for name in np.unique(part):
        own = np.flatnonzero(part == name)
        parts[str(name)] = {
            "coverage": {
                model: catalogue_coverage([found[row] for row in own], episodes.num_items)
                for model, found in lists.items()
            },
            "proposed": float(proposed[own].sum()) / int(test.relevant[own].sum()),
        }
    return CellResult(
        {"users": users}, {"settings": {**chosen, **tuned}, "bases": list(test.base_names), "parts": parts}
    )


def parts_of(result: CellResult) -> dict[str, CellResult]:
    """The result of each part of the test users, without parts of fewer than `MIN_USERS`, which are not compared."""
    users = result.frames["users"]
    sizes = users.groupby("part")["user"].nunique()
    notes = {name: value for name, value in result.notes.items() if name != "parts"}
    return {
        part: CellResult({"users": users[users["part"] == part].drop(columns="part")}, {**notes, **own})
        for part, own in result.notes["parts"].items()
        if sizes[part] >= MIN_USERS
    }


class _Parts(NamedTuple):
    """Episodes, [T] the part of each test user, and the options of each base that was tuned."""

    episodes: RankingEpisodes
    part: np.ndarray
    tuned: Mapping[str, Mapping[str, Any]]


def _by_users(plan: RankingPlan, domain: Domain, cell: Cell) -> _Parts:
    key = cell.key
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
    chosen = {name: dict(own.options) for name, own in tuned.items()}
    return _Parts(episodes, np.full(len(episodes.test), "all", dtype=object), chosen)


def _by_time(plan: RankingPlan, domain: Domain, cell: Cell) -> _Parts:
    # Every user with a new item after the cut is tested.
    settings = EpisodeSettings(shots=cell.key["shots"], min_query=1)
    found = build_timed_episodes(domain, settings, RankingSettings(), bases_of(domain))
    return _Parts(found.episodes, np.where(found.warm, "warm", "cold").astype(object), {})


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
