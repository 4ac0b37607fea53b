"""A study of transfer: strategies are trials, compared on validation users, without test users."""

import hashlib
import io
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from optuna.trial import TrialState

from metarec.cli.study_tables import show_result
from metarec.errors import InputError
from metarec.evaluation.metrics import KEYS, METAREC, base_unit_predictions, scores
from metarec.study.data import identity_of
from metarec.study.job import Job, run_study
from metarec.study.spec import StudySpec, load_spec
from metarec.study.transfer import TransferObjective, TrialData, transfer_settings
from metarec.study.transfer import _objective as transfer_objective
from metarec.transfer import TransferRounds, TransferSettings, predict_round
from metarec.transfer.rounds import REGIMES
from tests.support.studies import reported, runs_of

STRATEGIES = ["auto", "scratch", "zero_shot", "prototype_based"]
SMALL = {
    "name": "small",
    "domains": {},
    "target": "movies",
    "trials": 4,
    "episodes": {"shots": 4, "min_query": 3, "max_query": 6},
    "bases": ["bias", "item-knn"],
    "baselines": ["mean", "best-single", "ridge"],
    "fusion": {"options": {"hidden_dim": 8}},
    "transfer": {"target_users": 8, "strategies": STRATEGIES},
    "training": {"epochs": 2, "patience": 2},
}
MODELS = {METAREC, "stack", "stack-mean", "bias", "item-knn", "mean", "best-single", "ridge"}


def models_of(result):
    """The models of the table: the proposed strategy is metarec, the others have rows of their own."""
    others = set(STRATEGIES) - {result.best.params["strategy"]}
    return MODELS | {f"strategy {name}" for name in others}


def small_spec(**changes):
    return StudySpec.model_validate({**SMALL, **changes})


@pytest.fixture(scope="module")
def done(world, new_folder):
    """A finished study of three domains: its result and its folder."""
    folder = new_folder()
    return run_study(small_spec(), world, reported(folder, "s")), folder


@pytest.fixture(scope="module")
def given(world):
    """The round of the study."""
    spec = small_spec()
    rounds = TransferRounds(world, [4], spec.episodes, bases=spec.bases)
    return rounds.round("movies", shots=4, target_users=8, number=spec.seed)


# --- what comes out --------------------------------------------------------------------------------------------------


def test_the_contract_of_json(done):
    result, _ = done
    output = json.loads(json.dumps(result.to_json()))
    assert (output["study"], output["metric"], output["direction"]) == ("s", "validation_unit_rmse", "minimize")
    # The default configuration first, and every other strategy with the same network.
    assert [trial["params"]["strategy"] for trial in output["trials"]] == STRATEGIES
    networks = [
        {key: value for key, value in trial["params"].items() if key != "strategy"} for trial in output["trials"]
    ]
    assert all(network == networks[0] for network in networks)
    assert {trial["state"] for trial in output["trials"]} == {"complete"}
    assert all(0 < trial["value"] < 1 for trial in output["trials"])
    best = min(output["trials"], key=lambda trial: trial["value"])
    assert output["best"] == {key: best[key] for key in ("number", "value", "params", "run_id")}
    assert set(output["test"]) == {"movies"}
    assert set(output["test"]["movies"]) == models_of(result)
    assert output["engines"] == []
    assert output["members"] == {"movies": {f"trial {best['number']}": 1.0}}


def test_the_table_is_that_of_the_predictions(done, given, world):
    result, _ = done
    rows = pd.read_parquet(result.predictions)
    assert set(rows.columns) == {*KEYS, *models_of(result)}
    assert set(rows["user"]) == set(given.test.users)
    joined = rows.merge(world["movies"].ratings, on=["user", "item"], suffixes=("", "_given"))
    assert len(joined) == len(rows)
    assert np.array_equal(joined["rating"], joined["rating_given"])
    for model, row in result.to_json()["test"]["movies"].items():
        errors = rows[model] - rows["rating"]
        assert row["rmse"] == pytest.approx(math.sqrt((errors**2).mean()), abs=1e-9)
        assert row["mae"] == pytest.approx(errors.abs().mean(), abs=1e-9)
        assert row["unit_rmse"] == pytest.approx(row["rmse"] / 4.5, abs=1e-9)
        assert row["n_ratings"] == len(rows)


