"""``metarec serve`` and ``mlflow models serve``: every user has predictions, and a wrong request is a clear 4xx."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import mlflow.pyfunc
import numpy as np
import pandas as pd
import pytest
from mlflow.exceptions import MlflowException

from metarec.model.mlflow_model import ServedModel
from tests.model.test_model import files_of
from tests.support.threads import assert_same_bits

REQUESTS = 200


class Server:
    """A served model on a free port of loopback.

    Args:
        command: what is run, before the port.
    """

    def __init__(self, command, log):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.log = log
        # MLflow looks for its web server on the path, as in an environment that was activated.
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        environment = {**os.environ, "PATH": path, "OMP_NUM_THREADS": "1", "MLFLOW_DISABLE_TELEMETRY": "true"}
        with log.open("wb") as file:
            self.process = subprocess.Popen(
                [*command, "--port", str(self.port)], stdout=file, stderr=file, env=environment, start_new_session=True
            )

    def wait(self):
        for _ in range(240):
            if self.process.poll() is not None:
                break
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/ping", timeout=2):
                    return
            except OSError:
                time.sleep(0.25)
        raise AssertionError(self.log.read_text())

    def ask(self, body, kind="application/json"):
        """The status and the answer."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/invocations", data=content, headers={"Content-Type": kind}
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, json.loads(answer.read())
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def stop(self):
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGTERM)
            self.process.wait(30)


def command_of(kept, by):
    if by == "metarec":
        return [sys.executable, "-m", "metarec", "serve", kept.name, "--tracking-uri", kept.uri]
    options = ["-m", str(files_of(kept)), "--env-manager", "local", "--workers", "1"]
    return [str(Path(sys.executable).with_name("mlflow")), "models", "serve", *options]


@pytest.fixture(scope="module")
def own(kept, tmp_path_factory):
    """``metarec serve``."""
    with served(kept, "metarec", tmp_path_factory) as started:
        yield started
        began = time.monotonic()
        started.stop()
    assert time.monotonic() - began < 5
    assert started.process.returncode == 0
    assert "Traceback" not in started.log.read_text()


@pytest.fixture(scope="module", params=["metarec", pytest.param("mlflow", marks=pytest.mark.slow)])
def server(request, kept, tmp_path_factory):
    """Either server."""
    if request.param == "metarec":
        yield request.getfixturevalue("own")
        return
    with served(kept, "mlflow", tmp_path_factory) as started:
        yield started


@contextmanager
def served(kept, by, tmp_path_factory):
    started = Server(command_of(kept, by), tmp_path_factory.mktemp("server") / "log")
    try:
        started.wait()
        yield started
    finally:
        started.stop()


def records(*rows):
    return {"dataframe_records": list(rows)}


HISTORY = [{"item": "m001", "rating": 4.0}, {"item": "m002", "rating": 1.5}]


@pytest.mark.slow
def test_two_hundred_requests_of_each_kind(server, recommender):
    """Users of the model, new users with a history, and users without ratings have the model's predictions."""
    users, items = recommender.users, recommender.items
    by_hand = recommender.adapt(pd.DataFrame(HISTORY))
    empty = recommender.adapt(pd.DataFrame(HISTORY).iloc[:0])
    known = {user: recommender.user(user).predict(items) for user in users[:10]}
    new, cold = by_hand.predict(items), empty.predict(items)
    for number in range(REQUESTS):
        user, item = users[number % 10], items[number % len(items)]
        for row, expected in (
            ({"item": item, "user": user}, known[user][item]),
            ({"item": item, "history": HISTORY}, new[item]),
            ({"item": item}, cold[item]),
        ):
            status, answer = server.ask(records(row))
            assert status == 200, answer
            assert answer["predictions"] == [{"prediction": pytest.approx(expected, abs=1e-4)}]


def test_kinds_of_rows_can_be_mixed_in_any_order(server, recommender):
    items = recommender.items
    rows = [
        {"item": items[0], "user": recommender.users[0], "history": None},
        {"item": items[1], "user": None, "history": HISTORY},
        {"item": items[2], "user": None, "history": None},
        {"item": items[3], "user": recommender.users[0], "history": None},
    ]
    status, answer = server.ask(records(*rows))
    assert status == 200, answer
    one = recommender.user(recommender.users[0])
    predictions = [line["prediction"] for line in answer["predictions"]]
    assert predictions[0] == pytest.approx(one.predict([items[0]]).iloc[0], abs=1e-4)
    assert predictions[1] == pytest.approx(
        recommender.adapt(pd.DataFrame(HISTORY)).predict([items[1]]).iloc[0], abs=1e-4
    )
    assert predictions[3] == pytest.approx(one.predict([items[3]]).iloc[0], abs=1e-4)


