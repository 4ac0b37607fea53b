"""Checks that the records of a study in Optuna and in MLflow agree."""

from __future__ import annotations

from collections import Counter
from typing import Any

from optuna.trial import TrialState

from metarec.evaluation.measures import RATING
from metarec.search.trials import counted_trials, join_study

__all__ = ["audit"]

ENDED = {TrialState.COMPLETE: "FINISHED", TrialState.PRUNED: "KILLED", TrialState.FAIL: "FAILED"}


def audit(name: str, storage: str, tracking_uri: str) -> dict[str, Any]:
    """The content of both stores, and under ``wrong`` each disagreement.

    Every trial that counts has one run, in the state that the trial has, with the trial's value and all its epochs. No
    run is left open, no trial has two runs, and no run is complete whose trial is not.
    """
    from mlflow import MlflowClient

    study = join_study(name, storage)
    trials = study.get_trials(deepcopy=False)
    counted = {trial.number for trial in counted_trials(study)}
    client = MlflowClient(tracking_uri)
    experiment = client.get_experiment_by_name("metarec")
    assert experiment is not None, f"there is no experiment in {tracking_uri}"
    runs = [
        run
        for run in client.search_runs([experiment.experiment_id], max_results=10_000)
        if run.data.tags.get("metarec.study") == name
    ]
    parents = [run for run in runs if run.data.tags["metarec.role"] == "study"]
    children: dict[int, list[Any]] = {}
    for run in runs:
        if run.data.tags["metarec.role"] == "trial":
            children.setdefault(int(run.data.tags["metarec.trial"]), []).append(run)
    wrong = [f"run {run.info.run_name} is still open" for run in runs if run.info.status == "RUNNING"]
    if len(parents) != 1:
        wrong.append(f"there are {len(parents)} parent runs")
    for trial in trials:
        own = children.get(trial.number, [])
        if len(own) > 1:
            wrong.append(f"trial {trial.number} has {len(own)} runs")
        if trial.number not in counted:
            wrong += [f"trial {trial.number} does not count, its run is complete" for run in own if _is_complete(run)]
            if not trial.state.is_finished() and trial.state != TrialState.WAITING:
                wrong.append(f"trial {trial.number} is still {trial.state.name.lower()}")
        elif not own:
            wrong.append(f"trial {trial.number} has no run")
        else:
            wrong += [f"trial {trial.number}: {what}" for what in _differences(client, trial, own[0])]
    extra = sorted(set(children) - {trial.number for trial in trials})
    wrong += [f"there is a run of trial {number}, which does not exist" for number in extra]
    return {
        "trials": dict(Counter(trial.state.name.lower() for trial in trials)),
        "counted": len(counted),
        "complete": sum(trial.state == TrialState.COMPLETE for trial in trials),
        "runs": dict(Counter(run.info.status for run in runs)),
        "wrong": wrong,
    }


def _is_complete(run: Any) -> bool:
    return bool(run.info.status == "FINISHED")


def _differences(client: Any, trial: Any, run: Any) -> list[str]:
    """Differences between a trial and its run."""
    found = []
    if run.info.status != ENDED[trial.state]:
        found.append(f"is {trial.state.name.lower()}, its run {run.info.status}")
    if trial.state == TrialState.COMPLETE and run.data.metrics.get(RATING.validation) != trial.value:
        found.append(f"has the value {trial.value}, its run {run.data.metrics.get(RATING.validation)}")
    if set(run.data.params) != set(trial.params):
        found.append("its run has other parameters")
    epochs = {metric.step for metric in client.get_metric_history(run.info.run_id, "val_rmse")}
    if not epochs >= set(trial.intermediate_values):
        found.append(f"has {len(trial.intermediate_values)} epochs, its run {len(epochs)}")
    return found