def test_metarec_is_the_best_trials_strategy_with_a_comparisons_predictions(done, given):
    result, _ = done
    rows = pd.read_parquet(result.predictions)
    settings = transfer_settings(small_spec(), result.best.params)
    predicted = predict_round(result.best.params["strategy"], given, settings, 0)
    expected = given.scale.to_ratings(predicted.predictions[given.test.batch.query.mask.numpy()])
    np.testing.assert_allclose(rows[METAREC], expected, atol=1e-9)


def test_the_other_strategies_have_intervals_and_the_predictions_of_their_best_trials(done, given):
    result, _ = done
    rows = pd.read_parquet(result.predictions)
    for trial in result.ended:
        name = trial.params["strategy"]
        if trial.number != result.best.number:
            settings = transfer_settings(small_spec(), trial.params)
            predicted = predict_round(name, given, settings, 0)
            expected = given.scale.to_ratings(predicted.predictions[given.test.batch.query.mask.numpy()])
            np.testing.assert_allclose(rows[f"strategy {name}"], expected, atol=1e-9)
            assert f"strategy {name}" in result.test["movies"].gains
            assert result.settings["movies"][f"strategy {name}"] == {f"trial {trial.number}": 1.0}


def test_the_table_says_what_the_sources_models_add(done):
    result, _ = done
    outcome = result.test["movies"]
    assert outcome.additions == (None, None, outcome.gains["stack"])
    added = result.to_json()["adds"]["movies"]
    assert added["sources"] == outcome.gains["stack"]._asdict()
    assert added["text"].startswith("Transfer lowers the RMSE of stack")


@pytest.mark.parametrize("strategy", ["scratch", "zero_shot"])
def test_a_strategy_has_the_predictions_of_a_comparison(given, strategy):
    """Without sources it reads the target on its own scale, with sources on the common scale."""
    spec = small_spec()
    params = {**spec.trial_zero, "strategy": strategy}
    fitted = TransferObjective(spec, TrialData.of(given), None).fit(params)
    predicted = predict_round(strategy, given, transfer_settings(spec, params), 0)
    np.testing.assert_array_equal(fitted.predict(given.test, given.plain_test), predicted.predictions)


def test_the_terminal_has_strategies_in_the_place_of_engines(done):
    from rich.console import Console

    result, _ = done
    console = Console(width=100, file=io.StringIO())
    show_result(console, result)
    shown = console.file.getvalue()
    assert all(f"│ {strategy} " in shown for strategy in STRATEGIES)
    assert "engine" not in shown
    assert f"metarec is the strategy {result.best.params['strategy']} of study s" in shown


# --- the record ------------------------------------------------------------------------------------------------------


def test_trials_are_runs_with_their_strategy_and_its_reasons(done, given):
    result, folder = done
    client, (parent,), children = runs_of(folder)
    for child, trial in zip(children, result.ended, strict=True):
        assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert child.data.params == {name: str(value) for name, value in trial.params.items()}
        assert child.data.metrics["validation_unit_rmse"] == pytest.approx(trial.value)
        files = {
            name: Path(client.download_artifacts(child.info.run_id, name))
            for name in ("configuration.yaml", "reasons.json", "validation_predictions.parquet")
        }
        assert yaml.safe_load(files["configuration.yaml"].read_text())["parameters"] == trial.params
        assert bool(json.loads(files["reasons.json"].read_text())) == (trial.params["strategy"] in STRATEGIES[::3])
        rows = pd.read_parquet(files["validation_predictions.parquet"])
        assert scores(rows, 4.5)[METAREC].values["unit_rmse"] == pytest.approx(trial.value, rel=1e-5)
        assert set(rows["user"]) == set(given.validation.users)
    description = parent.data.tags["mlflow.note.content"]
    assert "It has 8 train users (everything)" in description
    assert "### Strategies" in description
    assert "### Engines" not in description
    assert parent.data.metrics["test/movies/metarec/rmse"] == result.test["movies"].scores[METAREC].rmse
    assert parent.data.params["transfer.target_users"] == "8"


