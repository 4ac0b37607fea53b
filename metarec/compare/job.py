"""From a plan to a finished comparison: every cell is kept on disk as soon as it is computed, and recorded."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from multiprocessing import parent_process
from pathlib import Path
from threading import RLock
from typing import Any

from tqdm import tqdm

from metarec.cells import Cell, CellResult, CellStore, run_cells
from metarec.compare.cells import StrategyResult, cells_on_disk, compute_cell
from metarec.compare.plan import CellKey, ComparisonPlan, RoundKey, World
from metarec.compare.records import (
    Reporter,
    added_metrics,
    cell_record,
    fixed_params,
    plan_params,
    record_rows,
    start_rows,
)
from metarec.compare.summary import Comparison, added, lines
from metarec.episodes import DomainEpisodes
from metarec.errors import InputError, check_name
from metarec.files import make_folders, write_whole
from metarec.importing import importing
from metarec.ratings import Domain
from metarec.threads import one_thread
from metarec.tracking import NullTracker, Tracker, check_same
from metarec.transfer import Round, Rounds, domain_similarity

__all__ = ["Job", "Watcher", "run_comparison"]


class Watcher:
    """Gets the progress of a comparison; the command line shows it, the library is silent."""

    def on_begin(self, domains: Mapping[str, Domain]) -> None:
        """The input is good: the work on these domains begins."""

    def on_stage(self, what: str, done: int, total: int) -> None:
        """A stage before or after the cells begins; so many of its parts are done."""

    def on_cell(self, result: StrategyResult, done: int, total: int) -> None:
        """A cell is finished, now or in an earlier session."""


@dataclass
class Job:
    """Where a comparison keeps its files and records, and how it runs.

    Args:
        out: the folder for ``artifacts/`` and ``cache/`` (and ``mlflow.db``, by its tracker).
        name: a comparison of this name goes on.
        tracker: records the runs. reporter: writes descriptions, tables and pictures.
        jobs: processes that fit base recommenders, then compute rounds. No number depends on it.

    Raises:
        InputError: `name` breaks the rule of :func:`~metarec.errors.check_name`.
    """

    out: Path
    name: str
    tracker: Tracker = field(default_factory=NullTracker)
    reporter: Reporter = field(default_factory=Reporter)
    jobs: int = 1
    watcher: Watcher = field(default_factory=Watcher)

    def __post_init__(self) -> None:
        check_name("the name of a comparison", self.name)

    @property
    def folder(self) -> Path:
        """The folder of this comparison."""
        return self.out / "artifacts" / self.name

    @property
    def cache(self) -> Path:
        """The folder of base predictions, shared by all jobs."""
        return self.out / "cache"


def run_comparison(plan: ComparisonPlan, domains: Mapping[str, Domain], job: Job) -> Comparison:
    """Compute the cells that are missing, and record all of them.

    The input is checked before anything is written.

    Raises:
        InputError: the input is wrong.
    """
    plan.check(domains)
    domains = plan.make_rounds(domains).domains
    fixed = fixed_params(plan, domains)
    store, cells = CellStore(job.folder / "cells"), cells_on_disk(plan, domains)
    make_folders(job.out, store.folder, job.cache)
    _check_same(job, fixed)
    job.watcher.on_begin(domains)
    loaded = {key: result for key, cell in cells.items() if (result := store.load(cell)) is not None}
    missing = [key for key in cells if key not in loaded]
    # However the block ends, it waits for the thread, so that no half-made store is left.
    with ThreadPoolExecutor(1) as thread:
        ready = thread.submit(_get_ready, job)
        with one_thread():
            similarity = _fit_ahead(plan, domains, job, missing)
        job.watcher.on_stage("opening the store of runs", 0, 1)
        ready.result()
    with job.tracker.start_comparison(
        job.name,
        params=plan_params(plan, domains),
        fixed=fixed,
        description=job.reporter.description(plan, domains, job.name),
    ) as run:
        rows = start_rows(plan, run)
        recorded = run.recorded_cells()
        finished: dict[CellKey, StrategyResult] = {}

        def on_done(cell: Cell, content: CellResult) -> None:
            key = CellKey.of(cell.key)
            finished[key] = result = StrategyResult.from_disk(key, content)
            if cell.digest not in recorded:
                run.record_cell(cell_record(cell.digest, result))
            job.watcher.on_cell(result, len(finished), len(cells))

        for key, result in loaded.items():
            on_done(cells[key], result)
        places = {key: place for place, key in enumerate(dict.fromkeys(key.round for key in missing))}
        jobs = min(job.jobs, len(places))
        run_cells(
            [cells[key] for key in missing],
            _Work(plan, domains, job.cache),
            store,
            jobs=jobs,
            on_done=on_done,
            # A worker gets the domains once, and rounds of every kind.
            together=lambda cell: places[CellKey.of(cell.key).round] % jobs,
        )
        results = [finished[key] for key in cells]
        job.watcher.on_stage("the table and its intervals", 0, 1)
        comparison = Comparison(
            job.name,
            plan,
            "" if domains[plan.target].scale is None else str(domains[plan.target].scale),
            results,
            lines(plan, results),
            added(plan, results),
            similarity,
            run.experiment_id,
            run.run_id,
        )
        run.log_metrics(added_metrics(comparison))
        record_rows(run, rows, comparison)
        job.reporter.report(run, comparison, domains)
    return comparison


def _check_same(job: Job, fixed: Mapping[str, Any]) -> None:
    """Note the data and settings of a new comparison in its folder, and compare those of one that goes on.

    The store of the runs has them too, but it is open only after the bases are fitted.

    Raises:
        InputError: they differ.
    """
    path = job.folder / "comparison.json"
    now = {key: str(value) for key, value in fixed.items()}
    if path.exists():
        try:
            before = {str(key): str(value) for key, value in json.loads(path.read_bytes()).items()}
        except (ValueError, AttributeError, RecursionError):
            raise InputError(f"{path}: damaged; remove it, or give the comparison another --name") from None
        check_same(job.name, before, now)
    else:
        write_whole(path, (json.dumps(now, indent=1) + "\n").encode())


def _get_ready(job: Job) -> None:
    """Steps that take seconds and need no episodes, for a thread while other processes fit the bases."""
    with importing():
        job.tracker.open()
        job.reporter.prepare()


def _fit_ahead(
    plan: ComparisonPlan, domains: Mapping[str, Domain], job: Job, missing: Collection[CellKey]
) -> dict[str, dict[str, float]]:
    """Fit the bases of all worlds with missing cells, so that workers find their predictions on disk.

    Returns:
        the similarity of all domains in the first round with the most target users.
    """
    shown = World(plan.regimes[0], plan.target_users[-1], 0)
    wanted = {cell.round.world for cell in missing} | {shown}
    worlds = [world for world in plan.worlds() if world in wanted]
    similarity: dict[str, dict[str, float]] = {}
    for done, world in enumerate(worlds):
        job.watcher.on_stage("base recommenders", done, len(worlds))
        given = _round(plan, plan.make_rounds(domains, job.cache, job.jobs), RoundKey(world, plan.shots[-1]))
        if world == shown:
            similarity = _similarities(plan, domains, given)
    return similarity


def _similarities(plan: ComparisonPlan, domains: Mapping[str, Domain], given: Round) -> dict[str, dict[str, float]]:
    """The similarity of every two domains by their train users, of the target by its few users; without test users."""
    few = DomainEpisodes(given.few, given.few, given.few)
    # The few have no standards of their own, and parts that only some pairs have would not be comparable.
    sides = {**{name: replace(source, standards=None) for name, source in given.sources.items()}, plan.target: few}
    return {a: {b: domain_similarity(sides[a], sides[b]).score for b in domains} for a in domains}


class _Work:
    """Computes cells, and makes once what the cells of a round share."""

    def __init__(self, plan: ComparisonPlan, domains: Mapping[str, Domain], cache: Path) -> None:
        self._plan, self._domains, self._cache = plan, domains, cache
        self._makers: dict[World, Rounds] = {}
        self._rounds: dict[RoundKey, Round] = {}

    def __call__(self, cell: Cell) -> CellResult:
        if parent_process() is not None:
            # The trainer's silent bar would make a lock between processes, which Python complains about after Ctrl-C.
            tqdm.set_lock(RLock())
        return compute_cell(CellKey.of(cell.key), self._plan, self._round).on_disk()

    def _round(self, key: RoundKey) -> Round:
        # Only the latest ones are kept.
        if key.world not in self._makers:
            self._makers = {key.world: self._plan.make_rounds(self._domains, self._cache)}
        if key not in self._rounds:
            self._rounds = {key: _round(self._plan, self._makers[key.world], key)}
        return self._rounds[key]


def _round(plan: ComparisonPlan, maker: Rounds, key: RoundKey) -> Round:
    regime, users, seed = key.world
    return maker.round(plan.target, shots=key.shots, target_users=users, regime=regime, number=seed)
