"""Lists from a server, from MLflow's pyfunc and from the command are those of the model; wrong requests are refused."""

import asyncio
import json
import re

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from metarec.cli.predict import app, recommend_table
from metarec.errors import InputError
from metarec.model.mlflow_model import ServedModel
from metarec.model.server import application
from tests.support.threads import assert_same_bits


def ask(server, content, kind="application/json"):
    """The status and the answer of a request to an application."""
    sent = []
    scope = {
        **{"type": "http", "method": "POST", "path": "/invocations", "query_string": b""},
        "headers": [(b"content-type", kind.encode())],
    }

    async def receive():
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message):
        sent.append(message)

    asyncio.run(server(scope, receive, send))
    return sent[0]["status"], json.loads(b"".join(message.get("body", b"") for message in sent[1:]))


@pytest.fixture(scope="module")
def server(lists):
    return application(lists, 1)


def records(*rows):
    return {"dataframe_records": list(rows)}


HISTORY = [{"item": "i001"}, {"item": "i002", "weight": 3.0}]


def answer_of(table):
    return {"items": table["item"].tolist(), "scores": table["score"].tolist()}


def test_users_of_the_model_new_users_and_users_without_events(server, lists):
    user = lists.users[0]
    rows = [{"user": user, "n": 3}, {"history": HISTORY}, {}, {"user": user, "history": HISTORY, "n": 2}]
    status, answer = ask(server, records(*rows))
    assert status == 200, answer
    history = pd.DataFrame({"item": ["i001", "i002"], "weight": [1.0, 3.0]})
    expected = [
        lists.user(user).recommend(3),
        lists.recommend(10, history),
        lists.recommend(10, history.iloc[:0]),
        lists.recommend(2, history),
    ]
    for found, table in zip(answer["predictions"], expected, strict=True):
        assert found["items"] == table["item"].tolist()
        assert found["scores"] == pytest.approx(table["score"].tolist(), abs=1e-6)


def test_every_form_has_the_same_answer(server, lists):
    user = lists.users[0]
    expected = [answer_of(lists.user(user).recommend(10))]
    forms = [
        {"instances": [{"user": user}]},
        {"inputs": {"user": [user]}},
        {"dataframe_split": {"columns": ["n", "user"], "data": [[10, user]]}},
    ]
    for form in forms:
        assert ask(server, form) == (200, {"predictions": expected})
    assert ask(server, f"user\n{user}\n".encode(), "text/csv") == (200, {"predictions": expected})


def test_unknown_items_are_counted(server):
    status, answer = ask(server, records({"history": [*HISTORY, {"item": "never seen"}]}, {}))
    assert status == 200
    assert [row["unknown_in_history"] for row in answer["predictions"]] == [1, 0]