# --- honest numbers --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("regime", REGIMES)
def test_the_data_of_a_trial_has_no_test_user(regime, world):
    spec = small_spec()
    rounds = TransferRounds(world, [4], spec.episodes, bases={"bias": {}})
    given = rounds.round("movies", shots=4, target_users=8, regime=regime)
    data = TrialData.of(given)
    tested, validated = set(given.test.users), set(data.validation.users)
    assert tested
    assert validated
    assert list(data.validation.users) == list(data.plain_validation.users)
    assert not tested & validated
    assert not (tested | validated) & set(data.few.users)
    for episodes in (data.few, data.plain_few, data.validation, data.plain_validation):
        assert not tested & set(episodes.users)
    for source in data.sources.values():
        assert not tested & {*source.train.users, *source.validation.users, *source.test.users}


@pytest.fixture
def inverted(world, given):
    """The world with inverted query ratings of the target's test users."""
    queried = {
        (user, item) for user, items in zip(given.test.users, given.test.query_items, strict=True) for item in items
    }
    movies = world["movies"]
    ratings = movies.ratings.copy()
    rows = [pair in queried for pair in zip(ratings["user"], ratings["item"], strict=True)]
    ratings.loc[rows, "rating"] = movies.scale.low + movies.scale.high - ratings.loc[rows, "rating"]
    return {**world, "movies": replace(movies, ratings=ratings)}


@pytest.mark.slow
def test_inverted_query_ratings_of_test_users_change_no_trial_and_no_prediction(done, inverted, tmp_path):
    before, _ = done
    after = run_study(small_spec(), inverted, Job(tmp_path, "s"))
    assert [trial.value for trial in after.ended] == [trial.value for trial in before.ended]
    assert after.best.params == before.best.params
    one, other = pd.read_parquet(before.predictions), pd.read_parquet(after.predictions)
    assert (one["rating"] != other["rating"]).mean() > 0.8
    pd.testing.assert_frame_equal(one.drop(columns="rating"), other.drop(columns="rating"), check_exact=True)


@pytest.mark.slow
def test_trials_that_are_scored_on_test_users_are_detected(inverted, world, tmp_path, monkeypatch):
    """The planted fault, which the test above would detect."""

    def peeking(given):
        return TrialData(given.sources, given.few, given.plain_few, given.test, given.plain_test)

    monkeypatch.setattr(transfer_objective.TrialData, "of", peeking)
    values = [
        run_study(small_spec(trials=1), domains, Job(tmp_path / name, "s")).best.value
        for name, domains in (("as it is", world), ("inverted", inverted))
    ]
    assert values[0] != values[1]


# --- continuing ------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_continued_study_runs_what_is_missing_and_refuses_another(done, world, tmp_path):
    whole, _ = done
    job = Job(tmp_path / "runs", "s")
    first = run_study(small_spec(trials=1), world, job)
    second = run_study(small_spec(trials=3), world, job)
    assert [trial.params["strategy"] for trial in second.ended] == STRATEGIES[:3]
    assert [trial.value for trial in second.ended] == [trial.value for trial in whole.ended[:3]]
    assert second.ended[0].datetime_complete == first.ended[0].datetime_complete
    for changed in ({"target_users": 7}, {"regime": "labels"}, None):
        transfer = changed and {**SMALL["transfer"], **changed}
        with pytest.raises(InputError, match='study "s" was begun with other data or settings'):
            run_study(small_spec(transfer=transfer), world, job)


IDENTIFYING = [
    *("baselines", "bases", "columns", "defaults", "engine", "episodes", "fusion", "pruner", "scale", "search", "seed"),
    *("target", "training"),
]
"""The keys that a study of networks was identified by before any key was added."""


