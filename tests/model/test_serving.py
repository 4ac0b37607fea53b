"""``mlflow models serve``: every kind of user has predictions, and a wrong request is a clear 4xx."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import mlflow.pyfunc
import numpy as np
import pandas as pd
import pytest
from mlflow.exceptions import MlflowException

from metarec.model.mlflow_model import ServedModel
from tests.model.test_model import files_of

REQUESTS = 200


class Server:
    """A served model on a free port of loopback."""

    def __init__(self, folder, log):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.log = log
        mlflow_command = str(Path(sys.executable).with_name("mlflow"))
        command = [mlflow_command, "models", "serve", "-m", str(folder), "-p", str(self.port), "--env-manager", "local"]
        # MLflow looks for its web server on the path, as in an environment that was activated.
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        environment = {**os.environ, "PATH": path, "OMP_NUM_THREADS": "1", "MLFLOW_DISABLE_TELEMETRY": "true"}
        with log.open("wb") as file:
            self.process = subprocess.Popen(
                [*command, "--workers", "1"], stdout=file, stderr=file, env=environment, start_new_session=True
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
        os.killpg(self.process.pid, signal.SIGTERM)
        self.process.wait(30)


@pytest.fixture(scope="module")
def server(kept, tmp_path_factory):
    started = Server(files_of(kept), tmp_path_factory.mktemp("server") / "log")
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
    """MLflow parses the request before the model, and answers a megabyte of brackets with its own 500."""
    status, _ = server.ask(b"[" * 2**20)
    assert status >= 400
    assert server.ask(records({"item": "m001"}))[0] == 200


def test_an_unknown_kind_of_content_is_a_4xx(server):
    assert 400 <= server.ask(b"<x/>", "application/xml")[0] < 500
    assert server.ask(records({"item": "m001"}))[0] == 200


def test_a_wrong_rating_names_the_rule(server):
    _, answer = server.ask(MALFORMED["a rating outside the scale"])
    assert "row 0: every rating must lie in 0.5..5 but the history holds 50" in answer
    _, answer = server.ask(MALFORMED["an unknown item"])
    assert 'row 0: unknown item \\"never seen\\"; the model knows 40 items' in answer


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
