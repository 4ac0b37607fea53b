"""What is recorded survives the store and the process: nothing is lost, nothing is there twice, all is in order."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException, RestException

from benchmarks.study.servers import MlflowServer
from metarec.tracking import CellRecord, MlflowTracker, TrialFacts, sqlite_uri
from metarec.tracking.spool import _sender, _spooled_runs
from metarec.tracking.spool._reconcile import SETTLED_MS
from metarec.tracking.spool._spool import Spool

ROOT = Path(__file__).parents[2]
AWAY = MlflowException("API request failed: connection refused")
BROKEN = RestException({"error_code": "INTERNAL_ERROR", "message": "500"})
REFUSED = RestException({"error_code": "INVALID_PARAMETER_VALUE", "message": "no such thing"})


class FlakyClient:
    """The real client, which fails as a list says: one entry a call, None is no failure.

    An entry is an error before the store has understood, or ("after", error).
    """

    def __init__(self, client, failures=()):
        self._client = client
        self.failures = list(failures)
        self.calls = []

    def __getattr__(self, name):
        method = getattr(self._client, name)

        def call(*args, **kwargs):
            self.calls.append(name)
            failure = self.failures.pop(0) if self.failures else None
            if isinstance(failure, tuple):
                method(*args, **kwargs)
                raise failure[1]
            if failure is not None:
                raise failure
            return method(*args, **kwargs)

        return call


@pytest.fixture
def folder(migrated_store, tmp_path):
    shutil.copy(migrated_store, tmp_path / "mlflow.db")
    return tmp_path


@pytest.fixture
def client(folder):
    return MlflowClient(tracking_uri=sqlite_uri(folder / "mlflow.db"))


@pytest.fixture(autouse=True)
def _hurry(monkeypatch):
    monkeypatch.setattr(_sender, "PAUSES_S", (0.001, 0.01))
    monkeypatch.setattr(_spooled_runs, "FLUSH_S", 10.0)


def tracker_with(folder, client):
    return MlflowTracker(sqlite_uri(folder / "mlflow.db"), folder / "artifacts", spool=folder / "spool", client=client)


def children(client, study):
    runs = client.search_runs([study.experiment_id], f"tags.`mlflow.parentRunId` = '{study.run_id}'")
    return sorted(runs, key=lambda run: (int(run.data.tags["metarec.trial"]), run.info.start_time))


def whole_trial(study, number):
    trial = study.start_trial(number, {"x": number})
    for epoch in range(3):
        trial.log_epoch(epoch, {"val_rmse": 0.5 - epoch / 10})
    with trial.artifacts() as files:
        (files / "note.txt").write_text(f"trial {number}")
    trial.log_metrics({"value": number / 10})
    trial.persist()
    trial.finish("complete", value=number / 10)


def assert_whole(client, study, numbers):
    runs = children(client, study)
    assert [int(run.data.tags["metarec.trial"]) for run in runs] == list(numbers)
    for number, run in zip(numbers, runs, strict=True):
        assert (run.info.status, run.data.params) == ("FINISHED", {"x": str(number)})
        assert run.info.run_name == f"{number / 10:.4f} · trial-{number:03d}"
        assert run.data.metrics["value"] == number / 10
        points = client.get_metric_history(run.info.run_id, "val_rmse")
        assert [(point.step, point.value) for point in points] == [(0, 0.5), (1, 0.4), (2, 0.3)]
        assert [entry.path for entry in client.list_artifacts(run.info.run_id)] == ["note.txt"]


FAILURE = st.sampled_from([None, None, AWAY, BROKEN, ("after", AWAY), ("after", BROKEN), ConnectionResetError()])


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(failures=st.lists(FAILURE, max_size=40))
def test_whatever_fails_and_whenever_all_arrives_once(folder, client, failures):
    study_name = f"study {time.monotonic_ns()}"
    flaky = FlakyClient(client)
    with tracker_with(folder, flaky).start_study(study_name, params={}) as study:
        flaky.failures = list(failures)
        for number in range(3):
            whole_trial(study, number)
    assert_whole(client, study, range(3))
    assert client.get_run(study.run_id).info.status == "FINISHED"
    # All was sent, so nothing is left on the disk.
    assert not (folder / "spool").exists()


def test_a_store_that_hangs_keeps_nobody_waiting(folder, client, monkeypatch):
    """Every call takes a second; what a trial calls takes milliseconds."""
    monkeypatch.setattr(_spooled_runs, "FLUSH_S", 30.0)
    slow = FlakyClient(client)
    with tracker_with(folder, slow).start_study("s", params={}) as study:
        real = slow._client.create_run
        monkeypatch.setattr(slow._client, "create_run", lambda *a, **k: (time.sleep(1.0), real(*a, **k))[1])
        began = time.monotonic()
        for number in range(5):
            whole_trial(study, number)
        assert time.monotonic() - began < 1.0
    assert_whole(client, study, range(5))


def test_what_is_refused_is_kept_and_the_rest_goes_on(folder, client, caplog):
    flaky = FlakyClient(client)
    study = tracker_with(folder, flaky).start_study("s", params={})
    flaky.failures = [None, REFUSED]  # the parameters of trial 0
    whole_trial(study, 0)
    whole_trial(study, 1)
    study.close()
    assert "refuses a record of trial 0: INVALID_PARAMETER_VALUE: no such thing" in caplog.text
    (kept,) = (folder / "spool").glob("*/refused.jsonl")
    assert '"what": "log"' in kept.read_text()
    first, second = children(client, study)
    assert first.data.params == {}
    assert (second.info.status, second.data.params) == ("FINISHED", {"x": "1"})


def killed_in_the_middle(folder, body):
    """A process that says ``ready`` when it has done this, and is killed then."""
    code = (
        "import sys, time\n"
        "sys.path.insert(0, sys.argv[2])\n"
        "from pathlib import Path\n"
        "from test_spool import *\n"
        "folder = Path(sys.argv[1])\n"
        "client = MlflowClient(tracking_uri=sqlite_uri(folder / 'mlflow.db'))\n"
        f"{body}\n"
        "print('ready', flush=True)\n"
        "time.sleep(60)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(folder), str(Path(__file__).parent)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGKILL)
    process.wait()


@pytest.mark.parametrize("torn", [b"", b'{"what":"end","tri'])
def test_what_a_killed_process_had_to_say_is_sent_by_the_next_one(folder, client, torn):
    killed_in_the_middle(
        folder,
        "flaky = FlakyClient(client)\n"
        "study = tracker_with(folder, flaky).start_study('s', params={})\n"
        "whole_trial(study, 0)\n"
        "assert study.flush(30) == 0\n"
        # The run is created, and nothing after that arrives.
        "flaky.failures = [('after', AWAY)] + [AWAY] * 10 ** 6\n"
        "whole_trial(study, 1)\n"
        "time.sleep(0.3)",
    )
    (left,) = (folder / "spool").iterdir()
    with (left / "operations.jsonl").open("ab") as file:
        file.write(torn)
    with MlflowTracker.in_folder(folder).start_study("s", params={}) as study:
        whole_trial(study, 2)
    assert_whole(client, study, range(3))
    assert not (folder / "spool").exists()


def test_an_ending_that_comes_late_does_not_end_the_study_that_goes_on(folder, client):
    killed_in_the_middle(
        folder,
        "flaky = FlakyClient(client)\n"
        "study = tracker_with(folder, flaky).start_study('s', params={})\n"
        "flaky.failures = [AWAY] * 10 ** 6\n"
        "whole_trial(study, 0)\n"
        "study.finish('interrupted', reason='interrupted')",
    )
    with MlflowTracker.in_folder(folder).start_study("s", params={}) as study:
        assert study.flush(30) == 0
        parent = client.get_run(study.run_id)
        assert (parent.info.status, parent.data.tags["state"]) == ("RUNNING", "running")
    assert client.get_run(study.run_id).info.status == "FINISHED"
    assert_whole(client, study, [0])


def a_cell(key):
    files = {"reasons.json": "{}"}
    return CellRecord(key, f"ridge, {key}", {"seed": key}, {"rmse": 0.5}, time.time(), 2.0, files)


def test_cells_that_a_killed_process_recorded_are_sent_by_the_next_one_exactly_once(folder, client):
    killed_in_the_middle(
        folder,
        "flaky = FlakyClient(client)\n"
        "comparison = tracker_with(folder, flaky).start_comparison('c', params={})\n"
        "comparison.record_cell(a_cell('a'))\n"
        "assert comparison.flush(30) == 0\n"
        # The run is created, and nothing after that arrives.
        "flaky.failures = [('after', AWAY)] + [AWAY] * 10 ** 6\n"
        "comparison.record_cell(a_cell('b'))\n"
        "time.sleep(0.3)",
    )
    with MlflowTracker.in_folder(folder).start_comparison("c", params={}) as comparison:
        assert comparison.recorded_cells() == {"a", "b"}
    details = client.get_experiment_by_name("metarec-details").experiment_id
    runs = client.search_runs([details], f"tags.`mlflow.parentRunId` = '{comparison.run_id}'")
    assert sorted(run.data.tags["metarec.cell"] for run in runs) == ["a", "b"]
    for run in runs:
        key = run.data.tags["metarec.cell"]
        assert (run.info.status, run.info.run_name, run.data.params) == ("FINISHED", f"ridge, {key}", {"seed": key})
        assert run.data.metrics == {"rmse": 0.5}
        assert [entry.path for entry in client.list_artifacts(run.info.run_id)] == ["reasons.json"]
    assert client.get_run(comparison.run_id).info.status == "FINISHED"
    assert not (folder / "spool").exists()


def test_a_journal_of_an_earlier_version_is_sent(folder, client):
    with MlflowTracker.in_folder(folder).start_study("s", params={}) as study:
        pass
    left = Spool.new(folder / "spool", {"study": "s", "run_id": study.run_id})
    for operation in (
        {"what": "begin", "trial": 0, "time": 1000, "name": "trial-000"},
        {"what": "log", "trial": 0, "time": 1000, "params": {"x": "0"}, "tags": {}},
        {"what": "end", "trial": 0, "time": 2000, "metrics": [], "tags": {}, "state": "complete", "name": "trial-000"},
    ):
        left.append(operation)
    left._lock.release()
    with MlflowTracker.in_folder(folder).start_study("s", params={}) as study:
        pass
    (run,) = children(client, study)
    assert (run.info.status, run.info.run_name, run.data.params) == ("FINISHED", "trial-000", {"x": "0"})


def test_the_spool_of_a_living_process_or_of_another_study_is_left_alone(folder):
    about = {"study": "s", "run_id": "1"}
    mine = Spool.new(folder / "spool", about)
    mine.append({"what": "log", "child": None, "time": 0})
    assert list(Spool.left_behind(folder / "spool", about)) == []
    assert Spool.lives(folder / "spool", about, but=[])
    assert not Spool.lives(folder / "spool", about, but=[mine.folder])
    mine._lock.release()
    assert not Spool.lives(folder / "spool", about, but=[])
    assert list(Spool.left_behind(folder / "spool", {**about, "study": "t"})) == []
    (found,) = Spool.left_behind(folder / "spool", about)
    assert found.waiting() == [{"what": "log", "child": None, "time": 0}]
    found.sent = 1
    found.close()
    assert not (folder / "spool").exists()


# --- reconciling -----------------------------------------------------------------------------------------------------

LONG_AGO = int(time.time() * 1000) - 2 * SETTLED_MS


def facts(number, state, value=None, reason=None, ended=LONG_AGO):
    metrics = {} if value is None else {"value": value}
    curve = {0: 0.5, 1: 0.4} if state in ("complete", "pruned") else {}
    return TrialFacts(number, state, {"x": number}, metrics, reason, "val_rmse", curve, LONG_AGO - 1000, ended)


def test_runs_are_made_to_agree_with_the_trials(folder, client):
    with MlflowTracker.in_folder(folder).start_study("s", params={}) as study:
        for number in range(6):
            trial = study.start_trial(number, {"x": number})
            trial.log_metrics({"value": number / 10})
            if number == 4:
                trial.finish("complete", value=0.4)
            trial.persist()
        assert study.flush(30) == 0
        tags = {key: value for key, value in children(client, study)[1].data.tags.items() if key != "mlflow.runName"}
        twin = client.create_run(study.experiment_id, tags=tags)
        known = [
            facts(0, "complete", 0.0),
            facts(1, "interrupted"),
            facts(2, "failed", reason="the loss is nan"),
            facts(3, "running", ended=None),
            facts(4, "complete", 0.4),
            # 5 is unknown; 6 and 7 have no run, 7 may still get one.
            facts(6, "pruned", reason="slow"),
            facts(7, "complete", 0.7, ended=int(time.time() * 1000)),
        ]
        done = study.reconcile(known)
        assert sorted(done) == [
            "run of trial 0 was left open: ended as complete",
            "run of trial 1 was left open: ended as interrupted",
            "run of trial 2 was left open: ended as failed",
            "run trial-005 of an unknown trial was left open: ended as interrupted",
            "trial 1 had a second run: deleted",
            "trial 6 had no run: made from what Optuna knows",
        ]
        assert study.reconcile(known) == []
        runs = {int(run.data.tags["metarec.trial"]): run for run in children(client, study)}
    assert {number: run.info.status for number, run in runs.items()} == {
        0: "FINISHED",
        1: "KILLED",
        2: "FAILED",
        3: "RUNNING",
        4: "FINISHED",
        5: "KILLED",
        6: "KILLED",
    }
    assert runs[2].data.tags["metarec.reason"] == "the loss is nan"
    assert runs[0].info.run_name == "0.0000 · trial-000"
    assert runs[6].data.tags["metarec.repaired"] == "true"
    assert runs[6].data.params == {"x": "6"}
    assert [point.value for point in client.get_metric_history(runs[6].info.run_id, "val_rmse")] == [0.5, 0.4]
    assert client.get_run(twin.info.run_id).info.lifecycle_stage == "deleted"


def test_a_run_is_never_complete_whose_trial_is_not(folder, client):
    with MlflowTracker.in_folder(folder).start_study("s", params={}) as study:
        whole_trial(study, 0)
        assert study.reconcile([facts(0, "interrupted")]) == ["run of trial 0 was FINISHED: ended as interrupted"]
    assert children(client, study)[0].info.status == "KILLED"


# --- a real server ---------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_server_that_is_killed_and_started_again_loses_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(_sender, "PAUSES_S", (0.1, 0.5))
    monkeypatch.setattr(_spooled_runs, "FLUSH_S", 60.0)
    with MlflowServer(tmp_path / "server") as server:
        tracker = MlflowTracker(server.url, spool=tmp_path / "spool")
        with tracker.start_study("s", params={}) as study:
            whole_trial(study, 0)
            time.sleep(0.3)
            server.kill()
            began = time.monotonic()
            for number in range(1, 5):
                whole_trial(study, number)
            assert time.monotonic() - began < 1.0
            time.sleep(1.0)
            server.start()
            whole_trial(study, 5)
        assert_whole(MlflowClient(tracking_uri=server.url), study, range(6))
