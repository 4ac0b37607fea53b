"""The main job: from a spec to a table, with a record of every trial."""

from __future__ import annotations

import logging
import math
import shutil
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import optuna
import torch
from optuna.trial import FrozenTrial

from metarec.episodes import assign_ratings, assign_roles
from metarec.errors import InputError, check_name
from metarec.evaluation.measures import Measure
from metarec.files import dotted, make_folders, write_whole
from metarec.importing import importing
from metarec.model.mlflow_model import DIGEST
from metarec.ratings import Domain
from metarec.search import error_of, ranked
from metarec.search.runners import Work, run_in_processes, run_on_ray, stopping_politely
from metarec.search.storage import end_stale_trials, open_storage
from metarec.search.trials import counted_trials, open_study, run_trials, wanted_trials
from metarec.search.warm_start import first_trials
from metarec.study.bases import BaseSearch, base_cells, tune_bases
from metarec.study.data import FREE, data_of, domains_of, identity_of, settled
from metarec.study.networks import NetworkInput
from metarec.study.protocols import protocol_of
from metarec.study.records import EXPERIMENT_ID, FileKeeper, RecordedObjective, facts_of, record_table, study_tags
from metarec.study.reporter import Reporter
from metarec.study.results import RUN_ID, StudyResult, TunedBase, complete_trials
from metarec.study.spec import StudySpec
from metarec.study.stages import Keep, Outcome, StudyInput, Workspace
from metarec.study.transfer import TransferInput
from metarec.threads import one_thread
from metarec.tracking import Dataset, NullTracker, StudyRun, Tracker, champion_uri, model_name
from metarec.workers import worker_pool

__all__ = [
    "Checked",
    "Job",
    "StudyFailed",
    "Watcher",
    "base_search",
    "begin_search",
    "checked",
    "run_search",
    "run_study",
    "study_input",
    "with_tuned",
]

logger = logging.getLogger(__name__)

SPEC_FILE = "study.yaml"
"""The artifact of a study's run with which it can be repeated."""

MODEL = "model"
"""The folder of the model among the artifacts of a study's run."""


class StudyFailed(RuntimeError):
    """The search ended without a complete trial."""


class Watcher:
    """Callbacks of a running study, for the progress on the command line. The library prints nothing."""

    def on_begin(self, domains: Mapping[str, Domain]) -> None:
        """The input is valid; the work on these domains begins."""

    def on_episodes(self, done: int, total: int, what: str) -> None:
        """A base recommender has been fitted and has predicted."""

    def on_trial(self, trial: FrozenTrial, ended: Sequence[FrozenTrial], total: int, measure: Measure) -> None:
        """A trial has ended; `ended` are all trials of the study that have, also in earlier runs of the command."""

    def on_stage(self, what: str) -> None:
        """Another stage begins."""

    def on_stopping(self) -> None:
        """A stop was requested; the job stops when the running trials have ended."""


@dataclass
class Job:
    """The folders, stores and callbacks of a study.

    Args:
        out: the folder for ``artifacts/``, ``optuna.journal`` and ``cache/`` (and the tracker's ``mlflow.db``).
        study_name: an existing study of this name is continued.
        storage: URL of an Optuna storage in place of the journal in `out`.
        ray: address of the Ray cluster that runs the trials; ``local`` starts one here.
        tracker: records the runs. reporter: writes descriptions, pictures and pages.
        jobs: processes that fit base recommenders. During the search, all but one of them fit the baselines and write
            the trials' files; with 1, this process does everything.

    Raises:
        InputError: `study_name` breaks the rule of :func:`~metarec.errors.check_name`.
    """

    out: Path
    study_name: str
    storage: str | None = field(default=None, repr=False)
    ray: str | None = None
    tracker: Tracker = field(default_factory=NullTracker)
    reporter: Reporter = field(default_factory=Reporter)
    jobs: int = 1
    watcher: Watcher = field(default_factory=Watcher)

    def __post_init__(self) -> None:
        check_name("the name of a study", self.study_name)

    @property
    def folder(self) -> Path:
        """The folder of this study alone."""
        return self.out / "artifacts" / self.study_name

    @property
    def optuna_storage(self) -> str:
        """The URL of a database, or the path of the journal."""
        return self.storage or str(self.out / "optuna.journal")

    @property
    def workspace(self) -> Workspace:
        """The workspace of the study."""
        networks = self.folder / "networks"
        return Workspace(self.out / "cache", networks, self.jobs, self.watcher.on_episodes, self.watcher.on_stage)

    def make_folders(self) -> None:
        """Make the folders that the job writes to.

        Raises:
            InputError: one cannot be made or written.
        """
        make_folders(self.out, self.out / "artifacts", self.out / "cache", self.folder / "networks")


