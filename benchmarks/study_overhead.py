"""``python -m benchmarks.study_overhead``: what Optuna and MLflow cost, beside the trials themselves.

Two parts. *share*: the trials of the quickstart, computed without either, with Optuna, and with both, one after the
other and again; the processor's time of all threads counts, so that what is sent to MLflow meanwhile counts, too.
*growth*: a study of many trials that do nothing, with both, and what each hundred of them took.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from itertools import pairwise
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Annotated, Any, NamedTuple

import typer

from benchmarks._command import ending_plainly, make_folders
from metarec.errors import InputError

__all__ = ["growth", "main", "share"]

HERE = Path(__file__).parent
BLOCK = 100


class Cost(NamedTuple):
    """Seconds of the processor, of all threads, and of the clock."""

    processor: float
    clock: float

    @classmethod
    def of(cls, work: Callable[[], object]) -> Cost:
        """What it costs."""
        processor, clock = time.process_time(), time.perf_counter()
        work()
        return cls(time.process_time() - processor, time.perf_counter() - clock)


def share(rounds: int, work: Path) -> dict[str, Any]:
    """The quickstart's trials, with and without.

    Args:
        rounds: how often. work: a folder for bases' predictions and the studies.
    """
    from metarec.study.data import choose_target, read_data
    from metarec.study.job import Job, make_subject
    from metarec.study.spec import load_spec
    from metarec.study.tracking import MlflowTracker, NullTracker, Tracker
    from metarec.study.trial_files import FileKeeper

    spec = load_spec("quickstart", {})
    domains = read_data(spec)
    spec = spec.model_copy(update={"target": choose_target(spec, domains)})
    job = Job(work, "quickstart")
    job.make_folders()
    subject = make_subject(spec, domains, job)
    subject.prepare()
    objective: Any = subject.objective(NullTracker().start_study("s", params={}), FileKeeper(), None)
    trackers: Mapping[str, Tracker] = {"optuna": NullTracker(), "optuna and mlflow": MlflowTracker.in_folder(work)}
    costs: dict[str, list[Cost]] = {"neither": [], **{name: [] for name in trackers}}
    trials: list[Any] = []
    for number in range(rounds + 1):
        measured = {}
        for name, tracker in trackers.items():
            measured[name], trials = _searched(spec, objective, tracker, f"{name} {number}", work)
        measured["neither"] = Cost.of(partial(_computed, objective, trials))
        # What is imported and opened once is no trial's.
        if number:
            for name, cost in measured.items():
                costs[name].append(cost)
    ended = {state: sum(trial.state.name == state for trial in trials) for state in ("COMPLETE", "PRUNED", "FAIL")}
    return {
        "trials": ended,
        "rounds": rounds,
        "costs": {name: [cost._asdict() for cost in some] for name, some in costs.items()},
        "overhead": {
            name: {
                kind: median(
                    getattr(cost, kind) / getattr(bare, kind) for cost, bare in zip(some, costs["neither"], strict=True)
                )
                - 1
                for kind in Cost._fields
            }
            for name, some in costs.items()
            if name != "neither"
        },
    }


def _searched(spec: Any, objective: Any, tracker: Any, name: str, work: Path) -> tuple[Cost, list[Any]]:
    """A search of its own, and its trials; what is still to be sent to the store at its end counts."""
    from metarec.study.search import open_study, run_trials
    from metarec.threads import one_thread

    study = open_study(spec, name, str(work / "optuna.journal"), "identity")
    with one_thread(), tracker.start_study(name, params={}) as run:
        recorded = objective.recorded_by(run)

        def search() -> None:
            run_trials(study, recorded, lambda trial: None)
            run.flush(60)

        return Cost.of(search), study.trials


def _computed(objective: Any, trials: list[Any]) -> None:
    """The same work without a study: networks up to the same epoch, and the files of complete trials."""
    from metarec.threads import one_thread

    class EnoughError(Exception):
        pass

    for trial in trials:
        last = max(trial.intermediate_values, default=-1) if trial.state.name == "PRUNED" else None

        def on_epoch(learner: Any, epoch: int, metrics: Any, last: int | None = last) -> None:
            if epoch == last:
                raise EnoughError

        with one_thread(), TemporaryDirectory() as folder:
            try:
                learner, curves, _ = objective.fit(trial.params, on_epoch)
            except EnoughError:
                continue
            objective.files(learner, trial.params, curves).write(Path(folder))


def growth(trials: int, work: Path) -> dict[str, Any]:
    """A study of trials that do nothing.

    Args:
        trials: how many. work: a folder for it.
    """
    from metarec.study.recorded_trial import Judged, RecordedObjective
    from metarec.study.search import open_study, run_trials
    from metarec.study.spec import StudySpec
    from metarec.study.tracking import MlflowTracker
    from metarec.threads import one_thread

    class NoFiles:
        def write(self, folder: Path) -> None:
            pass

    class Trivial(RecordedObjective):
        users = 1

        def recorded_by(self, run: Any) -> Any:
            return Trivial(self.spec, run, None)

        def value_of(self, params: Mapping[str, Any]) -> float:
            return float(params["outer_lr"] + params["dropout"])

        def _judge(self, trial: Any, params: Mapping[str, Any], record: Any) -> Judged:
            record.log_epoch(0, {"val_rmse": self.value_of(params)})
            return Judged(self.value_of(params), NoFiles(), lambda user: 1)

    spec = StudySpec(bases={"bias": {}}, trials=trials, pruner="none")
    tracker = MlflowTracker.in_folder(work)
    tracker.open()
    study = open_study(spec, "trivial", str(work / "trivial.journal"), "identity")
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
    work: Annotated[Path, typer.Option(metavar="DIR", help="Where the studies go; a new folder.")] = HERE
    / "work/overhead",
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where the report goes.")] = HERE / "results",
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="All numbers; by default in --out.")
    ] = None,
) -> None:
    """Measure what Optuna and MLflow cost.

    Exit codes: 0 done; 2 bad input; 130 interrupted.
    """
    with ending_plainly("begin again with another --work"):
        from benchmarks._machine import describe_run

        if work.exists():
            raise InputError(f"--work {work} is there already; give a new folder")
        target = json_file or out / "study_overhead.json"
        make_folders(work, out, target.absolute().parent)
        report: dict[str, Any] = {
            "benchmark": "study_overhead",
            "run": describe_run("benchmarks.study_overhead", sys.argv[1:], ("optuna", "mlflow", "torch"), HERE.parent),
            "share": share(rounds, work),
            "growth": growth(trials, work),
        }
        target.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
        for name, cost in report["share"]["overhead"].items():
            typer.echo(f"{name}: {cost['processor']:+.1%} of the processor's time, {cost['clock']:+.1%} of the clock's")
        grown = report["growth"]
        blocks = grown["milliseconds_by_block"]
        typer.echo(
            f"{grown['trials']} trivial trials: {grown['milliseconds_a_trial']:.0f} ms each; "
            f"the first hundred {blocks[0]:.0f} ms, the last {blocks[-1]:.0f} ms each"
        )


if __name__ == "__main__":
    typer.run(main)
