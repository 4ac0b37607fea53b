"""The main job as a whole: its contract, its record, and its independence of test ratings."""

import io
import json
import logging
import math
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from optuna.distributions import CategoricalDistribution
from optuna.trial import TrialState, create_trial

from metarec.cli import study as command
from metarec.episodes import assign_roles
from metarec.episodes._split import cut_tasks
from metarec.errors import InputError
from metarec.evaluation.engine_check import check_engines
from metarec.evaluation.measures import RATING, ByUser
from metarec.evaluation.metrics import KEYS, METAREC, Gain, scores
from metarec.files import write_kept
from metarec.meta import MetaLearningTrainer, NonFiniteLossError, network_config
from metarec.model.contrasts import CONTRASTS
from metarec.ratings import Domain
from metarec.search import COMMON_PARAMETERS
from metarec.study.data import choose_target
from metarec.study.job import Job, StudyFailed, run_study
from metarec.study.networks import _objective as objective_module
from metarec.study.records import FileKeeper
from tests.support.studies import TINY, prepared, reported, runs_of, tiny_spec

ROOT = Path(__file__).parents[2]
BASELINES = {"mean", "best-single", "ridge", "fwls", "greedy", "gbm"}
MODELS = {METAREC, *CONTRASTS, "bias", "item-knn", *BASELINES}


@pytest.fixture(autouse=True)
def without_engine_check(monkeypatch):
    """The check takes half of the time; the study of `finished` includes it."""
    monkeypatch.setattr("metarec.study.networks._stages.check_engines", lambda *_, **__: [])


def predictions(result):
    return pd.read_parquet(result.predictions)


# --- the contract of --json, and the table ---------------------------------------------------------------------------


def test_the_contract_of_json(finished):
    spec, result, _ = finished
    output = json.loads(json.dumps(result.to_json()))
    assert set(output) >= {"study", "metric", "direction", "trials", "best", "test", "predictions"}
    assert (output["study"], output["direction"]) == ("tiny study", "minimize")
    assert [trial["number"] for trial in output["trials"]] == [0, 1, 2]
    for trial in output["trials"]:
        assert set(trial) == {"number", "state", "value", "params", "run_id", "duration_s"}
        assert trial["state"] == "complete"
        assert set(trial["params"]) == set(spec.space)
        assert 0 < trial["value"] < 1
        assert trial["duration_s"] > 0
    best = min(output["trials"], key=lambda trial: trial["value"])
    assert output["best"] == {key: best[key] for key in ("number", "value", "params", "run_id")}
    assert list(output["test"]) == ["movies", "books"]
    for table in output["test"].values():
        assert set(table) == MODELS
        assert all(set(row) == {"rmse", "mae", "unit_rmse", "n_users", "n_ratings"} for row in table.values())
        assert len({(row["n_users"], row["n_ratings"]) for row in table.values()}) == 1
    for domain, added in output["adds"].items():
        assert added["networks"] == output["gains"][domain]["stack"]
        assert added["inner_loop"] == output["gains"][domain]["no-inner-loop"]
        assert added["text"] == result.test[domain].adds


def test_the_store_has_what_meta_learning_adds(finished):
    _, result, folder = finished
    client, (parent,), _ = runs_of(folder)
    metrics = client.get_run(parent.info.run_id).data.metrics
    for domain, outcome in result.test.items():
        assert metrics[f"adds/{domain}/networks/percent"] == pytest.approx(outcome.gains["stack"].percent)
        assert metrics[f"adds/{domain}/inner_loop/high"] == pytest.approx(outcome.gains["no-inner-loop"].high)
        assert metrics[f"test/{domain}/stack/rmse"] == pytest.approx(outcome.scores["stack"].rmse)
    assert "Meta-learning lowers the RMSE of stack" in parent.data.tags["mlflow.note.content"]


def test_the_row_without_the_inner_loop_is_that_of_networks_without_inner_steps(finished, world):
    """Where no member takes an inner step, it is metarec itself."""
    spec = tiny_spec(trials=1, search={"inner_steps": {"first": 0, "last": 0}})
    result = run_study(spec, {"movies": world["movies"]}, Job(finished[2] / "plain", "plain"))
    rows = predictions(result)
    np.testing.assert_allclose(rows["metarec"], rows["no-inner-loop"])
    assert "adds nothing, because no network" in result.test["movies"].adds