def run_study(spec: StudySpec, domains: Mapping[str, Domain], job: Job) -> StudyResult:
    """Search, choose on validation users, and score the proposed model once on the test users.

    All input is checked before anything is written.

    Raises:
        InputError: the input is wrong.
        StudyFailed: no trial is complete.
    """
    spec, domains, given, tuning = checked(spec, domains, job)
    if job.storage is not None:
        # This checks the connection before anything is written.
        open_storage(job.storage)
    first = first_trials(
        spec.warm_start, spec.first_trials, spec.space, name=job.study_name, storage=job.optuna_storage
    )
    job.make_folders()
    study = begin_search(spec, job.study_name, job.optuna_storage, identity=identity_of(spec, domains), first=first)
    job.watcher.on_begin(domains)
    _log_begin(spec, domains, study)
    # The block waits for the thread, so that the store is never half made.
    with ThreadPoolExecutor(1) as thread:
        ready = thread.submit(_get_ready, job)
        tuned: Mapping[str, TunedBase] = {}
        if tuning is not None:
            tuned = tune_bases(tuning, jobs=job.jobs, on_progress=job.watcher.on_episodes)
            given = study_input(with_tuned(spec, tuned), domains, job.workspace)
        prepared = given.prepare()
        job.watcher.on_stage("opening the store of runs")
        ready.result()
    with (
        job.tracker.start_study(
            job.study_name,
            params=dotted(spec.model_dump(mode="json")),
            tags=study_tags(spec),
            description=job.reporter.description(spec, domains, job.study_name),
            run_id=study.user_attrs.get(RUN_ID),
        ) as run,
        # The search needs one core.
        worker_pool(job.jobs - 1) if job.jobs > 1 else nullcontext() as processes,
        FileKeeper(processes, reporter=job.reporter) as keeper,
    ):
        _record_input(run, spec, domains)
        recorded = run.recorded_cells() if tuned else set()
        for cell in base_cells(tuned, spec.measure):
            if cell.key not in recorded:
                run.record_cell(cell)
        searched = prepared.search(partial(_search, study, job, run), run=run, keeper=keeper, processes=processes)
        with one_thread():
            outcome = searched.score()
        result = _result(spec, study, job, run, outcome, tuned)
        record_table(run, result)
        job.reporter.report(run, spec, result, domains)
        if outcome.keep is not None and run.run_id is not None:
            try:
                _keep_model(run, result, outcome.keep, job.reporter.describe_model(result, domains))
                result = replace(result, model_uri=champion_uri(job.study_name))
            except InputError as error:
                # The study is finished; an incomplete plug-in must not discard its table.
                logger.warning("no model is kept: %s", error)
        run.finish("complete", value=result.value)
    return result


def _log_begin(spec: StudySpec, domains: Mapping[str, Domain], study: optuna.Study) -> None:
    """Log how the users are split, and where a study goes on."""
    if spec.transfer is None:
        for line in protocol_of(spec, domains).lines():
            logger.info("%s", line)
    ended = counted_trials(study)
    if ended:
        complete = ranked(complete_trials(ended))
        best = f"; the best is trial {complete[0].number}, " if complete else ""
        value = spec.measure.validation_text(spec.measure.shown(error_of(complete[0]))) if complete else ""
        logger.info("going on: %d of %d trials have ended%s%s", len(ended), wanted_trials(study), best, value)


class Checked(NamedTuple):
    """A study that can begin: its spec with target and task, its domains as the task reads them, and its stages."""

    spec: StudySpec
    domains: Mapping[str, Domain]
    given: StudyInput
    tuning: BaseSearch | None


def checked(spec: StudySpec, domains: Mapping[str, Domain], job: Job) -> Checked:
    """Check all input of a study; nothing is written.

    Raises:
        InputError: the input is wrong.
    """
    spec = settled(spec, domains)
    domains = domains_of(spec, domains)
    return Checked(spec, domains, study_input(spec, domains, job.workspace), base_search(spec, domains, job))


def begin_search(
    spec: StudySpec, name: str, storage: str, *, identity: str, first: Sequence[Mapping[str, Any]] | None = None
) -> optuna.Study:
    """The Optuna study of a spec: a new one, or the existing one of this name.

    Args:
        identity: from :func:`~metarec.study.data.identity_of`. first: the first trials; by default those of the spec.

    Raises:
        InputError: the study of this name has other data or settings, or the storage does not answer.
    """
    return open_study(
        name,
        storage,
        spec.search_settings,
        identity=identity,
        first_trials=spec.first_trials if first is None else first,
        spec=spec.model_dump(mode="json"),
        free=FREE,
    )


def study_input(spec: StudySpec, domains: Mapping[str, Domain], workspace: Workspace) -> StudyInput:
    """The checked input of a study of fusion networks, or of transfer strategies if the spec has `transfer`.

    Raises:
        InputError: the input is wrong.
    """
    check_name("the name of a domain", *domains)
    return (NetworkInput if spec.transfer is None else TransferInput)(spec, domains, workspace)


def base_search(spec: StudySpec, domains: Mapping[str, Domain], job: Job) -> BaseSearch | None:
    """The search of the bases' settings, on the users of the target; None if the spec has no `tune_bases`.

    Raises:
        InputError: a plug-in's `searched` breaks a rule.
    """
    if not spec.tune_bases:
        return None
    target = spec.target or ""
    search = BaseSearch(
        job.study_name,
        job.optuna_storage,
        domains[target],
        assign_ratings(domains[target], spec.episodes, spec.held_out, spec.seed)
        if spec.protocol == "warm"
        else assign_roles(domains, target, spec.episodes, spec.seed),
        spec.task or "rating",
        spec.episodes,
        spec.bases,
        spec.tune_bases,
        spec.seed,
    )
    search.searched()
    return search


