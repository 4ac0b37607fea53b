"""From a plan to a finished comparison: every cell on disk as soon as it is there, and on record."""

from __future__ import annotations

from collections.abc import Collection, Generator, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import closing
from dataclasses import dataclass, field, replace
from itertools import chain, groupby
from pathlib import Path
from threading import RLock

from tqdm import tqdm

from metarec.compare.cells import CellResult, compute_cell
from metarec.compare.plan import Cell, Plan, RoundKey, World
from metarec.compare.records import Reporter, cell_record, line_metrics, plan_params
from metarec.compare.store import CellStore, digest_of
from metarec.compare.summary import Comparison, lines
from metarec.episodes import DomainEpisodes
from metarec.files import make_folders
from metarec.importing import importing
from metarec.ratings import Domain
from metarec.threads import one_thread
from metarec.tracking import NullTracker, Tracker
from metarec.transfer import Round, TransferRounds, domain_similarity
from metarec.workers import worker_pool

__all__ = ["Job", "Watcher", "run_comparison"]

POLL_SECONDS = 0.5
"""How often this process looks for the cells that workers have finished."""


class Watcher:
    """What a comparison tells while it runs; the command line draws it, the library is silent."""

    def on_begin(self, domains: Mapping[str, Domain]) -> None:
        """The input is good: the work on these domains begins."""

    def on_stage(self, what: str, done: int, total: int) -> None:
        """A part of something that is no cell begins; so many are done."""

    def on_cell(self, result: CellResult, done: int, total: int) -> None:
        """A cell is there, computed now or before."""


@dataclass
class Job:
    """Where a comparison keeps things, and who is told.

    Args:
        out: the folder for ``artifacts/`` and ``cache/`` (and ``mlflow.db``, by its tracker).
        name: a comparison of this name goes on.
        tracker: records the runs. reporter: writes descriptions, tables and pictures.
        jobs: processes that compute rounds, and before that fit base recommenders. No number depends on it.
    """

    out: Path
    name: str
    tracker: Tracker = field(default_factory=NullTracker)
    reporter: Reporter = field(default_factory=Reporter)
    jobs: int = 1
    watcher: Watcher = field(default_factory=Watcher)

    @property
    def cells(self) -> Path:
        """The folder of this comparison's cells."""
        return self.out / "artifacts" / self.name / "cells"

    @property
    def cache(self) -> Path:
        """The folder of what base recommenders predict, for all jobs."""
        return self.out / "cache"


def run_comparison(plan: Plan, domains: Mapping[str, Domain], job: Job) -> Comparison:
    """Compute the cells that are missing, and put all of them on record.

    Everything that can be wrong with the input is found before anything is written.

    Raises:
        InputError: the input is wrong.
    """
    plan.check(domains)
    store = CellStore(job.cells, digest_of(plan, domains))
    make_folders(job.out, job.cells, job.cache)
    job.watcher.on_begin(domains)
    there = {cell: result for cell in plan.cells() if (result := store.load(cell)) is not None}
    missing = [cell for cell in plan.cells() if cell not in there]
    # However the block ends, the store is not left half made: it waits for the thread.
    with ThreadPoolExecutor(1) as thread:
        ready = thread.submit(_get_ready, job)
        with one_thread():
            similarity = _fit_ahead(plan, domains, job, missing)
        job.watcher.on_stage("opening the store of runs", 0, 1)
        ready.result()
    with job.tracker.start_comparison(
        job.name,
        params=plan_params(plan, domains),
        description=job.reporter.description(plan, domains, job.name),
    ) as run:
        recorded = run.recorded_cells()
        with closing(_compute(plan, domains, job, store, missing)) as computed:
            for done, result in enumerate(chain(list(there.values()), computed), start=1):
                there[result.cell] = result
                key = store.key(result.cell)
                if key not in recorded:
                    run.record_cell(cell_record(key, result))
                job.watcher.on_cell(result, done, len(plan.cells()))
        results = [there[cell] for cell in plan.cells()]
        job.watcher.on_stage("the table and its intervals", 0, 1)
        comparison = Comparison(
            job.name,
            plan,
            str(domains[plan.target].scale),
            results,
            lines(plan, results),
            similarity,
            run.experiment_id,
            run.run_id,
        )
        run.log_metrics(line_metrics(comparison))
        job.reporter.report(run, comparison, domains)
    return comparison