MALFORMED = {
    "no item": records({"user": "u0001"}),
    "an unknown item": records({"item": "never seen"}),
    "an unknown user": records({"item": "m001", "user": "nobody"}),
    "a number for an item": records({"item": 7}),
    "a column too many": records({"item": "m001", "users": "u0001", "history": "text"}),
    "text for a rating": records({"item": "m001", "history": [{"item": "m002", "rating": "good"}]}),
    "a rating outside the scale": records({"item": "m001", "history": [{"item": "m002", "rating": 50.0}]}),
    "a history without a rating": records({"item": "m001", "history": [{"item": "m002"}]}),
    "an item rated twice": records({"item": "m001", "history": [HISTORY[0], HISTORY[0]]}),
    "text for a history": records({"item": "m001", "history": "m002"}),
    "no rows": records(),
    "an empty object": {},
    "a list": [1, 2, 3],
    "text": "hello",
    "null": None,
    "nothing": b"",
    "a megabyte of junk": os.urandom(2**20),
    "a megabyte of text for an item": records({"item": "x" * 2**20}),
}


@pytest.mark.parametrize("what", MALFORMED)
def test_a_wrong_request_is_a_clear_4xx(server, what):
    status, answer = server.ask(MALFORMED[what])
    assert 400 <= status < 500, (status, answer)
    assert len(answer) > 20, "the answer has the reason"
    assert server.ask(records({"item": "m001"}))[0] == 200


def test_brackets_that_never_close_do_not_bring_the_server_down(server):
    """MLflow's server answers a megabyte of brackets with its own 500."""
    status, _ = server.ask(b"[" * 2**20)
    assert status >= 400
    assert server.ask(records({"item": "m001"}))[0] == 200