REFUSED = {
    "an unknown user": (records({"user": "nobody"}), 'row 0: unknown user "nobody"; the model has 70 users'),
    "no rows": (records(), "at least one row"),
    "no columns": ({"inputs": {}}, "at least one row"),
    "n of 0": (records({"n": 0}), r"row 0: n must be a whole number in 1\.\.1,000 but got 0"),
    "half an item": (records({}, {"n": 1.5}), "row 1: n must be a whole number"),
    "text for n": (records({"n": "3"}), "n must be a whole number"),
    "a flag for n": (records({"n": True}), "n must be a whole number"),
    "NaN for n": (b'{"inputs": [{"n": Infinity}]}', "n must be a whole number"),
    "a very long list": (records({"n": 10**6}), "n must be a whole number"),
    "an item to predict": (records({"item": "i001"}), "must be among user, history, n but one is item"),
    "a rating": (
        records({"history": [{"item": "i001", "rating": 3.0}]}),
        r"history\[0\] must have item and optionally",
    ),
    "no item": (records({"history": [{"weight": 3.0}]}), r"history\[0\] must have item"),
    "a flag for an item": (records({"history": [{"item": True}]}), r"history\[0\].item must be text or a whole number"),
    "a weight of 0": (records({"history": [{"item": "i001", "weight": 0}]}), "finite and > 0 but got 0"),
    "a negative weight": (records({"history": [{"item": "i001", "weight": -1}]}), "finite and > 0 but got -1"),
    "NaN": (b'{"inputs": [{"history": [{"item": "i001", "weight": 1e999}]}]}', "must be a finite number"),
    "a history that is text": (records({"history": "i001"}), "history must be a list of events"),
    "too many lists": ({"inputs": [{}] * 1001}, "METAREC_MAX_REQUEST_LISTS=1,000 rows"),
    "a long history": (records({"history": [{"item": "i001"}] * 10_001}), "METAREC_MAX_HISTORY=10,000 events"),
    "columns of other lengths": ({"inputs": {"user": ["a"], "n": []}}, "a value for each row"),
    "a column that is no list": ({"inputs": {"user": "a"}}, "a value for each row"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_a_wrong_request_is_a_400_that_names_the_rule(server, what):
    content, rule = REFUSED[what]
    status, answer = ask(server, content)
    assert status == 400, answer
    assert set(answer) == {"error_code", "message"}
    assert re.search(rule, answer["message"]), answer


def test_csv_has_users_only(server):
    status, answer = ask(server, b"user,n\nu0001,3\n", "text/csv")
    assert (status, "n cannot be given in csv" in answer["message"]) == (400, True)


def test_eight_clients_have_the_answers_of_one(lists):
    served = ServedModel(lists)
    users = lists.users

    def request(number):
        rows = pd.DataFrame({"user": [users[number % len(users)], None], "history": [None, HISTORY[: number % 3]]})
        return np.concatenate(served.predict(rows)["scores"].to_list())

    assert_same_bits(request, list(range(16)))


# --- the command -----------------------------------------------------------------------------------------------------


@pytest.fixture
def asked(lists, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = pd.DataFrame({"user": [*lists.users[:2], "new", lists.users[0], "nobody"]})
    histories = pd.DataFrame({"user": "new", "item": ["i001", "i002"], "weight": [1.0, 3.0]})
    rows.to_parquet("rows.parquet")
    histories.to_parquet("histories.parquet")
    return rows, histories


def test_every_user_has_a_list(lists, asked):
    found, counts = recommend_table(lists, *asked, top=4)
    assert list(found.columns) == ["user", "item", "rank", "score"]
    assert counts == {"users with a history given": 1, "users with events in the model": 2, "users without events": 1}
    assert found["user"].unique().tolist() == [*lists.users[:2], "new", "nobody"]
    expected = {user: lists.user(user) for user in lists.users[:2]}
    expected["new"] = lists.adapt(asked[1])
    expected["nobody"] = lists.adapt(asked[1].iloc[:0])
    for user, own in found.groupby("user"):
        table = expected[user].recommend(4)
        assert own["item"].tolist() == table["item"].tolist()
        assert own["score"].tolist() == pytest.approx(table["score"].tolist(), abs=1e-6)
        assert own["rank"].tolist() == [1, 2, 3, 4]
    nobody, _ = recommend_table(lists, asked[0].iloc[:0])
    assert nobody.empty


def test_the_command(lists, lists_folder, asked):
    words = ["rows.parquet", "out.parquet", "--histories", "histories.parquet", "--top", "4"]
    ran = CliRunner().invoke(app, [str(lists_folder), *words])
    assert ran.exception is None
    assert ran.output == (
        "4 lists with 16 items in out.parquet: 1 users with a history given, 2 users with events in the model, "
        "1 users without events\n"
    )
    expected, _ = recommend_table(lists, *asked, top=4)
    pd.testing.assert_frame_equal(pd.read_parquet("out.parquet"), expected)


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"weight": np.inf}, 'row 1: the weight (column "weight") must be a finite number but is "inf"'),
        ({"weight": -1.0}, 'user "new": every weight of a history must be finite and > 0 but got -1'),
        ({"weight": "three"}, 'row 1: the weight (column "weight") must be a finite number but is "three"'),
        ({"rating": 3.0}, 'user "new": a history of events has no column rating'),
    ],
)
def test_a_wrong_history_is_one_line(lists_folder, asked, changes, rule):
    asked[1].assign(**changes).to_parquet("histories.parquet")
    words = [str(lists_folder), "rows.parquet", "out.parquet", "--histories", "histories.parquet"]
    ran = CliRunner().invoke(app, words)
    assert isinstance(ran.exception, InputError)
    assert rule in str(ran.exception)


def test_a_table_without_users_is_one_line(lists_folder, asked):
    pd.DataFrame({"item": ["i001"]}).to_parquet("rows.parquet")
    ran = CliRunner().invoke(app, [str(lists_folder), "rows.parquet", "out.parquet"])
    assert 'needs the columns user, but "user" is missing' in str(ran.exception)
