"""``python -m benchmarks.study.overhead``: the cost of Optuna and MLflow besides the trials themselves.

Two parts. *share*: the CPU time of trials of the quickstart by label, of all threads, including the one that sends to
MLflow. *growth*: a study of many trials that do nothing, and the time of each hundred of them.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import typer

from benchmarks.common.command import ending_plainly, make_folders
from benchmarks.common.folders import RESULTS, ROOT, WORK
from metarec.errors import InputError

__all__ = ["growth", "main", "share"]

BLOCK = 100

OVERHEAD = ("Optuna", "MLflow")
"""The first words of the labels that are overhead."""


def share(rounds: int, work: Path) -> dict[str, Any]:
    """Run searches of the quickstart and measure the time of their trials.

    Args:
        rounds: number of searches. work: a folder for bases' predictions and the studies.

    Returns:
        The CPU seconds of a trial by label, of all threads; and the share that Optuna and MLflow add.
    """

    from benchmarks.study.clock import TARGETS, Clock
    from metarec.report import StudyReporter
    from metarec.search.trials import run_trials
    from metarec.study.data import choose_target, read_data
    from metarec.study.job import Job, begin_search, study_input
    from metarec.study.records import FileKeeper
    from metarec.study.spec import load_spec
    from metarec.threads import one_thread
    from metarec.tracking import MlflowTracker, NullTracker

    spec = load_spec("quickstart", {})
    domains = read_data(spec)
    spec = spec.model_copy(update={"target": choose_target(spec, domains)})
    job = Job(work, "quickstart", tracker=MlflowTracker.in_folder(work))
    job.make_folders()
    prepared = study_input(spec, domains, job.workspace).prepare()
    clock = Clock()
    for name in TARGETS:
        clock.wrap_targets(import_module(name))
    objective = prepared.objective(NullTracker().start_study("s", params={}), FileKeeper(reporter=StudyReporter()))
    found: list[dict[str, float]] = []
    for number in range(rounds + 1):
        name = f"quickstart {number}"
        study = begin_search(spec, name, job.optuna_storage, identity="identity")
        with one_thread(), job.tracker.start_study(name, params={}) as run:
            recorded = objective.recorded_by(run)
            clock.begin()
            run_trials(study, recorded, lambda trial: None)
            # The time of what is still to be sent counts, too.
            run.flush(60)
            timelines = clock.timelines()
        seconds: dict[str, float] = {}
        for timeline in timelines:
            for segment in timeline.segments:
                seconds[segment.label] = seconds.get(segment.label, 0.0) + segment.cpu / len(study.trials)
        # The first round imports modules and opens stores.
        if number:
            found.append(seconds)
    labels = sorted({label for seconds in found for label in seconds})
    medians = {label: median(seconds.get(label, 0.0) for seconds in found) for label in labels}
    return {
        "rounds": rounds,
        "seconds_a_trial": medians,
        "added": {
            name: median(
                sum(part for label, part in one.items() if label.startswith(name)) / _own(one) for one in found
            )
            for name in OVERHEAD
        },
    }


def _own(seconds: Mapping[str, float]) -> float:
    """The seconds of the trials themselves."""
    return sum(part for label, part in seconds.items() if not label.startswith(OVERHEAD))


def growth(trials: int, work: Path) -> dict[str, Any]:
    """Run a study of trials that do nothing.

    Args:
        trials: their number. work: a folder for the study.
    """
    import pandas as pd

    from metarec.search.trials import run_trials
    from metarec.study.job import begin_search
    from metarec.study.records import Files, RecordedObjective, TrialResult
    from metarec.study.spec import StudySpec
    from metarec.threads import one_thread
    from metarec.tracking import MlflowTracker

    class NoFiles(Files):
        def write(self, folder: Path, reporter: Any) -> None:
            pass

    class Trivial(RecordedObjective):
        users = 1

        def value_of(self, params: Mapping[str, Any]) -> float:
            return float(params["outer_lr"] + params["dropout"])

        def _evaluate(self, trial: Any, params: Mapping[str, Any], record: Any) -> TrialResult:
            record.log_epoch(0, {"val_rmse": self.value_of(params)})
            return TrialResult(self.value_of(params), NoFiles({}, pd.DataFrame()), lambda user: 1)

    spec = StudySpec(bases={"bias": {}}, trials=trials, pruner="none")
    tracker = MlflowTracker.in_folder(work)
    tracker.open()
    study = begin_search(spec, "trivial", str(work / "trivial.journal"), identity="identity")
    start = time.perf_counter()
    ends: list[float] = []
    with one_thread(), tracker.start_study("trivial", params={}) as run:
        run_trials(study, Trivial(spec, run), lambda trial: ends.append(time.perf_counter() - start))
        waiting = run.flush(600)
        whole = time.perf_counter() - start
        recorded = len(run.run_ids())
    marks = [0.0, *ends[BLOCK - 1 :: BLOCK]]
    return {
        "trials": len(ends),
        "recorded": recorded,
        "waiting": waiting,
        "milliseconds_a_trial": 1000 * whole / len(ends),
        "milliseconds_by_block": [1000 * (end - begin) / BLOCK for begin, end in pairwise(marks)],
        "last_s": whole - ends[-1],
    }


def main(
    rounds: Annotated[int, typer.Option(metavar="N", min=1, help="How often the quickstart's trials are run.")] = 5,
    trials: Annotated[int, typer.Option(metavar="N", min=BLOCK, help="Trials that do nothing.")] = 1000,
    work: Annotated[Path, typer.Option(metavar="DIR", help="Where the studies go; a new folder.")] = WORK / "/overhead",
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where the report goes.")] = RESULTS,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="All numbers; by default in --out.")
    ] = None,
) -> None:
    """Measure what Optuna and MLflow cost.

    Exit codes: 0 done; 2 bad input; 130 interrupted.
    """
    with ending_plainly("begin again with another --work"):
        from benchmarks.common.machine import describe_run

        if work.exists():
            raise InputError(f"--work {work} is there already; give a new folder")
        target = json_file or out / "study_overhead.json"
        make_folders(work, out, target.absolute().parent)
        report: dict[str, Any] = {
            "benchmark": "study_overhead",
            "run": describe_run("benchmarks.study.overhead", sys.argv[1:], ("optuna", "mlflow", "torch"), ROOT),
            "growth": growth(trials, work),
            "share": share(rounds, work),
        }
        target.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
        added = report["share"]["added"]
        typer.echo(", ".join(f"{name} {part:+.1%}" for name, part in added.items()) + " to a trial of the quickstart")
        grown = report["growth"]
        blocks = grown["milliseconds_by_block"]
        typer.echo(
            f"{grown['trials']} trivial trials: {grown['milliseconds_a_trial']:.0f} ms each; "
            f"the first hundred {blocks[0]:.0f} ms, the last {blocks[-1]:.0f} ms each"
        )


if __name__ == "__main__":
    typer.run(main)