@pytest.mark.slow
def test_a_study_searches_the_network_itself(world, tmp_path):
    spec = tiny_spec(
        trials=3,
        fusion={
            "network": {"choices": ["gated", "linear"]},
            "options": {"gated": {"hidden_dim": 8}, "linear": {"correction": False}},
        },
    )
    result = run_study(spec, {"movies": world["movies"]}, reported(tmp_path, "networks"))
    assert [trial.params["network"] for trial in result.ended][:2] == ["gated", "linear"]
    for trial in result.ended:
        owners = {name.partition(".")[0] for name in trial.params if "." in name}
        assert owners == {trial.params["network"]}
        assert f"{trial.params['network']}.diversity_weight" in trial.params
    _, _, children = runs_of(tmp_path)
    assert [run.data.tags["fusion"] for run in children] == [trial.params["network"] for trial in result.ended]
    assert all(f" {run.data.tags['fusion']}/batched" in run.info.run_name for run in children)
    kept = set(result.members) & {f"trial {trial.number}" for trial in result.ended}
    assert len(kept) == 3
    again = run_study(
        spec.model_copy(update={"trials": 4}), {"movies": world["movies"]}, reported(tmp_path, "networks")
    )
    assert [trial.params for trial in again.ended[:3]] == [trial.params for trial in result.ended]


@pytest.mark.parametrize("changes", [{"bases": ["bias", "mean"]}, {"baselines": ["stack"]}])
def test_two_models_of_one_name_are_refused(changes, monkeypatch):
    from metarec.bases import BASES
    from metarec.fusion.stackers import STACKERS

    monkeypatch.setattr(BASES, "check", lambda name: None)
    monkeypatch.setattr(STACKERS, "check", lambda name: None)
    with pytest.raises(ValueError, match=r'the (base recommender|stacker) "(mean|stack)" must have a name of its own'):
        tiny_spec(**changes)


def test_the_table_recomputed_from_the_predictions_is_the_table(finished):
    _, result, _ = finished
    rows = predictions(result)
    assert set(rows.columns) == {*KEYS, *MODELS}
    assert not rows.duplicated(["domain", "user", "item"]).any()
    for domain, span in (("movies", 4.5), ("books", 4.0)):
        own = rows[rows["domain"] == domain]
        for model, row in result.to_json()["test"][domain].items():
            errors = own[model] - own["rating"]
            rmse = math.sqrt((errors**2).mean())
            assert row["rmse"] == pytest.approx(rmse, abs=1e-9)
            assert row["mae"] == pytest.approx(errors.abs().mean(), abs=1e-9)
            assert row["unit_rmse"] == pytest.approx(rmse / span, abs=1e-9)
            assert (row["n_users"], row["n_ratings"]) == (own["user"].nunique(), len(own))


def test_the_table_holds_every_query_of_every_test_user_with_the_ratings_of_the_input(finished, world):
    spec, result, _ = finished
    domains = {name: world[name] for name in ("movies", "books")}
    roles = assign_roles(domains, "movies", spec.episodes, spec.seed)
    rows = predictions(result)
    for name, domain in domains.items():
        tasks = cut_tasks(domain, roles, spec.episodes, spec.seed)
        expected = {
            (task.user, item) for task, *_ in tasks if roles.roles[task.user] == "test" for item in task.query_items
        }
        own = rows[rows["domain"] == name]
        assert set(zip(own["user"], own["item"], strict=True)) == expected
        joined = own.merge(domain.ratings, on=["user", "item"], suffixes=("", "_given"))
        assert len(joined) == len(own)
        assert np.array_equal(joined["rating"], joined["rating_given"])


def test_trial_0_is_the_default_configuration(finished):
    spec, result, _ = finished
    assert result.ended[0].params == spec.trial_zero


def test_the_engines_agree(finished):
    _, result, _ = finished
    assert [check.engine for check in result.engines] == ["batched", "learn2learn", "higher"]
    reference, *others = result.engines
    assert reference.difference is None
    for check in others:
        assert check.problem == ""
        assert check.difference < 1e-4
    assert all(check.milliseconds > 0 for check in result.engines)


def test_the_file_of_a_trial_has_all_learned_weights_and_rates(movies, tmp_path, monkeypatch):
    kept = []
    original = objective_module.NetworkObjective.files

    def files(self, learner, params, curves):
        kept.append(learner)
        return original(self, learner, params, curves)

    monkeypatch.setattr(objective_module.NetworkObjective, "files", files)
    spec = tiny_spec(trials=1, search={"learn_rates": {"choices": [True]}, "adapted": {"choices": ["head"]}})
    before = predictions(run_study(spec, movies, Job(tmp_path, "s")))
    weights = torch.load(tmp_path / "artifacts" / "s" / "networks" / "trial-0.pt", weights_only=True)
    (learner,) = kept
    assert weights["log_rates"].std() > 0
    assert set(weights) == set(learner.state_dict())
    assert all(torch.equal(weights[name], value) for name, value in learner.state_dict().items())

    # The network that scores test users uses these rates; with a rate near 0 it would not adapt.
    content = io.BytesIO()
    torch.save({**weights, "log_rates": weights["log_rates"] - 20}, content)
    write_kept(tmp_path / "artifacts/s/networks/trial-0.pt", content.getvalue())
    other = predictions(run_study(spec, movies, Job(tmp_path, "s")))
    assert not np.allclose(other[METAREC], before[METAREC], atol=1e-6)


