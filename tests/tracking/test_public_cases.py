"""Studies after reports to Optuna and MLflow, which docs/decisions/010-cases-from-public-reports.md lists.

Each case is named by its report.
"""

import math
import time

import optuna
import pytest
from mlflow import MlflowClient

from metarec.tracking import sqlite_uri, track


def without_a_number(trial):
    trial.suggest_float("x", 0, 1)
    return math.nan


def without_a_value(trial):
    pass


def before_the_first_step(trial):
    trial.report(1.0, -1)


def with_a_long_parameter(trial):
    trial.suggest_categorical("layers", ["a" * 7000])
    return 1.0


def with_unusual_names(trial):
    return trial.suggest_int("lr [1/s] ü?:*&%'\"<>|\\", 1, 1) + trial.suggest_int("a" * 300, 1, 1)


def with_names_that_are_alike(trial):
    return trial.suggest_int("y", 1, 1) + trial.suggest_int("Y", 2, 2) + trial.suggest_int("y ", 3, 3)


def with_reserved_attributes(trial):
    trial.set_user_attr("metarec.role", "study")
    trial.set_user_attr("mlflow.runName", "other")
    return 1.0


# fmt: off
OBJECTIVES = {
    "Optuna 2727, 3779": (without_a_number, "FAILED", None),
    "Optuna pull request 863": (without_a_value, "FAILED", None),
    "a negative step": (before_the_first_step, "FAILED", None),
    "mlflow 10512, 3931": (with_a_long_parameter, "FINISHED", 1),
    "mlflow 4879": (with_unusual_names, "FINISHED", 2),
    "names that are alike": (with_names_that_are_alike, "FINISHED", 6),
    "reserved attributes": (with_reserved_attributes, "FINISHED", 1),
}
# fmt: on


def runs_of(folder):
    """Status, value and number of parameters by trial; None is the study."""
    client = MlflowClient(sqlite_uri(folder / "mlflow.db"))
    found = client.search_runs([client.get_experiment_by_name("optuna").experiment_id])
    return {
        run.data.tags.get("metarec.trial"): (run.info.status, run.data.metrics.get("value"), len(run.data.params))
        for run in found
    }


def test_a_trial_of_each_kind_has_its_run(new_folder):
    folder = new_folder()
    objectives = list(OBJECTIVES.values())
    study = optuna.create_study(study_name="own", sampler=optuna.samplers.RandomSampler(seed=0))
    with track(study, folder=folder) as tracked:
        study.optimize(
            lambda trial: objectives[trial.number][0](trial),
            n_trials=len(objectives),
            catch=(ValueError,),
            callbacks=[tracked],
        )
    runs = runs_of(folder)
    assert len(runs) == len(objectives) + 1
    for number, (case, (_, status, value)) in enumerate(OBJECTIVES.items()):
        assert runs[str(number)] == (status, value, len(study.trials[number].params)), case


def test_a_study_without_a_complete_trial_is_recorded(new_folder):
    """After Optuna 2151."""
    folder = new_folder()
    study = optuna.create_study(study_name="own")
    with track(study, folder=folder) as tracked:
        study.optimize(without_a_value, n_trials=1, callbacks=[tracked])
    assert {trial: run[0] for trial, run in runs_of(folder).items()} == {None: "FINISHED", "0": "FAILED"}


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning", "ignore:Fixed parameter:UserWarning")
@pytest.mark.filterwarnings("ignore:Heartbeat of storage:UserWarning")
def test_trials_that_were_not_sampled_have_their_runs(new_folder):
    """After Optuna 2131, 3198, 3298, 3770 and 4234, and mlflow 25830: added, enqueued, out of range, stale, waiting."""
    folder = new_folder()
    storage = optuna.storages.RDBStorage(f"sqlite:///{folder}/own.db", heartbeat_interval=1, grace_period=1)
    study = optuna.create_study(study_name="own", storage=storage, sampler=optuna.samplers.RandomSampler(seed=0))
    storage.record_heartbeat(study.ask()._trial_id)
    distributions = {"x": optuna.distributions.FloatDistribution(0, 1)}
    study.add_trial(optuna.trial.create_trial(params={"x": 0.3}, distributions=distributions, value=2.0))
    for values in ({"x": 0.5, "n_layers": 3}, {"x": 7}, {"x": 0.6}):
        study.enqueue_trial(values)
    # The storage counts whole seconds.
    time.sleep(2.2)
    with track(study, folder=folder) as tracked:
        study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=2, callbacks=[tracked])
    runs = runs_of(folder)
    assert runs.pop(None)[0] == "FINISHED"
    assert runs == {
        "0": ("FAILED", None, 0),
        "1": ("FINISHED", 2, 1),
        "2": ("FINISHED", 0.5, 1),
        "3": ("FINISHED", 7, 1),
    }
