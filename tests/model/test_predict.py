"""Batch scoring: the command has the model's predictions, and prints wrong input in one line."""

import os
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from metarec.cli.predict import app, predict_table
from metarec.errors import InputError
from metarec.ratings import read_rows


@pytest.fixture
def rows(recommender):
    users = [*recommender.users[:3], "new", "nobody"]
    return pd.DataFrame(
        {
            "user": [user for _ in range(4) for user in users],
            "item": [recommender.items[row] for row in range(20)],
            "note": range(20),
        }
    )


@pytest.fixture
def histories(recommender):
    return pd.DataFrame({"user": "new", "item": recommender.items[20:26], "rating": [1.0, 5.0, 2.0, 4.0, 3.0, 3.5]})


def test_every_row_has_the_models_prediction(recommender, rows, histories, empty_history):
    shuffled = rows.sample(frac=1, random_state=0).reset_index(drop=True)
    predicted, counts = predict_table(recommender, shuffled, histories)
    pd.testing.assert_frame_equal(predicted.drop(columns="prediction"), shuffled)
    models = {user: recommender.user(user) for user in recommender.users[:3]}
    models["new"] = recommender.adapt(histories.drop(columns="user"))
    models["nobody"] = recommender.adapt(empty_history)
    for row in predicted.itertuples():
        assert row.prediction == pytest.approx(models[row.user].predict([row.item]).iloc[0], abs=1e-5)
    assert counts == {
        "users with a history given": 1,
        "users with ratings in the model": 3,
        "users without ratings": 1,
        "rows with an unrated item": 0,
    }


def test_given_histories_replace_the_kept_ratings(recommender, rows, histories):
    user = recommender.users[0]
    given = histories.assign(user=user)
    predicted, _ = predict_table(recommender, rows[rows["user"] == user], given)
    by_hand = recommender.adapt(given.drop(columns="user")).predict(predicted["item"])
    assert predicted["prediction"].to_numpy() == pytest.approx(by_hand.to_numpy(), abs=1e-5)


def test_a_history_that_breaks_a_rule_names_the_user(recommender, rows, histories):
    with pytest.raises(InputError, match=r'user "new": every rating must lie in 0\.5\.\.5 but the history holds 9'):
        predict_table(recommender, rows, histories.assign(rating=9.0))


def test_the_command(kept, recommender, rows, histories, tmp_path):
    rows.to_parquet(tmp_path / "rows.parquet")
    histories.to_parquet(tmp_path / "histories.parquet")
    command = [sys.executable, "-m", "metarec.predict", kept.name, "rows.parquet", "out.parquet"]
    options = ["--histories", "histories.parquet", "--tracking-uri", kept.uri]
    ran = subprocess.run([*command, *options], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout == ""
    assert ran.stderr == (
        "20 predictions in out.parquet: 1 users with a history given, 3 users with ratings in the model, "
        "1 users without ratings, "
        "0 rows with an unrated item\n"
    )
    expected, _ = predict_table(recommender, rows, histories)
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "out.parquet"), expected)


@pytest.mark.parametrize(
    ("table", "rule"),
    [
        (None, "rows.parquet: not a parquet file that can be read"),
        (pd.DataFrame({"user": ["a"]}), 'needs the columns user, item, but "item" is missing'),
        (
            pd.DataFrame({"user": ["a", None], "item": ["x", "y"]}),
            'rows.parquet, row 2: the user id (column "user") is missing',
        ),
    ],
)
def test_a_wrong_table_is_one_line(kept, tmp_path, monkeypatch, table, rule):
    monkeypatch.chdir(tmp_path)
    if table is None:
        (tmp_path / "rows.parquet").write_text("junk")
    else:
        table.to_parquet("rows.parquet")
    ran = CliRunner().invoke(app, [kept.name, "rows.parquet", "out.parquet", "--tracking-uri", kept.uri])
    assert isinstance(ran.exception, InputError)
    assert rule in str(ran.exception)
    assert not (tmp_path / "out.parquet").exists()


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"rating": np.inf}, 'row 1: the rating (column "rating") must be a finite number but is "inf"'),
        ({"rating": True}, 'row 1: the rating (column "rating") must be a finite number but is "True"'),
        ({"rating": ["4", "four"]}, 'row 2: the rating (column "rating") must be a finite number but is "four"'),
        ({"rating": [4.0, np.nan]}, 'row 2: the rating (column "rating") is missing'),
        ({"timestamp": "yesterday"}, 'row 1: the timestamp (column "timestamp") must be seconds'),
        ({"timestamp": [5.0, np.nan]}, 'row 2: the timestamp (column "timestamp") is missing'),
        ({"timestamp": pd.to_datetime(["2001-01-01", None])}, 'row 2: the timestamp (column "timestamp") is missing'),
        ({"user": "x" * 1001}, "must have at most 1,000 letters"),
        ({"item": "x\0"}, "holds the letter"),
    ],
)
def test_a_wrong_history_is_one_line(tmp_path, changes, rule):
    path = tmp_path / "h.parquet"
    pd.DataFrame({"user": ["a", "b"], "item": ["x", "y"], "rating": [4.0, 3.0]}).assign(**changes).to_parquet(path)
    with pytest.raises(InputError) as caught:
        read_rows(path, ("user", "item"), ("rating",), ("rating",), ("timestamp",))
    assert str(caught.value).startswith(str(path))
    assert rule in str(caught.value)