def with_tuned(spec: StudySpec, tuned: Mapping[str, TunedBase]) -> StudySpec:
    """The spec with the settings of the bases that validation users chose."""
    bases = {**spec.bases, **{name: dict(own.options) for name, own in tuned.items()}}
    return spec.model_copy(update={"bases": bases})


def run_search(study: optuna.Study, objective: RecordedObjective, job: Job) -> None:
    """Run trials in the spec's number of processes.

    Raises:
        KeyboardInterrupt: a stop was requested. After a single request the running trials have ended.
    """
    spec = objective.spec
    deadline = time.monotonic() + spec.timeout if spec.timeout else math.inf

    def on_trial(trial: FrozenTrial) -> None:
        job.watcher.on_trial(trial, counted_trials(study), wanted_trials(study), spec.measure)

    with stopping_politely(job.watcher.on_stopping) as stopping:
        if spec.workers == 1 and job.ray is None:
            run_trials(study, objective, on_trial, deadline=deadline, stopping=stopping)
        else:
            run = run_in_processes if job.ray is None else partial(run_on_ray, job.ray)
            work = Work.of(study, job.optuna_storage, objective, job.tracker)
            run(spec.workers, study, work, on_trial, deadline=deadline, stopping=stopping)


def _search(study: optuna.Study, job: Job, run: StudyRun, objective: RecordedObjective) -> Sequence[FrozenTrial]:
    """Run the trials of a study, and return the complete ones."""
    if run.run_id is not None:
        study.set_user_attr(EXPERIMENT_ID, run.experiment_id)
        study.set_user_attr(RUN_ID, run.run_id)
    _reconcile(study, run)
    try:
        run_search(study, objective, job)
    finally:
        _reconcile(study, run)
    trials = counted_trials(study)
    complete = complete_trials(trials)
    if not complete:
        raise StudyFailed(
            f'none of the {len(trials)} trials of study "{job.study_name}" is complete; their runs have the reasons'
        )
    return complete


def _reconcile(study: optuna.Study, run: StudyRun) -> None:
    """End trials that were killed, in Optuna and in the runs."""
    end_stale_trials(study)
    for line in run.reconcile(facts_of(study)):
        logger.info(line)


def _get_ready(job: Job) -> None:
    """Open the store and import libraries. A thread does it while other processes fit the bases."""
    with importing():
        job.tracker.open()
        job.reporter.prepare()
        # Its libraries are not needed before the first trial has ended.
        import_module("metarec.fusion.blend")
        # With the first optimizer torch imports its compiler.
        torch.optim.Adam([torch.zeros(1)])


def _record_input(run: StudyRun, spec: StudySpec, domains: Mapping[str, Domain]) -> None:
    """Record the data of a study, and the file with which it can be repeated."""
    run.log_datasets([_dataset(spec, **facts) for facts in data_of(domains)])
    with run.artifacts() as folder:
        (folder / SPEC_FILE).write_text(spec.as_yaml())


def _dataset(spec: StudySpec, domain: str, **profile: Any) -> Dataset:
    source = spec.domains if isinstance(spec.domains, str) else spec.domains.get(domain, "")
    return Dataset(domain, profile["fingerprint"], source, profile)


def _result(
    spec: StudySpec, study: optuna.Study, job: Job, run: StudyRun, outcome: Outcome, tuned: Mapping[str, TunedBase]
) -> StudyResult:
    # A link there is replaced and not followed: the report is written beside this file.
    predictions = job.folder.resolve() / "predictions.parquet"
    write_whole(predictions, outcome.rows.to_parquet())
    trials = counted_trials(study)
    return StudyResult(
        job.study_name,
        spec.target or "",
        trials,
        ranked(complete_trials(trials))[0],
        outcome.test,
        outcome.settings,
        outcome.engines,
        predictions,
        run.experiment_id,
        run.run_id,
        run.run_ids(),
        outcome.insight,
        bases=tuned,
        tracking_uri=job.tracker.tracking_uri,
    )


def _keep_model(run: StudyRun, result: StudyResult, keep: Keep, about: str) -> None:
    """Save the proposed model among the run's artifacts, and register it as the champion of its name.

    Each model has a folder of its own: a study that goes on would mix the files of two models in one.
    """
    with run.artifacts() as folder:
        digest = keep(folder / MODEL)
        # Its source files are in the same folder.
        for other in folder.iterdir():
            if other.name != MODEL:
                shutil.rmtree(other)
        name = f"{MODEL}-{digest[:12]}"
        (folder / MODEL).rename(folder / name)
    tags = {DIGEST: digest, "study": result.name, "target": result.target, result.measure.key: f"{result.value:.4f}"}
    run.register(name, model_name(result.name), tags, about)