FORMS = {
    "records": records({"item": "m001", "user": None}, {"item": "m002", "user": None}),
    "instances": {"instances": [{"item": "m001"}, {"item": "m002"}]},
    "inputs": {"inputs": [{"item": "m001"}, {"item": "m002"}]},
    "columns": {"inputs": {"item": ["m001", "m002"]}},
    "split": {"dataframe_split": {"columns": ["user", "item"], "data": [[None, "m001"], [None, "m002"]]}},
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_has_the_same_answer(own, form, recommender, empty_history):
    expected = recommender.adapt(empty_history).predict(["m001", "m002"])
    status, answer = own.ask(FORMS[form])
    assert status == 200, answer
    assert [row["prediction"] for row in answer["predictions"]] == expected.tolist()


def test_csv_is_answered_too(own, recommender):
    user = recommender.users[0]
    # Spreadsheets begin a file with a byte order mark.
    status, answer = own.ask(f"\ufeffuser,item\n{user},m001\n,m002\n".encode(), "text/csv; charset=utf-8")
    assert status == 200, answer
    assert answer["predictions"][0] == {"prediction": recommender.user(user).predict(["m001"]).iloc[0]}


REFUSED = {
    "two forms": ({**records({"item": "m001"}), "inputs": []}, "an object with one of"),
    "deep": (b'{"inputs": ' + b"[" * 10**5, "nested too deeply|must be JSON"),
    "a cell too few": ({"dataframe_split": {"columns": ["item"], "data": [[]]}}, "row 0 must have 1 values"),
    "a column twice": ({"dataframe_split": {"columns": ["item", "item"], "data": []}}, "each column once"),
    "split without rows": ({"dataframe_split": {}}, "the lists columns and data"),
    "many columns": ({"inputs": [{f"c{number}": 1} for number in range(5000)]}, "must be among item, user, history"),
    "columns of other lengths": ({"inputs": {"item": ["m001"], "user": []}}, "a value for each row"),
    "digits": (b'{"inputs": [{"item": ' + b"9" * 10**5 + b"}]}", "must be JSON"),
    "NaN": (b'{"inputs": [{"item": "m001", "history": [{"item": "m002", "rating": NaN}]}]}', "finite number"),
    "infinity": (b'{"inputs": [{"item": "m001", "history": [{"item": "m002", "rating": 1e999}]}]}', "finite number"),
    "1e308": (records({"item": "m001", "history": [{"item": "m002", "rating": 1e308}]}), "finite number"),
    "a flag": (records({"item": "m001", "history": [{"item": "m002", "rating": True}]}), "finite number"),
    "a list for a user": (records({"item": "m001", "user": []}), "user must be text or a whole number"),
    "a flag for an item": (records({"item": True}), "row 0: item must be text or a whole number"),
    "null for an item": (records({"item": None}), "row 0: item must be text or a whole number"),
    "a number that was rounded": (records({"item": 1e18}), "row 0: item .* rounded"),
    "an object for a history": (records({"item": "m001", "history": {}}), "history must be a list"),
    "a key too many": (records({"item": "m001", "history": [{**HISTORY[0], "more": 1}]}), r"history\[0\] must have"),
    "a surrogate": (b'{"inputs": [{"item": "\\ud800"}]}', "unknown item"),
    "mlflow 6079, a column too many": (
        records({"item": "m001", "age": 3}),
        "must be among item, user, history but one is age",
    ),
    "mlflow 5207, no rating": (
        records({"item": "m001", "history": [{"item": "m002", "rating": None}]}),
        "finite number",
    ),
    "mlflow 3996, a flag for an item": (records({"item": True}), "item must be text"),
    "a history as text": (records({"item": "m001", "history": '[{"item": "m002", "rating": 4}]'}), "must be a list"),
    "mlflow 6421, the form of older versions": ({"columns": ["item"], "data": [["m001"]]}, "an object with one of"),
    "a key twice": (b'{"inputs": [{"item": "m001", "item": "m002"}]}', "must be JSON: .*item.* is there twice"),
    "half a letter": (b'{"inputs": [{"item": "\xff"}]}', "must be JSON"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_a_refusal_names_the_rule_and_nothing_of_the_code(own, what):
    content, rule = REFUSED[what]
    status, answer = own.ask(content)
    assert status == 400, answer
    assert set(json.loads(answer)) == {"error_code", "message"}
    assert re.search(rule, json.loads(answer)["message"])
    assert "Traceback" not in answer
    assert len(answer) < 1000


def test_limits_are_named_in_the_answer(own):
    long = [{"item": f"x{number}", "rating": 3.0} for number in range(10_001)]
    for content, status, rule in (
        (records({"item": "m001", "history": long}), 400, "METAREC_MAX_HISTORY=10,000 ratings"),
        ({"inputs": [{"item": "m001"}] * 10_001}, 400, "METAREC_MAX_REQUEST_ROWS=10,000 rows"),
        (b" " * (8 * 2**20 + 1), 413, "METAREC_MAX_REQUEST_BYTES=8,388,608 bytes"),
    ):
        found, answer = own.ask(content)
        assert (found, rule in answer) == (status, True), answer


def test_the_longest_history_is_answered_at_once(own):
    """A history of 100,000 ratings took 14 s, in which others waited."""
    long = [{"item": f"x{number}", "rating": 3.0} for number in range(10_000)]
    began = time.monotonic()
    status, answer = own.ask(records({"item": "m001", "history": long}))
    assert status == 200, answer
    assert time.monotonic() - began < 3
    assert answer["predictions"][0]["unknown_in_history"] == 10_000


def test_ratings_of_unknown_items_are_counted(own):
    rated = [HISTORY[0], {"item": "never seen", "rating": 2.0}]
    status, answer = own.ask(records({"item": "m001", "history": rated}, {"item": "m001"}))
    assert status == 200, answer
    assert [row["unknown_in_history"] for row in answer["predictions"]] == [1, 0]


def test_other_paths_and_methods_are_refused(own):
    for path, method, expected in (("/", "GET", 404), ("/docs", "GET", 404), ("/invocations", "GET", 405)):
        request = urllib.request.Request(f"http://127.0.0.1:{own.port}{path}", method=method)
        with pytest.raises(urllib.error.HTTPError) as raised:
            urllib.request.urlopen(request, timeout=10)
        assert raised.value.code == expected


def test_eight_clients_have_the_answers_of_one(own, recommender):
    users, items = recommender.users, recommender.items.tolist()

    def ask(number):
        user, some = users[number % len(users)], items[number % 20 : number % 20 + 5]
        rows = [{"item": item, "user": user, "history": None} for item in some]
        status, answer = own.ask(records(*rows, {"item": items[0], "user": None, "history": HISTORY[: number % 3]}))
        assert status == 200, answer
        return [row["prediction"] for row in answer["predictions"]]

    assert_same_bits(ask, list(range(96)))


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        (["models:/none@champion"], "models:/none@champion: cannot be loaded"),
        (["MODEL", "--host", "192.0.2.1"], "cannot listen there"),
        (["MODEL", "--port", "0"], "--port"),
    ],
)
def test_a_command_that_cannot_serve_is_one_line(kept, options, rule):
    words = [kept.name if word == "MODEL" else word for word in options]
    done = run([sys.executable, "-m", "metarec.serve", *words, "--tracking-uri", kept.uri])
    assert done.returncode == 2
    assert rule in done.stderr
    assert "Traceback" not in done.stderr


def run(command):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment, check=False)


