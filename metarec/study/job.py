"""The main job: from a spec to a table, with every trial of the search on record."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import optuna
import torch
from optuna.trial import FrozenTrial, TrialState

from metarec.errors import InputError
from metarec.importing import importing
from metarec.ratings import Domain
from metarec.study.champion import champion_uri, keep_model
from metarec.study.data import choose_target, identity_of
from metarec.study.ensemble import member_trials
from metarec.study.folders import make_folders
from metarec.study.naming import study_tags
from metarec.study.network_subject import NetworkSubject
from metarec.study.processes import run_in_processes, stopping_politely
from metarec.study.ray_workers import run_on_ray
from metarec.study.recorded_trial import EXPERIMENT_ID, RUN_ID, RecordedObjective, facts_of
from metarec.study.records import record_beginning, record_result
from metarec.study.results import StudyResult
from metarec.study.search import counted_trials, open_study, run_trials, wanted_trials
from metarec.study.spec import StudySpec
from metarec.study.storage import end_stale_trials, open_storage
from metarec.study.story import study_description
from metarec.study.subject import Keep, Subject, Surroundings
from metarec.study.tracking import NullTracker, StudyRun, Tracker
from metarec.study.transfer_subject import TransferSubject
from metarec.study.trial_files import FileKeeper
from metarec.study.warm_start import first_trials
from metarec.threads import one_thread
from metarec.workers import worker_pool

__all__ = [
    "Job",
    "StudyFailed",
    "Watcher",
    "make_subject",
    "run_search",
    "run_study",
]

logger = logging.getLogger(__name__)

NEEDED_LATER = ("metarec.study.pictures", "metarec.fusion.blend")
"""Our modules that bring a library which is not needed before the first trial has ended."""


class StudyFailed(RuntimeError):
    """The search ended without one trial that can be scored."""


class Watcher:
    """What a study tells while it runs; the command line draws it, the library is silent."""

    def on_begin(self, domains: Mapping[str, Domain]) -> None:
        """The input is good: the work on these domains begins."""

    def on_episodes(self, done: int, total: int, what: str) -> None:
        """A base recommender has been fitted and asked."""

    def on_trial(self, trial: FrozenTrial, done: int, total: int) -> None:
        """A trial has ended."""

    def on_stage(self, what: str) -> None:
        """Something else that takes a while begins."""

    def on_stopping(self) -> None:
        """It was asked to stop, and does so when the running trials have ended."""


@dataclass
class Job:
    """Where a study keeps things, and who is told.

    Args:
        out: the folder for ``artifacts/``, ``optuna.journal`` and ``cache/`` (and ``mlflow.db``, by its tracker).
        study_name: continued where it exists.
        storage: URL of an Optuna storage in place of the journal in `out`.
        ray: address of the Ray cluster that runs the trials, or ``local`` for one that is started here.
        tracker: records the runs.
        jobs: processes that fit base recommenders. While the search runs, all but one of them fit the baselines and
            write the trials' files; with 1, this process does everything itself.
    """

    out: Path
    study_name: str
    storage: str | None = None
    ray: str | None = None
    tracker: Tracker = field(default_factory=NullTracker)
    jobs: int = 1
    watcher: Watcher = field(default_factory=Watcher)

    @property
    def folder(self) -> Path:
        """What belongs to this study alone."""
        return self.out / "artifacts" / self.study_name

    @property
    def optuna_storage(self) -> str:
        """The URL of a database, or the path of the journal."""
        return self.storage or str(self.out / "optuna.journal")

    def make_folders(self) -> None:
        """Make the folders that the job writes to.

        Raises:
            InputError: one cannot be made or written.
        """
        make_folders(self.out, self.out / "artifacts", self.out / "cache", self.folder / "networks")


def run_study(spec: StudySpec, domains: Mapping[str, Domain], job: Job) -> StudyResult:
    """Search, choose on validation users, and score the chosen configuration once on the test users.

    Everything that can be wrong with the input is found before anything is written.

    Raises:
        InputError: the input is wrong.
        StudyFailed: no trial came to an end that can be scored.
    """
    spec = spec.model_copy(update={"target": choose_target(spec, domains)})
    subject = make_subject(spec, domains, job)
    if job.storage is not None:
        # Only to see that it answers, before anything is written.
        open_storage(job.storage)
    first = first_trials(spec, job.study_name, job.optuna_storage)
    job.make_folders()
    study = open_study(spec, job.study_name, job.optuna_storage, identity_of(spec, domains), first)

    job.watcher.on_begin(domains)
    # However the block ends, the store is not left half made: it waits for the thread.
    with ThreadPoolExecutor(1) as thread:
        ready = thread.submit(_get_ready, job.tracker)
        subject.prepare()
        job.watcher.on_stage("opening the store of runs")
        ready.result()
    with (
        job.tracker.start_study(
            job.study_name,
            params=_flat(spec),
            tags=study_tags(spec),
            description=study_description(spec, domains, job.study_name),
        ) as run,
        # One core is the search's own.
        worker_pool(job.jobs - 1) if job.jobs > 1 else nullcontext() as processes,
        FileKeeper(processes) as keeper,
    ):
        objective = subject.objective(run, keeper, processes)

        if run.run_id is not None:
            study.set_user_attr(EXPERIMENT_ID, run.experiment_id)
            study.set_user_attr(RUN_ID, run.run_id)
        record_beginning(run, spec, domains)
        _reconcile(study, run)
        try:
            run_search(study, objective, job)
        finally:
            _reconcile(study, run)
        with one_thread():
            result, keep = _score(spec, study, subject, job, run)
        record_result(run, spec, result, domains)
        if keep is not None and run.run_id is not None:
            try:
                keep_model(run, job.study_name, keep)
                result = replace(result, model=champion_uri(job.study_name))
            except InputError as error:
                # The study is done; what a plug-in lacks must not take its table away.
                logger.warning("no model is kept: %s", error)
    return result


def _reconcile(study: optuna.Study, run: StudyRun) -> None:
    """What was killed, before this session or in it, is ended in the runs, too."""
    end_stale_trials(study)
    for line in run.reconcile(facts_of(study)):
        logger.info(line)


def run_search(study: optuna.Study, objective: RecordedObjective, job: Job) -> None:
    """Run trials in as many processes as the spec says.

    Raises:
        KeyboardInterrupt: it was asked to stop. Asked once, the running trials have ended.
    """
    spec = objective.spec
    deadline = time.monotonic() + spec.timeout if spec.timeout else math.inf

    def on_trial(trial: FrozenTrial) -> None:
        job.watcher.on_trial(trial, len(counted_trials(study)), wanted_trials(study))

    with stopping_politely(job.watcher.on_stopping) as asked:
        if spec.workers == 1 and job.ray is None:
            run_trials(study, objective, on_trial, deadline=deadline, stopping=asked)
        else:
            run = run_in_processes if job.ray is None else partial(run_on_ray, job.ray)
            run(
                spec.workers,
                study,
                objective,
                job.tracker,
                job.optuna_storage,
                on_trial,
                deadline=deadline,
                stopping=asked,
            )
        if asked():
            raise KeyboardInterrupt


def make_subject(spec: StudySpec, domains: Mapping[str, Domain], job: Job) -> Subject:
    """What the study searches; the input is checked.

    Raises:
        InputError: the input is wrong.
    """
    around = Surroundings(
        job.out / "cache", job.folder / "networks", job.jobs, job.watcher.on_episodes, job.watcher.on_stage
    )
    return (NetworkSubject if spec.transfer is None else TransferSubject)(spec, domains, around)


def _get_ready(tracker: Tracker) -> None:
    """What takes seconds and needs no episodes, done by a thread while the bases are fitted by other processes."""
    with importing():
        tracker.open()
        for module in NEEDED_LATER:
            import_module(module)
        # With the first optimizer torch imports its compiler.
        torch.optim.Adam([torch.zeros(1)])


def _score(
    spec: StudySpec, study: optuna.Study, subject: Subject, job: Job, run: StudyRun
) -> tuple[StudyResult, Keep | None]:
    """What came out, and what keeps the model."""
    trials = counted_trials(study)
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    if not complete:
        raise StudyFailed(
            f'none of the {len(trials)} trials of study "{job.study_name}" came to an end that can be scored; '
            "their runs say why"
        )
    outcome = subject.score(complete)
    predictions = job.folder / "predictions.parquet"
    predictions.parent.mkdir(parents=True, exist_ok=True)
    outcome.rows.to_parquet(predictions)
    result = StudyResult(
        job.study_name,
        spec.target or "",
        trials,
        member_trials(complete)[0],
        outcome.test,
        outcome.settings,
        outcome.engines,
        predictions.resolve(),
        run.experiment_id,
        run.run_id,
        run.run_ids(),
        outcome.insight,
    )
    return result, outcome.keep


def _flat(spec: StudySpec) -> dict[str, Any]:
    """The whole spec as dotted keys, for the record."""

    def walk(prefix: str, value: Any) -> dict[str, Any]:
        if isinstance(value, dict) and value:
            return {key: leaf for name, inner in value.items() for key, leaf in walk(f"{prefix}{name}.", inner).items()}
        return {prefix.rstrip("."): value}

    return walk("", spec.model_dump(mode="json"))