def test_studies_without_the_new_keys_can_continue(world):
    spec = small_spec(transfer=None)
    settings = spec.model_dump(mode="json")
    new = {
        "transfer",
        "sampler",
        "objectives",
        "warm_start",
        "task",
        "ranking",
        "event_weights",
        "missing",
        "encoding",
        "tune_bases",
        "cross_fit",
        "protocol",
        "held_out",
    }
    for key in ("name", "description", "trials", "workers", "timeout", "domains", *new):
        del settings[key]
    # A key that is new here makes every study that was begun before it refuse to continue.
    assert sorted(settings) == IDENTIFYING
    data = {name: domain.fingerprint() for name, domain in world.items()}
    before = hashlib.sha256(json.dumps([settings, data], sort_keys=True).encode()).hexdigest()
    assert identity_of(spec, world) == before
    assert identity_of(small_spec(), world) != before
    assert identity_of(spec.model_copy(update={"sampler": "gp", "warm_start": ["s"]}), world) == before
    assert identity_of(spec.model_copy(update={"objectives": ["error", "seconds"]}), world) != before


@pytest.mark.slow
def test_strategies_are_timed_if_seconds_are_an_objective(world, tmp_path):
    spec = small_spec(trials=2, objectives=["error", "seconds"], pruner="none")
    result = run_study(spec, world, Job(tmp_path, "s"))
    assert [line.trial for line in result.timed] == [0, 1]
    assert all(line.seconds > 0 for line in result.timed)
    assert result.best.number == result.front[0].trial


@pytest.mark.slow
def test_a_study_where_only_labels_are_few(done, world, tmp_path):
    few, _ = done
    spec = small_spec(trials=2, transfer={**SMALL["transfer"], "regime": "labels"})
    result = run_study(spec, world, Job(tmp_path, "s"))
    assert [trial.params["strategy"] for trial in result.ended] == STRATEGIES[:2]
    # Its bases know all train users of the target.
    given = TransferRounds(world, [4], spec.episodes, bases=spec.bases, cache=tmp_path / "cache").round(
        "movies", shots=4, target_users=8, regime="labels"
    )
    unit = base_unit_predictions(given.plain_test)["item-knn"][given.plain_test.batch.query.mask.numpy()]
    rows = pd.read_parquet(result.predictions)
    np.testing.assert_allclose(rows["item-knn"], given.scale.to_ratings(np.clip(unit, 0.0, 1.0)), atol=1e-6)
    assert not np.allclose(rows["item-knn"], pd.read_parquet(few.predictions)["item-knn"], atol=0.1)


@pytest.mark.slow
def test_two_workers_run_the_trials_of_one_study(done, world, new_folder):
    alone, _ = done
    folder = new_folder()
    job = reported(folder, "s")
    result = run_study(small_spec(workers=2), world, job)
    assert {trial.state for trial in result.ended} == {TrialState.COMPLETE}
    values = {trial.params["strategy"]: trial.value for trial in result.ended}
    assert values == {trial.params["strategy"]: trial.value for trial in alone.ended}


# --- what is searched ------------------------------------------------------------------------------------------------


def test_trial_zero_equals_a_cell_of_a_comparison():
    spec = StudySpec(transfer={}, training={"patience": TransferSettings().patience})
    assert spec.trial_zero["strategy"] == "auto"
    # A study searches the weights of the loss; a comparison's loss has no terms.
    usual = transfer_settings(spec, spec.trial_zero)
    terms = {"prediction_loss": "mse", "diversity_weight": 1e-4, "correction_weight": 1e-2}
    assert usual.options == {**TransferSettings().options, **terms}
    assert usual.loss == "fusion"
    assert usual.model_copy(update={"options": TransferSettings().options, "loss": "mse"}) == TransferSettings()
    assert [params["strategy"] for params in spec.first_trials] == spec.transfer.strategies
    assert StudySpec().first_trials == [StudySpec().trial_zero]