def test_an_unknown_kind_of_content_is_a_4xx(server):
    assert 400 <= server.ask(b"<x/>", "application/xml")[0] < 500
    assert server.ask(records({"item": "m001"}))[0] == 200


def test_a_wrong_rating_names_the_rule(server):
    _, answer = server.ask(MALFORMED["a rating outside the scale"])
    assert "row 0: every rating must lie in 0.5..5 but the history holds 50" in answer
    _, answer = server.ask(MALFORMED["an unknown item"])
    assert 'row 0: unknown item \\"never seen\\"; the model has 40 items' in answer


def test_a_changed_model_is_not_served(kept, tmp_path):
    folder = Path(shutil.copytree(files_of(kept), tmp_path / "model"))
    with (folder / "data" / "metarec" / "facts.npz").open("ab") as file:
        file.write(b"x")
    with pytest.raises(Exception, match=r"facts\.npz: not the file that was written"):
        mlflow.pyfunc.load_model(str(folder))


def test_pyfunc_answers_as_the_server_does(kept, recommender):
    model = mlflow.pyfunc.load_model(str(files_of(kept)))
    example = model.input_example
    predicted = model.predict(example)
    assert list(predicted.columns) == ["prediction"]
    one = recommender.user(example["user"][0])
    assert predicted["prediction"].to_numpy() == pytest.approx(one.predict(example["item"]).to_numpy(), abs=1e-5)
    with pytest.raises(MlflowException):
        model.predict(pd.DataFrame({"item": ["never seen"]}))


def test_whole_numbers_are_ratings_and_times(own, kept):
    """MLflow refuses a whole number where a signature has double."""
    rows = [
        {"item": "m003", "history": [{"item": "m001", "rating": rating, "timestamp": time}]}
        for rating, time in ((4.0, 5.0), (4, 5))
    ]
    status, answer = own.ask(records(*rows))
    assert status == 200, answer
    first, second = (row["prediction"] for row in answer["predictions"])
    assert first == second
    model = mlflow.pyfunc.load_model(str(files_of(kept)))
    predicted = model.predict(pd.DataFrame(rows))["prediction"].tolist()
    assert predicted == pytest.approx([first, second], abs=1e-5)
    for rating in ("x", None, True):
        with pytest.raises(MlflowException, match=r"history\[0\].rating must be a finite number"):
            model.predict(pd.DataFrame([{"item": "m003", "history": [{"item": "m001", "rating": rating}]}]))


def test_whole_numbers_are_ids(own, kept):
    """Files with whole numbers as ids have models whose ids are their texts; clients send the numbers."""
    rows = [
        {"item": "m003", "history": [{"item": "m001", "rating": 2.0}, {"item": number, "rating": 4.0}]}
        for number in ("7", 7, 7.0)
    ]
    status, answer = own.ask(records(*rows))
    assert status == 200, answer
    assert answer["predictions"] == [answer["predictions"][0]] * 3
    assert answer["predictions"][0]["unknown_in_history"] == 1
    model = mlflow.pyfunc.load_model(str(files_of(kept)))
    assert model.predict(pd.DataFrame(rows)).drop_duplicates().shape == (1, 2)
    for ids, rule in (
        ({"item": [7, 8]}, 'row 0: unknown item "7"'),
        ({"item": ["m001", "m001"], "user": [None, 7]}, 'row 1: .*"7"'),
        ({"item": [True, False]}, "row 0: item must be text or a whole number"),
    ):
        with pytest.raises(MlflowException, match=rule):
            model.predict(pd.DataFrame(ids))


def test_long_histories_that_differ_in_the_middle_are_different(recommender):
    """Rows with the same history share one adaptation; numpy abbreviates both of these histories alike."""
    served, items = ServedModel(recommender), recommender.items

    def history(rating):
        rated = [(f"x{number:04}", 3.0) for number in range(1200)]
        rated[600:640] = [(item, rating) for item in items]
        return np.array(
            [
                {"item": item, "rating": value, "timestamp": number + 5000.0 * (600 <= number < 640)}
                for number, (item, value) in enumerate(rated)
            ],
            dtype=object,
        )

    rows = pd.DataFrame({"item": [items[0], items[0]], "history": [history(1.0), history(5.0)]})
    low, high = served.predict(rows)["prediction"]
    assert low < high - 0.1
