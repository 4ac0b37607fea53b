"""Any Optuna study in MLflow: one parent, a run for each trial, true states; nothing is lost and nothing is twice."""

import dataclasses
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import optuna
import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from optuna.trial import TrialState

from metarec.errors import InputError
from metarec.tracking import sqlite_uri, track
from metarec.tracking._optuna import TrackedStudy
from tests.tracking.test_spool import FlakyClient

ROOT = Path(__file__).parents[2]


@pytest.fixture
def folder(new_folder):
    return new_folder()


def runs_of(folder, experiment="optuna"):
    client = MlflowClient(sqlite_uri(folder / "mlflow.db"))
    found = client.search_runs([client.get_experiment_by_name(experiment).experiment_id], max_results=500)
    parents = [run for run in found if run.data.tags["metarec.role"] == "study"]
    children = sorted((run for run in found if run not in parents), key=lambda run: int(run.data.tags["metarec.trial"]))
    return parents, children


def mixed(trial):
    """Trial 1 is pruned, trial 2 fails, the others are complete."""
    x = trial.suggest_float("x", 0, 1)
    trial.suggest_categorical("kind", ["a", "b"])
    trial.set_user_attr("note", {"number": trial.number})
    for step in range(3):
        trial.report(x + step, step)
    if trial.number == 1:
        raise optuna.TrialPruned
    if trial.number == 2:
        raise ValueError("no such thing")
    return x


def small_study(name="own", **options):
    return optuna.create_study(study_name=name, sampler=optuna.samplers.RandomSampler(seed=0), **options)


def test_each_trial_has_a_run_with_its_state_values_and_times(folder):
    study = small_study(direction="maximize")
    with track(study, folder=folder, tags={"team": "red"}) as tracked:
        study.optimize(mixed, n_trials=4, catch=ValueError, callbacks=[tracked])
        assert tracked.address.startswith("http://127.0.0.1:5000/#/experiments/")
    (parent,), children = runs_of(folder)
    assert (parent.info.status, parent.info.run_name) == ("FINISHED", "own")
    assert parent.data.params == {"sampler": "RandomSampler", "pruner": "MedianPruner", "direction": "maximize"}
    assert parent.data.metrics == {"trials": 4.0, "best_value": study.best_value}
    assert f"trial {study.best_trial.number}" in parent.data.tags["mlflow.note.content"]
    assert [run.info.status for run in children] == ["FINISHED", "KILLED", "FAILED", "FINISHED"]
    client = MlflowClient(sqlite_uri(folder / "mlflow.db"))
    for run, trial in zip(children, study.trials, strict=True):
        assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert run.data.tags["team"] == "red"
        assert run.data.tags["user.note"] == f'{{"number": {trial.number}}}'
        assert run.data.params == {name: str(value) for name, value in trial.params.items()}
        # The value of a pruned trial is its last intermediate value.
        assert run.data.metrics.get("value") == (trial.value if trial.state == TrialState.COMPLETE else None)
        curve = client.get_metric_history(run.info.run_id, "intermediate")
        assert {point.step: point.value for point in curve} == trial.intermediate_values
        assert run.info.start_time == int(trial.datetime_start.timestamp() * 1000)
        assert run.info.end_time == int(trial.datetime_complete.timestamp() * 1000)
    assert children[0].info.run_name == f"{study.trials[0].value:.4f} · trial-000"


def test_several_values_have_their_names(folder):
    study = small_study(directions=["minimize", "maximize"])
    study.set_metric_names(["loss", "speed"])
    with track(study, folder=folder, experiment="of others") as tracked:
        study.optimize(lambda trial: (trial.suggest_float("x", 0, 1), 2.0), n_trials=2, callbacks=[tracked])
    _, children = runs_of(folder, "of others")
    assert [run.data.metrics for run in children] == [{"loss": one.values[0], "speed": 2.0} for one in study.trials]


@pytest.mark.parametrize(("error", "state"), [(ValueError("planted"), "FAILED"), (KeyboardInterrupt(), "KILLED")])
def test_an_error_that_ends_the_search_is_recorded(folder, error, state):
    study = small_study()

    def objective(trial):
        if trial.number == 1:
            raise error
        return trial.suggest_float("x", 0, 1)

    with pytest.raises(type(error)), track(study, folder=folder) as tracked:
        study.optimize(objective, n_trials=3, callbacks=[tracked])
    (parent,), children = runs_of(folder)
    assert parent.info.status == state
    assert [run.info.status for run in children] == ["FINISHED", "FAILED"]


def test_trials_of_threads_are_all_there_once(folder):
    study = small_study()
    with track(study, folder=folder) as tracked:
        study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=12, n_jobs=4, callbacks=[tracked])
    _, children = runs_of(folder)
    assert [run.data.metrics["value"] for run in children] == [trial.value for trial in study.trials]


