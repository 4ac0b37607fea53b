"""The benchmark on published lists of cold users: which ratings are known, and a small one from end to end."""

import json

import numpy as np
import pandas as pd
import pytest

from benchmarks.published import run as published
from benchmarks.published.metahin import FEWEST, QUERY, predict_lists, read_lists
from metarec.errors import InputError
from metarec.study.spec import load_spec
from tests.episodes.conftest import make_domain

SMALL = {
    "episodes": {"shots": 5, "folds": 2, "min_query": 2},
    "trials": 2,
    "bases": ["bias", "item-knn"],
    "baselines": ["ridge", "fwls"],
    "training": {"epochs": 2},
}


@pytest.fixture
def data(tmp_path, monkeypatch):
    """A folder with a table of ratings and lists of three of its users."""
    folder = tmp_path / "data" / "ml1m"
    folder.mkdir(parents=True)
    ratings = make_domain("movies", users=40).ratings[["user", "item", "rating"]]
    ratings.to_csv(folder / "ratings.csv.gz", index=False)
    sizes = ratings.groupby("user").size()
    cold = sizes[sizes >= FEWEST].index[:3]
    # A user with too few ratings is in no query, and nothing is learned from that user.
    few = ratings[ratings["user"] == sizes.index[-1]].head(FEWEST - 1)
    lists = pd.concat([ratings[ratings["user"].isin(cold)], few])
    lists["position"] = lists.groupby("user").cumcount()
    lists.sample(frac=1, random_state=0).to_csv(folder / "metahin_user_cold.csv.gz", index=False)
    monkeypatch.setenv("METAREC_DATA", str(folder.parent))
    return folder


def test_the_last_ratings_by_position_are_the_query(data):
    lists = read_lists(data)
    table = pd.read_csv(data / "metahin_user_cold.csv.gz", dtype={"user": str, "item": str})
    assert not set(table["user"]) & set(lists.domain.ratings["user"])
    sizes = table["user"].value_counts()
    assert sizes.min() == FEWEST - 1
    assert set(lists.query["user"]) == set(lists.support["user"]) == set(sizes[sizes >= FEWEST].index)
    for user, own in table[table["user"].map(sizes) >= FEWEST].sort_values("position").groupby("user"):
        assert lists.query.loc[lists.query["user"] == user, "item"].tolist() == own["item"].tolist()[-QUERY:]
        assert lists.support.loc[lists.support["user"] == user, "item"].tolist() == own["item"].tolist()[:-QUERY]


def test_no_prediction_depends_on_a_query_rating(data, tmp_path):
    lists = read_lists(data)
    spec = load_spec("cold-start", SMALL)
    before, chosen = predict_lists(lists, spec, tmp_path / "bases", 1)
    turned = lists._replace(query=lists.query.assign(rating=lists.domain.scale.low))
    after, _ = predict_lists(turned, spec, tmp_path / "bases", 1)
    models = before.columns.drop(["user", "item", "rating"])
    assert {"metarec", "network", "stack", "no-inner-loop", "ridge", "bias"} <= set(models)
    pd.testing.assert_frame_equal(before[models], after[models])
    assert set(chosen) >= {"metarec", "stack", "ridge"}
    # The support is used.
    fewer = lists._replace(support=lists.support.groupby("user").head(1))
    assert (predict_lists(fewer, spec, tmp_path / "bases", 1)[0]["bias"] != before["bias"]).any()


def test_the_command_writes_a_report(data, tmp_path, capsys):
    published.run(1, tmp_path / "work", tmp_path, None, settings=SMALL)
    found = json.loads((tmp_path / "published.json").read_text())["metahin"]
    assert (found["n_users"], found["n_ratings"]) == (3, 3 * QUERY)
    models = found["models"]
    assert "gain" not in models["metarec"]
    assert models["stack"]["gain"] == pytest.approx(100 * (1 - models["metarec"]["mae"] / models["stack"]["mae"]))
    assert "| *MeLU* | 0.79 |" in (tmp_path / "published.md").read_text()
    assert "| `metarec` |" in capsys.readouterr().out


def test_measures_are_those_of_the_rows():
    rows = pd.DataFrame({"user": ["a", "a", "b"], "item": list("xyz"), "rating": [1.0, 2.0, 3.0]})
    rows = rows.assign(metarec=rows["rating"] + [1, -1, 1], stack=rows["rating"] + 2)
    found = published.measured(rows)
    assert (found["metarec"]["mae"], found["stack"]["rmse"]) == (1.0, 2.0)
    assert found["stack"]["gain"] == 50.0
    np.testing.assert_allclose(found["stack"]["interval"], 50.0)


def test_bad_input_is_one_line(data, tmp_path, monkeypatch):
    def refused():
        with pytest.raises(InputError) as caught:
            published.run(1, tmp_path / "work", tmp_path, None, settings=SMALL)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    path = data / "metahin_user_cold.csv.gz"
    table = pd.read_csv(path, dtype={"user": str, "item": str})
    table.groupby("user").head(QUERY).to_csv(path, index=False)
    assert "some users must have 13 to 100 ratings but none has" in refused()
    table.drop(columns="position").to_csv(path, index=False)
    assert "must be a table of user, item, rating and position" in refused()
    path.unlink()
    assert "must be a table of user, item, rating and position" in refused()
    monkeypatch.delenv("METAREC_DATA")
    assert "METAREC_DATA must name the folder" in refused()