@pytest.mark.parametrize(
    "times", [pd.to_datetime(["2014-05-13 16:53:20", "2014-05-14 00:00:00"]), ["2014-05-13T16:53:20Z", "2014-05-14"]]
)
def test_histories_have_the_ids_and_the_times_of_the_readers(tmp_path, times):
    rows = pd.DataFrame({"user": ["a", "a"], "item": [7.0, 8.0], "rating": [4, 3], "timestamp": times})
    rows.to_parquet(tmp_path / "h.parquet")
    read = read_rows(tmp_path / "h.parquet", ("user", "item"), ("rating",), ("rating",), ("timestamp",))
    assert read["item"].tolist() == ["7", "8"]
    assert read["timestamp"].tolist() == [1_400_000_000, 1_400_025_600]


def test_ratings_make_no_lists(kept, rows, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows.to_parquet("rows.parquet")
    words = [kept.name, "rows.parquet", "out.parquet", "--top", "3", "--tracking-uri", kept.uri]
    ran = CliRunner().invoke(app, words)
    assert "predicts ratings and makes no lists; leave out --top" in str(ran.exception)


def test_tables_of_text_are_read_and_written(kept, recommender, rows, histories, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows.to_csv("rows.csv", index=False, sep=";")
    histories.to_csv("histories.csv", index=False)
    words = [kept.name, "rows.csv", "out.csv", "--histories", "histories.csv", "--tracking-uri", kept.uri]
    assert CliRunner().invoke(app, words).exit_code == 0
    expected, _ = predict_table(recommender, rows, histories)
    found = pd.read_csv("out.csv", dtype={"user": str, "item": str})
    np.testing.assert_allclose(found["prediction"], expected["prediction"], atol=1e-6)
    assert found[["user", "item"]].equals(expected[["user", "item"]].reset_index(drop=True))


def test_ids_are_written_as_in_the_table_of_ratings(tmp_path):
    table = pd.DataFrame({"user": [1.0, 2.0, 1.0], "item": [b"x", b" y", b"y"], "note": [1, 2, 3]})
    table.to_parquet(tmp_path / "rows.parquet")
    rows = read_rows(tmp_path / "rows.parquet", ("user", "item"))
    assert rows.to_dict("list") == {"user": ["1", "2", "1"], "item": ["x", "y", "y"], "note": [1, 2, 3]}


def test_what_is_no_regular_file_or_too_large_is_refused_at_once(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "h.parquet")
    with pytest.raises(InputError, match="is a named pipe"):
        read_rows(tmp_path / "h.parquet", ("user", "item"))
    with pytest.raises(InputError, match="no part of a table in this folder"):
        read_rows(tmp_path, ("user", "item"))
    pd.DataFrame({"user": ["a"] * 99, "item": "x"}).to_parquet(tmp_path / "large.parquet")
    monkeypatch.setenv("METAREC_MAX_TABLE_BYTES", "1000")
    with pytest.raises(InputError, match="more than METAREC_MAX_TABLE_BYTES=1,000 bytes"):
        read_rows(tmp_path / "large.parquet", ("user", "item"))