def _get_ready(job: Job) -> None:
    """What takes seconds and needs no episodes, done by a thread while the bases are fitted by other processes."""
    with importing():
        job.tracker.open()
        job.reporter.prepare()


def _fit_ahead(
    plan: Plan, domains: Mapping[str, Domain], job: Job, missing: Collection[Cell]
) -> dict[str, dict[str, float]]:
    """Fit the bases of all worlds that something is missing in, so that workers find their predictions on disk.

    Returns:
        how alike all domains are, as the first round with the most known users shows them.
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


def _similarities(plan: Plan, domains: Mapping[str, Domain], given: Round) -> dict[str, dict[str, float]]:
    """Of every two domains by their train users, of the target by the few known users: no test user is among them."""
    few = DomainEpisodes(given.few, given.few, given.few)
    # The few have no standards of their own, and parts that only some pairs have would not be comparable.
    sides = {**{name: replace(source, standards=None) for name, source in given.sources.items()}, plan.target: few}
    return {a: {b: domain_similarity(sides[a], sides[b]).score for b in domains} for a in domains}


def _compute(
    plan: Plan, domains: Mapping[str, Domain], job: Job, store: CellStore, missing: Sequence[Cell]
) -> Generator[CellResult, None, None]:
    """The missing cells, each as soon as it is on disk."""
    rounds = list(dict.fromkeys(cell.round for cell in missing))
    jobs = min(job.jobs, len(rounds))
    if jobs <= 1:
        with one_thread():
            yield from _compute_rounds(plan, domains, job.cache, store, rounds)
        return
    with worker_pool(jobs) as pool:
        # Dealt out like cards: a worker gets the domains once, and rounds of every kind.
        running = {pool.submit(_work, plan, domains, job.cache, store, rounds[own::jobs]) for own in range(jobs)}
        waiting = list(missing)
        while running:
            done, running = wait(running, timeout=POLL_SECONDS, return_when=FIRST_COMPLETED)
            arrived = [result for cell in waiting if (result := store.load(cell)) is not None]
            yield from arrived
            waiting = [cell for cell in waiting if cell not in {result.cell for result in arrived}]
            for future in done:
                future.result()


def _work(plan: Plan, domains: Mapping[str, Domain], cache: Path, store: CellStore, rounds: Sequence[RoundKey]) -> None:
    """A worker's rounds; what comes out is on disk."""
    # The trainer's silent bar would make a lock between processes, and Python would complain of it after Ctrl-C.
    tqdm.set_lock(RLock())
    with one_thread():
        for _ in _compute_rounds(plan, domains, cache, store, rounds):
            pass


def _compute_rounds(
    plan: Plan, domains: Mapping[str, Domain], cache: Path, store: CellStore, rounds: Sequence[RoundKey]
) -> Iterator[CellResult]:
    for _, own in groupby(rounds, key=lambda key: key.world):
        maker = plan.make_rounds(domains, cache)
        for key in own:
            # Its strategies share what the sources teach.
            given = _round(plan, maker, key)
            for cell in plan.cells_of(key):
                if not store.has(cell):
                    result = compute_cell(cell, plan.target, given, plan.fusion)
                    store.save(result)
                    yield result


def _round(plan: Plan, maker: TransferRounds, key: RoundKey) -> Round:
    regime, users, seed = key.world
    return maker.round(plan.target, shots=key.shots, target_users=users, regime=regime, number=seed)