def test_a_study_of_ridge_heads_has_all_its_parts(movies, tmp_path):
    search = {"adapted": {"choices": ["ridge"]}, "inner_steps": {"first": 1, "last": 3}}
    spec = tiny_spec(trials=2, search=search, baselines=["mean"], target="movies")
    result = run_study(spec, movies, Job(tmp_path, "s"))
    assert {trial.params["adapted"] for trial in result.ended} == {"ridge"}
    weights = torch.load(tmp_path / "artifacts" / "s" / "networks" / "trial-0.pt", weights_only=True)
    assert "ridge.logarithms" in weights
    rows = predictions(result)
    assert not np.allclose(rows[METAREC], rows["no-inner-loop"], atol=1e-6)
    assert len(result.insight.shots["shots"].unique()) > 1
    best, episodes = result.ended[0].params, prepared(spec, movies, tmp_path).episodes["movies"].train
    reference, *others = check_engines(objective_module.network_config(spec, best), episodes, seed=0)
    assert reference.difference is None
    assert all(check.difference < 1e-4 for check in others), others


@pytest.mark.parametrize("damage", ["empty", "cut", "flipped", "text", "gone"])
def test_a_damaged_network_is_learned_again(movies, tmp_path, caplog, damage):
    objective = prepared(tiny_spec(target="movies"), movies, tmp_path).objective(None, FileKeeper())
    params = tiny_spec(target="movies").trial_zero
    fixed = {name: CategoricalDistribution([value]) for name, value in params.items()}
    trial = create_trial(params=params, distributions=fixed, value=0.1)
    weights = objective.weights(trial.number)
    objective.network(trial)
    whole = weights.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1
    contents = {"empty": b"", "cut": whole[: len(whole) // 2], "flipped": bytes(flipped), "text": b"not a network" * 9}
    if damage == "gone":
        weights.unlink()
    else:
        weights.write_bytes(contents[damage])
    with caplog.at_level(logging.WARNING, "metarec"):
        objective.network(trial)
    assert f"the network of trial {trial.number} is not in" in caplog.text
    assert weights.read_bytes() == whole
    caplog.clear()
    objective.network(trial)
    assert caplog.text == ""


def test_a_study_whose_network_is_empty_goes_on(movies, tmp_path, caplog):
    spec = tiny_spec(trials=1)
    before = predictions(run_study(spec, movies, Job(tmp_path, "s")))
    (tmp_path / "artifacts" / "s" / "networks" / "trial-0.pt").write_bytes(b"")
    after = predictions(run_study(spec, movies, Job(tmp_path, "s")))
    pd.testing.assert_frame_equal(after, before)
    assert "trial-0.pt is damaged or half-written; it is made again" in caplog.text


# --- the record in MLflow --------------------------------------------------------------------------------------------


def test_mlflow_holds_one_parent_with_its_trials(finished):
    spec, result, folder = finished
    client, (parent,), children = runs_of(folder)
    assert parent.info.status == "FINISHED"
    assert parent.info.run_name == f"{result.value:.4f} · tiny study"
    assert [child.info.run_id for child in children] == [trial["run_id"] for trial in result.to_json()["trials"]]
    for child, trial in zip(children, result.ended, strict=True):
        assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert child.info.status == "FINISHED"
        assert child.data.params == {name: str(value) for name, value in trial.params.items()}
        assert child.data.metrics["validation_unit_rmse"] == pytest.approx(trial.value)
        for curve in ("train_loss", "val_loss", "val_rmse"):
            assert [point.step for point in client.get_metric_history(child.info.run_id, curve)] == [0, 1, 2]
        names = {entry.path for entry in client.list_artifacts(child.info.run_id)}
        assert names >= {
            "configuration.yaml",
            "validation_predictions.parquet",
            "learning_curve.png",
            "base_weights.png",
        }
    names = {entry.path for entry in client.list_artifacts(parent.info.run_id)}
    assert names >= {"study.yaml", "test_predictions.parquet", "test_movies.png", "test_books.png", "search.png"}
    for domain, table in result.test.items():
        for model, row in table.scores.items():
            for metric, value in row.values.items():
                assert parent.data.metrics[f"test/{domain}/{model}/{metric}"] == pytest.approx(value)
    assert parent.data.metrics["engine/higher/gradient_difference"] < 1e-4
    assert parent.data.params["training.epochs"] == str(spec.training.epochs)


def test_runs_can_be_filtered_by_tags(finished, world):
    _, result, folder = finished
    client, (parent,), children = runs_of(folder)
    tags = {"domain": "movies", "strategy": "none", "fusion": "attention", "engine": "batched", "state": "complete"}
    for run in (parent, *children):
        assert {key: run.data.tags[key] for key in tags} == tags
    for child, trial in zip(children, result.ended, strict=True):
        label = " ".join(trial.params[name] for name in ("adapted", "loss", "prediction_loss", "combine"))
        assert child.info.run_name == f"{trial.value:.4f} · trial-{trial.number:03d} attention/batched {label}"
    given = {entry.dataset.name: entry.dataset for entry in client.get_run(parent.info.run_id).inputs.dataset_inputs}
    assert set(given) == {"movies", "books"}
    profile = json.loads(given["books"].profile)
    assert profile["fingerprint"] == world["books"].fingerprint()
    assert profile["ratings"] == len(world["books"].ratings)


def test_the_label_of_a_run_is_the_same_from_optuna_and_from_its_trial(finished):
    import optuna

    from metarec.search.storage import open_storage
    from metarec.study.records import facts_of

    _, _, folder = finished
    study = optuna.load_study(study_name="tiny study", storage=open_storage(str(folder / "optuna.journal")))
    _, _, children = runs_of(folder)
    for fact, child in zip(facts_of(study), children, strict=True):
        assert child.info.run_name.endswith(f" · trial-{fact.number:03d} {fact.label}")
        assert fact.tags.items() <= child.data.tags.items()


def test_the_artifacts_match_the_result(finished):
    spec, result, folder = finished
    client, (parent,), children = runs_of(folder)
    stored = Path(client.download_artifacts(parent.info.run_id, "test_predictions.parquet"))
    pd.testing.assert_frame_equal(pd.read_parquet(stored), predictions(result))
    study = yaml.safe_load(Path(client.download_artifacts(parent.info.run_id, "study.yaml")).read_text())
    assert type(spec).model_validate(study).model_dump() == {**spec.model_dump(), "task": "rating"}
    for child, trial in zip(children, result.ended, strict=True):
        path = client.download_artifacts(child.info.run_id, "configuration.yaml")
        assert yaml.safe_load(Path(path).read_text())["parameters"] == trial.params
        rows = pd.read_parquet(client.download_artifacts(child.info.run_id, "validation_predictions.parquet"))
        unit_rmse = scores(rows, 4.5)[METAREC].values["unit_rmse"]
        assert unit_rmse == pytest.approx(trial.value, rel=1e-5)
        assert not set(rows["user"]) & set(predictions(result)["user"])


# --- honest numbers --------------------------------------------------------------------------------------------------


def test_inverted_query_ratings_of_test_users_change_no_prediction(movies, tmp_path):
    spec = tiny_spec(trials=2, target="movies", baselines=sorted(BASELINES))
    domain = movies["movies"]
    roles = assign_roles(movies, "movies", spec.episodes, spec.seed)
    tasks = cut_tasks(domain, roles, spec.episodes, spec.seed)
    support = {(task.user, item) for task, *_ in tasks for item in task.support_items}
    ratings = domain.ratings.copy()
    used = [
        roles.roles.get(user) == "test" and (user, item) not in support
        for user, item in zip(ratings["user"], ratings["item"], strict=True)
    ]
    ratings.loc[used, "rating"] = domain.scale.low + domain.scale.high - ratings.loc[used, "rating"]
    inverted = Domain("movies", ratings, domain.scale, items=domain.items)

    before = predictions(run_study(spec, movies, Job(tmp_path / "before", "a")))
    after = predictions(run_study(spec, {"movies": inverted}, Job(tmp_path / "after", "a")))
    assert (before["rating"] != after["rating"]).mean() > 0.8
    columns = [column for column in before.columns if column != "rating"]
    assert set(columns) >= MODELS
    pd.testing.assert_frame_equal(before[columns], after[columns], check_exact=True)


def test_the_same_seed_gives_the_same_predictions_and_another_does_not(movies, tmp_path):
    first, again, other = (
        predictions(run_study(tiny_spec(trials=2, seed=seed), movies, Job(tmp_path / name, name)))
        for name, seed in (("first", 1), ("again", 1), ("other", 2))
    )
    pd.testing.assert_frame_equal(first, again, check_exact=True)
    assert not first.equals(other)


@pytest.mark.slow
def test_other_processes_do_not_change_the_result(world, finished, new_folder):
    """Other processes fit baselines and write files during the search; the result is the same."""
    spec, alone, folder = finished
    domains = {name: world[name] for name in ("movies", "books")}
    other = new_folder()
    shared = run_study(spec, domains, reported(other, "tiny study", jobs=2))
    pd.testing.assert_frame_equal(predictions(alone), predictions(shared), check_exact=True)
    assert shared.settings == alone.settings
    kept = []
    for place in (folder, other):
        client, _, children = runs_of(place)
        kept.append(
            [
                {
                    file.path: Path(client.download_artifacts(child.info.run_id, file.path)).read_bytes()
                    for file in client.list_artifacts(child.info.run_id)
                }
                for child in children
            ]
        )
    assert kept[0] == kept[1]
    assert all(len(files) == 4 for files in kept[0])


# --- continuing ------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_continued_study_runs_the_missing_trials(movies, new_folder, caplog):
    caplog.set_level(logging.INFO, "metarec")
    folder = new_folder()
    first = run_study(tiny_spec(trials=2), movies, reported(folder, "s"))
    assert "going on" not in caplog.text
    second = run_study(tiny_spec(trials=5), movies, reported(folder, "s"))
    best = f"going on: 2 of 5 trials have ended; the best is trial {first.best.number}, validation RMSE"
    assert best in caplog.text
    assert [trial.number for trial in second.ended] == [0, 1, 2, 3, 4]
    for before, after in zip(first.ended, second.ended, strict=False):
        assert (before.params, before.value, before.datetime_complete) == (
            after.params,
            after.value,
            after.datetime_complete,
        )
    assert len({trial.params["outer_lr"] for trial in second.ended}) == 5
    _, parents, children = runs_of(folder)
    assert (len(parents), len(children)) == (1, 5)
    assert {run.info.status for run in [*parents, *children]} == {"FINISHED"}
    # No trial is missing, and the result is the same.
    third = run_study(tiny_spec(trials=5), movies, Job(folder, "s"))
    again, before = third.to_json()["trials"], second.to_json()["trials"]
    assert [{**trial, "run_id": None} for trial in again] == [{**trial, "run_id": None} for trial in before]
    # Without a store, the trial has the id of its run if the store had answered before the end of the trial.
    for trial, earlier in zip(again, before, strict=True):
        assert trial["run_id"] in (earlier["run_id"], None)
    assert third.to_json()["test"] == second.to_json()["test"]


def test_continuing_with_other_data_or_settings_is_refused(movies, world, tmp_path):
    run_study(tiny_spec(trials=1), movies, Job(tmp_path / "runs", "s"))
    before = sorted(tmp_path.rglob("*"))
    for spec, domains in (
        (tiny_spec(trials=2), {"movies": world["movies"].without({world["movies"].ratings["user"][0]})}),
        (tiny_spec(trials=2, seed=1), movies),
        (tiny_spec(trials=2, training={"epochs": 4}), movies),
    ):
        with pytest.raises(InputError, match='study "s" was begun with other data or settings'):
            run_study(spec, domains, Job(tmp_path / "runs", "s"))
    assert sorted(tmp_path.rglob("*")) == before


# --- trials that fail or are stopped ---------------------------------------------------------------------------


@pytest.fixture
def not_finite(monkeypatch):
    """Makes the loss of trials with some outer rates infinite or NaN."""
    original = MetaLearningTrainer.fit

    def plant(wrong):
        def fit(self, *args, learning_rate, **kwargs):
            if wrong(learning_rate):
                raise NonFiniteLossError("the meta-loss", math.nan, epoch=1, batch=0)
            return original(self, *args, learning_rate=learning_rate, **kwargs)

        monkeypatch.setattr(MetaLearningTrainer, "fit", fit)

    return plant


def test_a_loss_that_is_not_finite_ends_the_trial_not_the_study(movies, new_folder, not_finite):
    not_finite(lambda rate: rate == COMMON_PARAMETERS["outer_lr"].default)  # that of trial 0
    folder = new_folder()
    result = run_study(tiny_spec(), movies, reported(folder, "s"))
    assert [trial.state for trial in result.ended] == [TrialState.FAIL, TrialState.COMPLETE, TrialState.COMPLETE]
    output = result.to_json()["trials"][0]
    assert (output["state"], output["value"]) == ("failed", None)
    _, (parent,), children = runs_of(folder)
    assert [child.info.status for child in children] == ["FAILED", "FINISHED", "FINISHED"]
    assert parent.info.status == "FINISHED"
    assert "the meta-loss" in children[0].data.tags["metarec.reason"]
    assert output["run_id"] == children[0].info.run_id


def test_a_study_of_failures_only_fails(movies, new_folder, not_finite):
    not_finite(lambda rate: True)
    folder = new_folder()
    with pytest.raises(StudyFailed, match=r"none of the 2 trials .* their runs have the reasons"):
        run_study(tiny_spec(trials=2), movies, reported(folder, "s"))
    _, (parent,), children = runs_of(folder)
    assert parent.info.status == "FAILED"
    assert [child.info.status for child in children] == ["FAILED", "FAILED"]


@pytest.fixture
def tiny_command(movies, new_folder, monkeypatch, tmp_path):
    """The arguments of the tiny study as a command, and the folder of its runs."""
    movies["movies"].ratings.to_csv(tmp_path / "movies.csv", index=False)
    spec = {key: value for key, value in TINY.items() if key != "domains"}
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(spec))
    monkeypatch.chdir(tmp_path)
    folder = new_folder()
    return ["tiny.yaml", "--data", "movies=movies.csv", "--out", str(folder), "--study-name", "s"], folder


def test_the_command_of_a_study_of_failures_only(tiny_command, not_finite, monkeypatch, capsys):
    not_finite(lambda rate: True)
    arguments, _ = tiny_command
    monkeypatch.setattr(sys, "argv", ["study", *arguments, "--json", "out.json"])
    with pytest.raises(SystemExit) as ended:
        command.main()
    printed = capsys.readouterr()
    assert (ended.value.code, printed.out) == (1, "")
    assert len(re.findall("^error: ", printed.err, re.MULTILINE)) == 1
    assert re.search(r"^error: none of the 3 trials [^\n]+$", printed.err, re.MULTILINE)
    assert not Path("out.json").exists()


def test_a_pruned_trial_is_killed_in_mlflow(movies, new_folder, monkeypatch):
    import optuna

    monkeypatch.setattr(optuna.Trial, "should_prune", lambda self: self.number == 1)
    folder = new_folder()
    result = run_study(tiny_spec(), movies, reported(folder, "s"))
    assert [trial["state"] for trial in result.to_json()["trials"]] == ["complete", "pruned", "complete"]
    _, _, children = runs_of(folder)
    assert [child.info.status for child in children] == ["FINISHED", "KILLED", "FINISHED"]
    assert children[1].data.metrics.keys() >= {"val_rmse"}


def test_ctrl_c_puts_a_trial_back(movies, new_folder, monkeypatch):
    original = MetaLearningTrainer.fit
    calls = []

    def fit(self, *args, **kwargs):
        calls.append(kwargs["learning_rate"])
        if len(calls) == 2:
            raise KeyboardInterrupt
        return original(self, *args, **kwargs)

    monkeypatch.setattr(MetaLearningTrainer, "fit", fit)
    folder = new_folder()
    with pytest.raises(KeyboardInterrupt):
        run_study(tiny_spec(), movies, reported(folder, "s"))
    _, (parent,), children = runs_of(folder)
    assert (parent.info.status, [child.info.status for child in children]) == ("KILLED", ["FINISHED", "KILLED"])
    result = run_study(tiny_spec(), movies, reported(folder, "s"))
    # Three trials ended by themselves; the interrupted parameters are tried again.
    assert [trial.state for trial in result.ended] == [TrialState.COMPLETE] * 3
    assert calls[2] == calls[1]
    _, (parent,), children = runs_of(folder)
    assert parent.info.status == "FINISHED"
    assert sorted(child.info.status for child in children) == ["FINISHED", "FINISHED", "FINISHED", "KILLED"]


# --- other engines, several processes --------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ["higher", "learn2learn"])
def test_a_study_uses_one_engine_only(movies, tmp_path, monkeypatch, engine):
    used = []
    original = network_config.make_engine

    def make_engine(name, *args, **kwargs):
        used.append(name)
        return original(name, *args, **kwargs)

    monkeypatch.setattr(network_config, "make_engine", make_engine)
    changes = {"trials": 1, "training": {"epochs": 2}, "episodes": {**TINY["episodes"], "max_query": 5}}
    other = run_study(tiny_spec(engine=engine, **changes), movies, Job(tmp_path / engine, "s"))
    assert set(used) == {engine}
    batched = run_study(tiny_spec(**changes), movies, Job(tmp_path / "batched", "s"))
    assert other.best.value == pytest.approx(batched.best.value, abs=1e-3)


@pytest.mark.slow
def test_two_workers_run_the_trials_of_one_study(movies, new_folder):
    folder = new_folder()
    job = reported(folder, "s")
    result = run_study(tiny_spec(trials=4, workers=2), movies, job)
    assert [trial.number for trial in result.ended] == [0, 1, 2, 3]
    assert {trial.state for trial in result.ended} == {TrialState.COMPLETE}
    assert result.ended[0].params == tiny_spec().trial_zero
    _, (parent,), children = runs_of(folder)
    assert {run.info.status for run in [parent, *children]} == {"FINISHED"}
    assert len(children) == 4
    assert {child.data.tags["mlflow.parentRunId"] for child in children} == {parent.info.run_id}


@pytest.mark.slow
@pytest.mark.parametrize(("presses", "second"), [(1, "FINISHED"), (2, "KILLED")])
def test_ctrl_c_on_the_command_and_going_on(tiny_command, presses, second):
    """One Ctrl-C lets the running trial end, two do not."""
    arguments, folder = tiny_command
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    whole = [sys.executable, "-u", "-m", "metarec.study", *arguments]
    # Long trials, so that the second one is under way when the signal comes.
    long = [*whole, "--set", "training.epochs=100", "--set", "training.patience=100", "--trials", "3"]
    with subprocess.Popen(
        long, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as study:
        lines = []
        for line in study.stderr:
            lines.append(line)
            if line.startswith("trial   0"):
                break
        time.sleep(0.3)
        for _ in range(presses):
            # A terminal sends the signal to the whole group.
            os.killpg(study.pid, signal.SIGINT)
            time.sleep(0.3)
        rest, printed = study.stderr.read(), study.stdout.read()
        study.wait(60)
    output = "".join(lines) + rest
    assert study.returncode == 130, output
    assert "Traceback" not in output
    assert printed == ""
    assert "--study-name s" in rest
    assert "a second Ctrl-C stops now" in rest
    _, (parent,), children = runs_of(folder)
    assert parent.info.status == "KILLED"
    assert [child.info.status for child in children] == ["FINISHED", second]

    again = subprocess.run(
        [*long, "--trials", "2", "--json", "out.json"], env=environment, capture_output=True, text=True, timeout=300
    )
    assert again.returncode == 0, again.stderr
    assert [trial["state"] for trial in json.loads(Path("out.json").read_text())["trials"]] == ["complete"] * 2
    _, (parent,), children = runs_of(folder)
    assert parent.info.status == "FINISHED"
    assert sorted(child.info.status for child in children) == ["FINISHED"] * 2 + ["KILLED"] * (presses - 1)


@pytest.mark.slow
def test_ctrl_c_before_anything_has_begun(tiny_command):
    """The signal meets the import of workers' libraries, which must not print a traceback."""
    arguments, _ = tiny_command
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    whole = [sys.executable, "-m", "metarec.study", *arguments]
    with subprocess.Popen(
        whole, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as study:
        server = Path(f"/proc/{study.pid}/task/{study.pid}/children")
        for _ in range(600):
            time.sleep(0.05)
            # Its first children are the resource tracker and the server of workers.
            if len(server.read_text().split()) >= 2:
                break
        time.sleep(0.1)
        os.killpg(study.pid, signal.SIGINT)
        # This waits for the last process with the same output.
        errors, printed = study.stderr.read(), study.stdout.read()
        study.wait(60)
    assert study.returncode == 130, errors
    assert (errors, printed) == ("", "")


# --- the command's own output ----------------------------------------------------------------------------------------


def test_the_command_prints_the_table_and_the_address_of_the_runs(tiny_command, monkeypatch, capsys):
    arguments, folder = tiny_command
    monkeypatch.setattr(sys, "argv", ["study", *arguments, "--trials", "1", "--json", "out.json"])
    monkeypatch.setattr(command, "cores", lambda: 1)
    command.main()
    printed = capsys.readouterr()
    output = json.loads(Path("out.json").read_text())
    for model, row in output["test"]["movies"].items():
        assert re.search(rf"│ {model} +│ +{row['rmse']:.4f} │ +{row['mae']:.4f} │", printed.out), model
    *_, where, opened, address, trials, own = printed.out.strip().splitlines()
    assert 'model: metarec.load("models:/metarec-' in printed.out
    assert str(folder / "mlflow.db") in where
    assert "mlflow ui --backend-store-uri" in opened
    table = r".*/#/experiments/1/runs\?workflowType=machine_learning&viewStateShareKey=metarec-[0-9a-f]{32}"
    assert re.fullmatch(f"then look at: {table}-row", address)
    assert re.fullmatch(f"its trials: {table}-trial", trials)
    assert re.fullmatch(r"this study: .*/#/experiments/1/runs/[0-9a-f]{32}\?workflowType=machine_learning", own)
    assert "trial   0  validation RMSE" in printed.err
    split = re.search(
        r"movies: (\d+) of (\d+) users make episodes: (\d+) train, (\d+) validation, (\d+) test", printed.err
    )
    able, everybody, *parts = map(int, split.groups())
    assert able == sum(parts) <= everybody
    assert parts[2] == output["test"]["movies"]["metarec"]["n_users"]
    # Lines of other libraries are not among ours.
    assert "mlflow.pyfunc" not in printed.err
    assert logging.getLogger("metarec").handlers == []


# --- the table's mathematics -----------------------------------------------------------------------------------------


def frame(**models):
    keys = {"domain": "d", "user": ["a", "a", "b"], "item": ["x", "y", "x"], "rating": [1.0, 2.0, 4.0]}
    return pd.DataFrame({**keys, **models})


def test_scores_by_hand():
    (row,) = scores(frame(metarec=[2.0, 2.0, 2.0]), span=4.0).values()
    rmse = math.sqrt((1 + 0 + 4) / 3)
    assert row.values == pytest.approx({"rmse": rmse, "mae": 1.0, "unit_rmse": rmse / 4})
    assert (row.n_users, row.n_ratings) == (2, 3)


def test_gains_by_hand():
    # Half of the other's error everywhere is 50 percent in every resample.
    rows = frame(metarec=[1.5, 2.5, 4.5], other=[2.0, 3.0, 5.0], same=[1.5, 2.5, 4.5], worse_ours=[1.25, 2.25, 4.25])
    table = RATING.gains(ByUser.squared_errors(rows))
    assert table["other"] == pytest.approx(Gain(50.0, 50.0, 50.0))
    assert table["same"] == pytest.approx(Gain(0.0, 0.0, 0.0))
    assert table["worse_ours"] == pytest.approx(Gain(-100.0, -100.0, -100.0))


def test_the_interval_of_a_gain_resamples_users_not_rows():
    rng = np.random.default_rng(0)
    users = np.repeat(np.arange(30), 20)
    noise = rng.normal(size=(2, 600))
    rows = pd.DataFrame({"domain": "d", "user": users, "item": np.tile(np.arange(20), 30), "rating": 3.0})
    rows["metarec"], rows["equal"] = rows["rating"] + noise[0], rows["rating"] + noise[1]
    # The gain is one effect per user: few independent observations give a wide interval.
    helped = np.repeat(rng.normal(1.0, 0.5, 30), 20)
    rows["by_user"] = rows["rating"] + noise[0] * np.abs(helped)
    table = RATING.gains(ByUser.squared_errors(rows), seed=1)
    assert table["equal"].low < 0 < table["equal"].high
    assert table["by_user"].low < table["by_user"].percent < table["by_user"].high
    errors = ((rows["by_user"] - 3) ** 2).groupby(users).sum(), ((rows["metarec"] - 3) ** 2).groupby(users).sum()
    drawn = [rng.integers(0, 30, 30) for _ in range(2000)]
    by_hand = [100 * (1 - math.sqrt(errors[1].iloc[d].sum() / errors[0].iloc[d].sum())) for d in drawn]
    low, high = np.percentile(by_hand, [2.5, 97.5])
    width = table["by_user"].high - table["by_user"].low
    assert width == pytest.approx(high - low, rel=0.2)


def test_a_base_without_a_prediction_is_scored_by_the_fallback_on_the_same_rows(world, tmp_path):
    # An item that only test users rated is unknown to every base.
    from metarec.episodes import build_episodes
    from metarec.evaluation.metrics import base_unit_predictions, prediction_rows

    spec = tiny_spec()
    domain = world["movies"]
    roles = assign_roles({"movies": domain}, "movies", spec.episodes, 0)
    ratings = domain.ratings.copy()
    test = ratings["user"].map(roles.roles) == "test"
    last = ratings[test].sort_values("timestamp").groupby("user").tail(1).index
    ratings.loc[last, "item"] = "unseen"
    changed = Domain("movies", ratings, domain.scale)
    settings = spec.episodes.model_copy(update={"max_query": 40})
    episodes = build_episodes({"movies": changed}, "movies", settings, spec.bases)["movies"].test
    unit = base_unit_predictions(episodes)
    rows = prediction_rows(episodes, {METAREC: unit["bias"], **unit})
    unknown = rows[rows["item"] == "unseen"]
    assert len(unknown) == test[test].index.size - len(ratings[test & (ratings["item"] != "unseen")])
    assert np.isfinite(rows[["bias", "item-knn"]]).all(axis=None)
    assert {row.n_ratings for row in scores(rows, 4.5).values()} == {len(rows)}


def test_choose_target(movies, world):
    assert choose_target(tiny_spec(), movies) == "movies"
    with pytest.raises(InputError, match=r"--target must say which of the domains is the target: movies, books, music"):
        choose_target(tiny_spec(), world)
    with pytest.raises(InputError, match='did you mean "movies"'):
        choose_target(tiny_spec(target="movie"), movies)