def test_a_study_goes_on_and_earlier_trials_are_recorded(folder):
    study = small_study()
    study.optimize(mixed, n_trials=3, catch=ValueError)
    for _ in range(2):
        with track(study, folder=folder) as tracked:
            study.optimize(mixed, n_trials=1, callbacks=[tracked])
    parents, children = runs_of(folder)
    assert len(parents) == 1
    assert [int(run.data.tags["metarec.trial"]) for run in children] == list(range(5))
    assert parents[0].data.metrics["trials"] == 5


def test_a_store_that_is_away_delays_no_trial_and_gets_all_later(folder):
    study = small_study()
    tracked = track(study, folder=folder)
    with tracked:
        client = tracked._tracker._client
        away = MlflowException("API request failed: connection refused")
        flaky = FlakyClient(client, [away])
        tracked._run._parent = dataclasses.replace(tracked._run._parent, client=flaky)
        tracked._run._sender._parent = tracked._run._parent
        study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=3, callbacks=[tracked])
    assert not flaky.failures
    assert [run.info.status for run in runs_of(folder)[1]] == ["FINISHED"] * 3


def test_a_store_that_is_away_at_the_end_gets_no_trial_again(folder):
    study = small_study()
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=2)
    with track(study, folder=folder):
        pass
    recorded = []
    with track(study, folder=folder) as tracked:
        tracked._run.run_ids = dict
        tracked._run.record_trial = recorded.append
    assert not recorded


def test_misuse_is_named(folder):
    study = small_study()
    tracked = track(study, folder=folder)
    with pytest.raises(InputError, match="the callback records only in its context"):
        study.optimize(lambda trial: 1.0, n_trials=1, callbacks=[tracked])
    with tracked:
        with pytest.raises(InputError, match='the callback records study "own" but got "other"'):
            small_study("other").optimize(lambda trial: 1.0, n_trials=1, callbacks=[tracked])
        with pytest.raises(RuntimeError, match="enter its context once"):
            tracked.__enter__()
    with pytest.raises(InputError, match="tracking URI"):
        track(study, "sqlite:////proc/no/mlflow.db", folder=folder).__enter__()
    assert isinstance(tracked, TrackedStudy)


WORKER = """
import os, sys, time
import optuna
from metarec.tracking import track
folder, trials = sys.argv[1], int(sys.argv[2])
storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(folder + "/optuna.journal"))
study = optuna.create_study(study_name="shared", storage=storage, load_if_exists=True)

done = 0

def objective(trial):
    global done
    done += 1
    if done == 4:
        print("begun", flush=True)
        # The test kills one of them, and then lets the other one go on.
        while trials == 1000 or not os.path.exists(folder + "/go"):
            time.sleep(0.1)
    return trial.suggest_float("x", 0, 1)

with track(study, folder=folder) as tracked:
    study.optimize(objective, n_trials=trials, callbacks=[tracked])
"""


@pytest.mark.slow
def test_two_processes_of_which_one_is_killed(folder):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}

    def worker(trials):
        command = [sys.executable, "-c", WORKER, str(folder), str(trials)]
        return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True, cwd=folder)

    killed, other = worker(1000), worker(8)
    assert killed.stdout.readline() == other.stdout.readline() == "begun\n"
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    (folder / "go").touch()
    assert other.wait(120) == 0
    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(folder / "optuna.journal")))
    study = optuna.load_study(study_name="shared", storage=storage)
    parents, children = runs_of(folder)
    assert [run.info.status for run in parents] == ["FINISHED"]
    over = [trial.number for trial in study.trials if trial.state.is_finished()]
    assert [int(run.data.tags["metarec.trial"]) for run in children] == over
    assert Counter(run.info.status for run in children) == {"FINISHED": len(over)}
    assert len(over) == 3 + 8
    # The trial that was running has no result. Once its owner ends it, it has a run.
    (lost,) = (trial for trial in study.trials if trial.state == TrialState.RUNNING)
    study.tell(lost.number, state=TrialState.FAIL)
    with track(study, folder=folder):
        pass
    assert [run.info.status for run in runs_of(folder)[1]].count("FAILED") == 1


def test_a_study_whose_run_was_deleted_goes_on_in_it(new_folder):
    folder, study = new_folder(), optuna.create_study(study_name="deleted")
    with track(study, folder=folder) as tracked:
        study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=2, callbacks=[tracked])
        assert tracked.flush() == 0
        run_id, children = tracked.run_id, tracked.run_ids()
    client = MlflowClient(tracking_uri=sqlite_uri(folder / "mlflow.db"))
    for deleted in (run_id, children[0]):
        client.delete_run(deleted)
    with track(study, folder=folder) as again:
        assert again.run_id == run_id
        assert again.run_ids() == children