def test_the_parameters_of_a_trial_reach_the_network():
    spec = StudySpec(transfer={}, fusion={"network": "attention", "options": {"hidden_dim": 8}})
    changes = {
        "inner_lr": 0.2,
        "inner_steps": 3,
        "learn_rates": False,
        "adapted": "all",
        "loss": "huber",
        "outer_lr": 0.01,
        "diversity_weight": 0.05,
        "confidence_weight": 0.5,
        "prediction_loss": "mae",
        "combine": "softmax",
    }
    assert set(spec.space) == {"strategy", *changes}
    assert not any(spec.trial_zero[name] == value for name, value in changes.items())
    settings = transfer_settings(spec, {"strategy": "scratch", **changes})
    assert (settings.network, settings.outer_lr) == ("attention", 0.01)
    assert settings.options == {
        "hidden_dim": 8,
        "diversity_weight": 0.05,
        "confidence_weight": 0.5,
        "prediction_loss": "mae",
        "combine": "softmax",
    }
    for name in ("inner_lr", "inner_steps", "learn_rates", "adapted", "loss"):
        assert getattr(settings, name) == changes[name]


def test_the_weights_of_the_loss_change_a_trial(given):
    options = {"hidden_dim": 8, "meta_hidden_dim": 8}
    spec = small_spec(fusion={"network": "attention", "options": options})
    params = {**spec.trial_zero, "strategy": "zero_shot", "loss": "fusion"}
    objective = TransferObjective(spec, TrialData.of(given), None)
    one, other = (
        objective.fit({**params, "confidence_weight": weight}).predict(given.validation, given.plain_validation)
        for weight in (0.001, 1.0)
    )
    assert not np.allclose(one, other, atol=1e-6)


def test_the_strategies_of_a_search_can_be_fewer():
    spec = small_spec(search={"strategy": {"choices": ["zero_shot"]}})
    assert [params["strategy"] for params in spec.first_trials] == ["zero_shot"]


# --- wrong input -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("transfer.strategies=[protoype_based]", 'unknown strategy "protoype_based"; did you mean "prototype_based"?'),
        ("transfer.strategies=[auto, auto]", 'strategy "auto" is named twice'),
        ("transfer.strategies=[]", "transfer.strategies: List should have at least 1 item"),
        ("transfer.target_user=5", 'unknown key "transfer.target_user"; did you mean "target_users"?'),
        ("transfer.target_users=1", "transfer.target_users: Input should be greater than or equal to 2, but got 1"),
        ("transfer.regime=label", "transfer.regime: Input should be 'everything' or 'labels', but got 'label'"),
        ("search.strategy={choices: [pooled]}", 'search.strategy: unknown choice "pooled"; Known: auto'),
        ("engine=higher", "needs engine: batched and training.first_order: false but got higher and false"),
        ("training.first_order=true", "needs engine: batched and training.first_order: false but got batched and true"),
        ("transfer=null", 'search: unknown parameter "strategy"'),
    ],
)
def test_a_wrong_spec_is_one_line(assignment, message):
    others = ["search.strategy={choices: [auto]}"] if assignment == "transfer=null" else []
    with pytest.raises(InputError) as raised:
        load_spec("transfer", {}, [*others, assignment])
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_wrong_domains_are_one_line_and_nothing_is_written(world, tmp_path):
    spec, movies = small_spec, {"movies": world["movies"]}
    many = {**SMALL["transfer"], "target_users": 50}
    for wrong, domains, message in (
        (spec(transfer=many), world, 'domain "movies": of its .* users .* but got 50'),
        (spec(), movies, "transfer needs at least two domains but got movies; give the ratings of another"),
        (spec(target=None), movies, "transfer needs at least two domains"),
        (spec(target="movie"), world, 'did you mean "movies"'),
        (spec(bases=["content"]), _without_items(world), "none of content has something to learn from"),
    ):
        with pytest.raises(InputError, match=message) as raised:
            run_study(wrong, domains, Job(tmp_path / "runs", "s"))
        assert "\n" not in str(raised.value)
    assert not (tmp_path / "runs").exists()


def _without_items(world):
    return {name: replace(domain, items=None) if name == "books" else domain for name, domain in world.items()}


@pytest.mark.slow
def test_a_base_that_needs_missing_item_features_is_left_out(world, tmp_path, caplog):
    spec = small_spec(trials=1, bases=["bias", "content"], baselines=["mean"])
    result = run_study(spec, _without_items(world), Job(tmp_path, "s"))
    assert set(result.test["movies"].scores) == {METAREC, "stack", "stack-mean", "bias", "mean"}
    assert "the base content is left out: not every domain has item features" in caplog.text
