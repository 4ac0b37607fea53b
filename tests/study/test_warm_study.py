"""A study of known users: its split, its model, the settings of bases, and what it refuses."""

import numpy as np
import pandas as pd
import pytest

import metarec
from metarec.ratings import simulate_domains, simulate_implicit_domains
from metarec.study.job import run_study
from metarec.study.spec import StudySpec
from metarec.tracking import sqlite_uri
from tests.support.studies import reported, tiny_spec


@pytest.fixture(scope="module")
def domains():
    return {"movies": simulate_domains(2, num_users=40, num_items=40, ratings_per_user=20)["movies"]}


@pytest.fixture(scope="module", params=["random", pytest.param("latest", marks=pytest.mark.slow)])
def finished(request, domains, new_folder):
    folder = new_folder()
    spec = tiny_spec(
        protocol="warm", held_out=request.param, trials=1, baselines=["mean", "ridge"], tune_bases=1, seed=1
    )
    return run_study(spec, domains, reported(folder, "known")), folder


def test_the_model_predicts_what_was_scored(finished, domains):
    result, folder = finished
    rows = pd.read_parquet(folder / "artifacts" / "known" / "predictions.parquet")
    model = metarec.load("models:/metarec-known@champion", tracking_uri=sqlite_uri(folder / "mlflow.db"))
    movies = domains["movies"].ratings.set_index(["user", "item"])["timestamp"]
    assert len(rows) == result.test["movies"].scores["metarec"].n_ratings
    for user, own in list(rows.groupby("user"))[:12]:
        history = model.history_of(user)
        assert not set(history.items) & set(own["item"])
        users = model.maker.users([model.cut(history)])
        items = own["item"].to_numpy(object)
        episodes = users.episodes([items], [movies.loc[[(user, item) for item in items]].to_numpy()])
        predicted = model.fusion.adapt(users.support).predict(episodes)[0]
        found = model.maker.scale.to_ratings(np.clip(predicted, 0, 1))
        np.testing.assert_allclose(found, own["metarec"], atol=2e-4)


def test_the_report_states_the_protocol(finished):
    _, folder = finished
    page = (folder / "artifacts" / "known" / "report.html").read_text(encoding="utf-8")
    assert "Ratings are split into train, validation and test" in page
    assert "Users are split" not in page


def test_the_settings_of_bases_are_tuned_on_validation_ratings(finished):
    result, _ = finished
    assert set(result.tuned) == {"bias", "item-knn"}


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"held_out": "latest"}, "held_out: latest needs protocol: warm but the protocol is cold"),
        ({"protocol": "warm", "task": "ranking"}, "protocol: warm needs the task rating"),
        ({"protocol": "warm", "transfer": {}}, "needs protocol: cold but got warm"),
        ({"protocol": "warm", "episodes": {"draws": 2}}, "draws must be 1 for protocol: warm"),
    ],
)
def test_what_does_not_go_together_is_refused(changes, rule):
    with pytest.raises(ValueError, match=rule):
        StudySpec.model_validate(changes)


def test_events_are_refused(tmp_path):
    shop = simulate_implicit_domains(0, num_users=40, num_items=150)
    with pytest.raises(ValueError, match="protocol: warm needs the task rating"):
        run_study(
            StudySpec.model_validate({"protocol": "warm", "target": "shop"}),
            {"shop": shop["shop"]},
            reported(tmp_path, "shop"),
        )
