"""The record of a study: true states, right parents, few writes, and nothing lost."""

import json
import logging
import math
import os
import pickle
import shutil
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from mlflow import MlflowClient

from metarec import tracking
from metarec.errors import InputError
from metarec.tracking import (
    CellRecord,
    Dataset,
    MlflowTracker,
    NullTracker,
    markdown_table,
    runs_address,
    sqlite_uri,
    ui_command,
)
from metarec.tracking._limits import batches, clean_key, cut
from metarec.tracking.spool import _spooled_runs


class CountingClient:
    """The real client, with a list of the names of the methods that were called."""

    def __init__(self, client):
        self._client = client
        self.calls = []

    def __getattr__(self, name):
        method = getattr(self._client, name)

        def counted(*args, **kwargs):
            self.calls.append(name)
            return method(*args, **kwargs)

        return counted


def settled(study):
    """The study, once the store knows all of it."""
    assert study.flush(30) == 0
    return study


@pytest.fixture
def folder(migrated_store, tmp_path):
    folder = tmp_path / "runs of a study"
    folder.mkdir()
    shutil.copy(migrated_store, folder / "mlflow.db")
    return folder


@pytest.fixture
def tracker(folder):
    return MlflowTracker.in_folder(folder)


@pytest.fixture
def client(folder):
    return MlflowClient(tracking_uri=sqlite_uri(folder / "mlflow.db"))


def test_states_names_and_parents(tracker, client):
    study = tracker.start_study("quickstart", params={"trials": 4}, description="hello")
    endings = [
        ("complete", None, 0.18734, "FINISHED", "0.1873 · trial-000"),
        ("pruned", "worse than the median", 0.25, "KILLED", "0.2500 · trial-001 · pruned"),
        ("failed", "the loss is not finite", None, "FAILED", "trial-002 · failed"),
        ("interrupted", "interrupted", None, "KILLED", "trial-003 · interrupted"),
    ]
    for number, (state, reason, value, status, name) in enumerate(endings):
        trial = study.start_trial(number, {"inner_lr": 0.1})
        settled(study)
        assert client.get_run(trial.run_id).info.status == "RUNNING"
        trial.finish(state, reason=reason, value=value)
        settled(study)
        run = client.get_run(trial.run_id)
        assert (run.info.status, run.info.run_name) == (status, name)
        assert run.info.end_time is not None
        assert run.data.tags["mlflow.parentRunId"] == study.run_id
        assert run.data.tags["metarec.trial"] == str(number)
        assert run.data.tags.get("metarec.reason") == reason
        assert (reason is None) or reason in run.data.tags["mlflow.note.content"]
        assert run.data.params == {"inner_lr": "0.1"}
    study.finish("complete")
    settled(study)
    parent = client.get_run(study.run_id)
    assert (parent.info.status, parent.info.run_name) == ("FINISHED", "quickstart")
    assert parent.data.tags["mlflow.note.content"] == "hello"
    assert "mlflow.parentRunId" not in parent.data.tags
    assert len(client.search_runs([study.experiment_id])) == 5


@pytest.mark.parametrize(
    ("error", "status", "reason"),
    [
        (KeyboardInterrupt(), "KILLED", "interrupted"),
        (ZeroDivisionError("division by zero"), "FAILED", "ZeroDivisionError: division by zero"),
    ],
)
def test_an_exception_ends_study_and_trial(tracker, client, tmp_path, error, status, reason):
    study = tracker.start_study("quickstart", params={})
    trial = study.start_trial(0, {})
    trial.log_epoch(0, {"loss": 1.0})
    with pytest.raises(type(error)), study, trial:
        raise error
    for run in (client.get_run(study.run_id), client.get_run(trial.run_id)):
        assert (run.info.status, run.data.tags["metarec.reason"]) == (status, reason)
    failed = client.get_run(trial.run_id)
    assert failed.data.metrics == {"loss": 1.0}
    if status == "FAILED":
        (kept,) = client.list_artifacts(trial.run_id)
        assert kept.path == "traceback.txt"
        text = Path(client.download_artifacts(trial.run_id, "traceback.txt", str(tmp_path))).read_text()
        assert "test_an_exception_ends" in text
        assert text.rstrip().endswith(reason)


def test_leaving_the_block_completes_but_does_not_overrule(tracker, client):
    with tracker.start_study("quickstart", params={}) as study, study.start_trial(0, {}) as trial:
        trial.finish("pruned", reason="slow")
    assert client.get_run(trial.run_id).info.status == "KILLED"
    assert client.get_run(study.run_id).info.status == "FINISHED"


def test_a_trial_costs_few_calls(folder, client):
    counting = CountingClient(client)
    tracker = MlflowTracker(sqlite_uri(folder / "mlflow.db"), folder / "artifacts", spool=folder, client=counting)
    study = tracker.start_study("quickstart", params={})
    counting.calls.clear()
    trial = study.start_trial(0, {f"p{i}": i for i in range(20)}, tags={"sampler": "TPE"})
    for epoch in range(100):
        trial.log_epoch(epoch, {"train_loss": 1.0 / (epoch + 1), "val_rmse": 0.2})
    trial.log_metrics({"best_val_rmse": 0.2})
    with trial.artifacts() as files:
        (files / "a.txt").write_text("a")
        (files / "b.txt").write_text("b")
    trial.persist()
    trial.finish("complete", value=0.2)
    settled(study)
    parts = ["create_run", "log_batch", "log_artifacts", "log_batch", "set_terminated"]
    assert counting.calls == parts
    history = client.get_metric_history(trial.run_id, "train_loss")
    assert [(point.step, point.value) for point in history] == [(e, 1.0 / (e + 1)) for e in range(100)]


def test_more_than_one_call_takes(tracker, client):
    study = tracker.start_study("quickstart", params={})
    trial = study.start_trial(0, {f"p{i}": i for i in range(200)}, tags={f"t{i}": "x" for i in range(150)})
    for epoch in range(1250):
        trial.log_epoch(epoch, {"a": epoch, "b": -epoch})
    trial.finish("failed", reason="x" * 20_000)
    settled(study)
    run = client.get_run(trial.run_id)
    assert len(run.data.params) == 200
    assert sum(tag.startswith("t") for tag in run.data.tags) == 150
    assert [point.value for point in client.get_metric_history(trial.run_id, "b")] == [-e for e in range(1250)]
    assert run.data.tags["metarec.reason"].endswith("(20000 characters)")


def test_batches_keep_everything_within_the_limits():
    metrics, params, tags = list(range(2500)), list(range(230)), list(range(120))
    cut_up = list(batches(metrics, params, tags))
    assert [x for batch in cut_up for x in batch.metrics] == metrics
    assert [x for batch in cut_up for x in batch.params] == params
    assert [x for batch in cut_up for x in batch.tags] == tags
    for batch in cut_up:
        assert len(batch.params) <= 100
        assert len(batch.tags) <= 100
        assert sum(map(len, batch)) <= 1000
    assert len(cut_up) == 3
    assert list(batches()) == []


def test_long_and_odd_names_and_values_are_kept(tracker, client, caplog):
    study = tracker.start_study('a "study" of Ada\'s', params={"spec": "y" * 9000, "k!": 1, "k?": 2})
    study.log_metrics({"test/my movies!/rmse": 1.0, "test/фильмы/rmse": 2.0, "n@10": 3.0, "m" * 300: 4.0})
    study.finish("complete")
    settled(study)
    run = client.get_run(study.run_id)
    assert len(run.data.params) == 3
    assert len(run.data.params["spec"]) == 6000
    assert sorted(run.data.metrics.values()) == [1.0, 2.0, 3.0, 4.0]
    again = tracker.start_study('a "study" of Ada\'s', params={"spec": "y" * 9000})
    assert again.run_id == study.run_id
    assert not caplog.records


def test_names_that_are_paths_are_mended():
    assert clean_key("a//b/../c/.") == "a/_/b/_2e__2e_/c/_2e_"
    assert clean_key("plain_name-1.2 x:y") == "plain_name-1.2 x:y"
    assert len(cut("x" * 99, 50)) == 50


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_numbers_that_are_not_finite_do_not_lose_the_run(tracker, client, value):
    study = tracker.start_study("quickstart", params={})
    trial = study.start_trial(0, {})
    trial.log_epoch(0, {"loss": 1.0})
    trial.log_epoch(1, {"loss": value})
    trial.log_epoch(2, {"loss": value})
    trial.finish("failed", reason="the loss is not finite", value=value)
    settled(study)
    points = {point.step: point.value for point in client.get_metric_history(trial.run_id, "loss")}
    assert points[0] == 1.0
    assert math.isnan(points[1])
    assert math.isnan(points[2])
    assert client.get_run(trial.run_id).info.status == "FAILED"


def test_final_metrics_must_not_take_the_name_of_a_curve(tracker):
    trial = tracker.start_study("quickstart", params={}).start_trial(0, {})
    trial.log_epoch(0, {"rmse": 1.0})
    with pytest.raises(ValueError, match="names of their own"):
        trial.log_metrics({"rmse": 0.5})


def test_artifacts_are_kept_when_the_block_ends_well(tracker, client, folder):
    study = tracker.start_study("quickstart", params={})
    trial = study.start_trial(0, {})
    with trial.artifacts() as files:
        (files / "plots").mkdir()
        (files / "plots" / "curve.txt").write_text("down")
    with pytest.raises(ZeroDivisionError), trial.artifacts() as files:
        (files / "half.txt").write_text(str(1 / 0))
    settled(study)
    (kept,) = [path for path in (folder / "artifacts").rglob("*") if path.is_file()]
    assert kept.read_text() == "down"
    assert not files.exists()
    assert [entry.path for entry in client.list_artifacts(trial.run_id)] == ["plots"]


def test_continuing_a_study(tracker, client, folder):
    with tracker.start_study("quickstart", params={"trials": 2, "seed": 0}) as first:
        first.start_trial(0, {}).finish("complete", value=0.2)
        first.finish("interrupted", reason="interrupted")
    with MlflowTracker.in_folder(folder).start_study("quickstart", params={"trials": 4, "new": 1}) as second:
        assert second.run_id == first.run_id
        parent = client.get_run(second.run_id)
        assert parent.info.status == "RUNNING"
        assert "metarec.reason" not in parent.data.tags
        second.start_trial(2, {}).finish("complete", value=0.1)
    parent = client.get_run(second.run_id)
    assert parent.info.status == "FINISHED"
    assert parent.data.params == {"trials": "2", "seed": "0", "new": "1"}
    assert parent.data.tags["metarec.changed/trials"] == "2 → 4"
    runs = client.search_runs([second.experiment_id])
    assert [run.info.status for run in runs] == ["FINISHED"] * 3


def start(folder, **given):
    return MlflowTracker.in_folder(folder).start_study("quickstart", params={"trials": 2}, **given)


def record_trials(study, *numbers):
    for number in numbers:
        with study.start_trial(number, {"lr": 0.1}) as trial, trial.artifacts() as files:
            (files / "curve.txt").write_text("down")
            trial.finish("complete", value=0.2)


@pytest.mark.parametrize("children_too", [False, True])
def test_a_deleted_study_that_goes_on_is_restored_with_its_children(folder, client, caplog, children_too):
    with start(folder) as study:
        record_trials(study, 0, 1)
        study.record_cell(CellRecord("abc", "ridge", {}, {"rmse": 0.9}, 0.0, 1.0, {}))
    # Trial 1 has a second run by now.
    again = client.create_run(study.experiment_id, tags=client.get_run(study.run_ids()[1]).data.tags)
    before = {run.info.run_id for run in study._parent.trials() + study._parent.cells()} - {again.info.run_id}
    for run_id in [study.run_id, *(before if children_too else ())]:
        client.delete_run(run_id)
    with start(folder, run_id=study.run_id) as second:
        assert second.run_id == study.run_id
        assert second.recorded_cells() == {"abc"}
        record_trials(second, 2)
    lines = [record.getMessage() for record in caplog.records]
    # Of trials 0 and 1, the latter has a run that was not deleted; and there is the cell.
    more = " with 2 of its child runs" if children_too else ""
    assert lines == [f'the run of study "quickstart" had been deleted{more}; it is restored']
    assert client.get_run(study.run_id).info.lifecycle_stage == "active"
    runs = second._parent.trials()
    assert sorted({run.data.tags["metarec.trial"] for run in runs}) == ["0", "1", "2"]
    kept = {run.info.run_id for run in runs if client.list_artifacts(run.info.run_id)}
    assert len(kept) == (2 if children_too else 3)


def test_only_the_run_of_the_same_study_is_restored(folder, client, caplog):
    with MlflowTracker.in_folder(folder).start_study("other", params={}) as other, start(folder) as study:
        pass
    client.delete_run(other.run_id)
    # Begun anew, without a run before.
    client.delete_run(study.run_id)
    with start(folder) as second:
        assert second.run_id != study.run_id
    client.delete_run(second.run_id)
    for foreign in (other.run_id, "0" * 32):
        with start(folder, run_id=foreign) as third:
            assert third.run_id not in (other.run_id, study.run_id, second.run_id)
    assert not caplog.records
    assert client.get_run(other.run_id).info.lifecycle_stage == "deleted"


def test_other_studies_are_left_alone(tracker, client):
    mine = tracker.start_study("mine", params={})
    theirs = tracker.start_study("theirs", params={})
    their_trial = theirs.start_trial(0, {})
    settled(theirs)
    assert mine.run_id != theirs.run_id
    with tracker.start_study("mine", params={}) as again:
        again.reconcile([])
    assert client.get_run(their_trial.run_id).info.status == "RUNNING"


def test_a_worker_joins_without_ending_what_is_others(tracker, client):
    study = tracker.start_study("quickstart", params={})
    open_trial = study.start_trial(0, {})
    settled(study)
    worker = pickle.loads(pickle.dumps(tracker))
    with worker.join_study("quickstart", study.run_id, study.experiment_id) as joined:
        trial = joined.start_trial(1, {})
    assert client.get_run(open_trial.run_id).info.status == "RUNNING"
    assert client.get_run(study.run_id).info.status == "RUNNING"
    assert client.get_run(trial.run_id).data.tags["mlflow.parentRunId"] == study.run_id
    with pytest.raises(ValueError, match="has a run and an experiment but got None, None"):
        worker.join_study("quickstart", None, None)


def test_two_threads_do_not_mix_their_runs(folder, client):
    runs = {}

    def work(name):
        study = MlflowTracker.in_folder(folder).start_study(name, params={})
        for number in range(3):
            trial = study.start_trial(number, {"owner": name})
            for epoch in range(5):
                trial.log_epoch(epoch, {f"loss_{name}": number})
            trial.finish("complete")
            settled(study)
            runs[trial.run_id] = (name, study.run_id)
        study.finish("complete")

    MlflowTracker.in_folder(folder).start_study("before", params={}).finish("complete")
    threads = [threading.Thread(target=work, args=(name,)) for name in ("a", "b")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(runs) == 6
    for run_id, (name, parent) in runs.items():
        run = client.get_run(run_id)
        assert run.data.params == {"owner": name}
        assert list(run.data.metrics) == [f"loss_{name}"]
        assert run.data.tags["mlflow.parentRunId"] == parent


def test_the_error_of_the_work_is_not_hidden_by_a_failing_store(tracker, folder, caplog, monkeypatch):
    monkeypatch.setattr(_spooled_runs, "FLUSH_S", 0.5)
    study = tracker.start_study("quickstart", params={})
    (folder / "mlflow.db").unlink()
    with pytest.raises(ZeroDivisionError), study:
        raise ZeroDivisionError
    assert "could not be sent and wait in" in caplog.text


def test_stores_that_cannot_be_used(tmp_path, folder, client):
    garbage = tmp_path / "garbage.db"
    garbage.write_text("user,item,rating\n" * 10)
    client.delete_experiment(client.create_experiment("metarec"))
    cases = [
        (str(tmp_path / "mlruns"), "use sqlite:///"),
        ((tmp_path / "mlruns").as_uri(), "use sqlite:///"),
        (sqlite_uri(garbage), "not a SQLite database"),
        ("http://127.0.0.1:9", "does not answer"),
        ("postgresql://ada:secret@127.0.0.1:9/runs", r"ada:\*\*\*@127"),
        ("gopher://nowhere", "MLflow knows no gopher"),
        (sqlite_uri(folder / "mlflow.db"), "was deleted; restore it"),
    ]
    for uri, message in cases:
        with pytest.raises(InputError, match=message) as caught:
            MlflowTracker(uri).start_study("quickstart", params={})
        assert "\n" not in str(caught.value)
        assert "secret" not in str(caught.value)
    assert not (tmp_path / "mlruns").exists()


def test_nothing_is_written_before_a_study_starts(tmp_path):
    MlflowTracker.in_folder(tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_store_that_was_opened_ahead_by_a_thread(tmp_path):
    """What a study does while bases are fitted: the store, and the record in it, are the same as without."""
    tracker = MlflowTracker.in_folder(tmp_path)
    with ThreadPoolExecutor(1) as thread:
        thread.submit(tracker.open).result()
    client = MlflowClient(tracking_uri=sqlite_uri(tmp_path / "mlflow.db"))
    experiment = client.get_experiment_by_name("metarec")
    assert client.search_runs([experiment.experiment_id]) == []
    with tracker.start_study("quickstart", params={"a": 1}) as study:
        assert study.experiment_id == experiment.experiment_id
    assert client.get_run(study.run_id).info.status == "FINISHED"
    assert [one.name for one in client.search_experiments(filter_string="name = 'metarec'")] == ["metarec"]


def test_who_is_killed_while_a_store_is_made_spoils_nothing(tmp_path):
    """MLflow makes its tables one by one, which takes seconds."""
    program = "from metarec.tracking import MlflowTracker; MlflowTracker.in_folder('.').open()"
    environment = {**os.environ, "PYTHONPATH": str(Path(tracking.__file__).parents[2])}
    with subprocess.Popen([sys.executable, "-c", program], cwd=tmp_path, env=environment) as process:
        for _ in range(6000):
            # Some tables are there, and not all.
            if any(path.stat().st_size > 50_000 for path in tmp_path.rglob("*.db")):
                break
            time.sleep(0.005)
        process.kill()
    assert not (tmp_path / "mlflow.db").exists()
    with MlflowTracker.in_folder(tmp_path).start_study("s", params={}) as study:
        assert study.experiment_id is not None
    assert (tmp_path / "mlflow.db").exists()


def test_a_first_study_is_silent_and_reports_to_nobody(tmp_path):
    program = """
import sys
import metarec.tracking as tracking
assert "mlflow" not in sys.modules
asked = []
sys.addaudithook(lambda event, args: asked.append(args[0]) if event == "socket.getaddrinfo" else None)
tracker = tracking.MlflowTracker.in_folder("out")
with tracker.start_study("quickstart", params={}) as study, study.start_trial(0, {}):
    pass
assert asked == []
print(sorted(study._parent.client.get_run(study.run_id).data.tags))
"""
    hidden = ("PYTEST_CURRENT_TEST", "CI", "MLFLOW_DISABLE_TELEMETRY", "DO_NOT_TRACK")
    environment = {key: value for key, value in os.environ.items() if key not in hidden}
    environment["PYTHONPATH"] = str(Path(tracking.__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    tags = ["metarec.role", "metarec.study", "mlflow.runName", "mlflow.source.name", "state"]
    assert done.stdout == f"{tags}\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]
    # A trial without files leaves no folder for them.
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mlflow.db"]


def cell(key, **files):
    return CellRecord(key, f"ridge, seed {key}", {"seed": key}, {"rmse": 0.5}, 1_000.0, 2.5, files)


def test_a_comparison_records_each_cell_once(folder, client):
    counting = CountingClient(client)
    tracker = MlflowTracker(sqlite_uri(folder / "mlflow.db"), folder / "artifacts", spool=folder, client=counting)
    with tracker.start_study("same name", params={}):
        pass
    comparison = tracker.start_comparison("same name", params={})
    comparison.record_cell(cell("first"))
    settled(comparison)
    counting.calls.clear()
    comparison.record_cell(cell("a", **{"reasons.json": "{}"}))
    settled(comparison)
    # A cell of an earlier version is in another experiment.
    assert counting.calls == [*["search_runs"] * 2, "create_run", "log_artifacts", "log_batch", "set_terminated"]
    # The process is killed before the last call, on a machine whose spool is lost.
    counting.set_terminated = lambda *_, **__: None
    comparison.record_cell(cell("b"))
    settled(comparison)
    del counting.set_terminated

    again = tracker.start_comparison("same name", params={})
    assert again.run_id == comparison.run_id
    assert again.recorded_cells() == {"first", "a"}
    again.record_cell(cell("b"))
    # On its way it counts as recorded.
    assert again.recorded_cells() == {"first", "a", "b"}
    again.finish("complete")
    again.close()
    assert tracker.start_comparison("same name", params={}).recorded_cells() == {"first", "a", "b"}
    details = client.get_experiment_by_name("metarec-details").experiment_id
    runs = client.search_runs([details], f"tags.`mlflow.parentRunId` = '{again.run_id}'")
    assert sorted(run.info.run_name for run in runs) == ["ridge, seed a", "ridge, seed b", "ridge, seed first"]
    for run in runs:
        assert (run.info.status, run.data.tags["metarec.role"]) == ("FINISHED", "cell")
        assert (run.info.start_time, run.info.end_time) == (1_000_000, 1_002_500)
        assert (run.data.params, run.data.metrics) == ({"seed": run.data.tags["metarec.cell"]}, {"rmse": 0.5})
    assert client.get_run(again.run_id).data.tags["metarec.role"] == "comparison"


def test_the_null_tracker_accepts_everything_and_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tracker = NullTracker()
    tracker.open()
    with tracker.start_study("quickstart", params={"a": 1}, tags={}, description="x") as study:
        study.log_metrics({"a": 1.0}, step=1)
        study.describe("x")
        with study.start_trial(0, {"a": 1}) as trial:
            trial.log_epoch(0, {"loss": math.nan})
            with trial.artifacts() as files:
                (files / "a.txt").write_text("a")
        tracker.join_study("quickstart", study.run_id, study.experiment_id).start_trial(1, {})
        assert study.flush(1) == 0
        assert study.reconcile([]) == []
        assert study.run_ids() == {}
    with tracker.start_comparison("quickstart", params={}) as comparison:
        comparison.record_cell(cell("a"))
        assert comparison.recorded_cells() == set()
    assert study.finished
    assert trial.finished
    assert list(tmp_path.iterdir()) == []


def test_how_the_runs_are_opened(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ours = tmp_path / ".venv" / "bin" / "python"
    ours.parent.mkdir(parents=True)
    ours.with_name("mlflow").touch()
    monkeypatch.setattr(sys, "executable", str(ours))
    uri = sqlite_uri(tmp_path / "mlruns" / "mlflow.db")
    assert ui_command(uri) == ".venv/bin/mlflow ui --backend-store-uri sqlite:///mlruns/mlflow.db"
    ours.with_name("mlflow").unlink()
    assert ui_command(uri) == "mlflow ui --backend-store-uri sqlite:///mlruns/mlflow.db"
    assert ui_command("http://host:5000") is None
    assert "secret" not in ui_command("postgresql://ada:secret@host/runs")
    page = "http://host:5000/#/experiments/7/runs?workflowType=machine_learning"
    assert runs_address("7", server="http://host:5000/") == page
    assert runs_address("7", "abc").endswith("/#/experiments/7/runs/abc?workflowType=machine_learning")


def test_markdown_cells_stay_in_their_table():
    assert markdown_table(["a|b"], [["x\ny"], [0.5], [3]]).splitlines()[0] == "| a\\|b |"
    assert markdown_table(["a"], [["x\ny"], [0.5], [3]]).splitlines()[2:] == ["| x y |", "| 0.5000 |", "| 3 |"]


def test_public_names():
    assert all(hasattr(tracking, name) for name in tracking.__all__)
    assert logging.getLogger("metarec").level == logging.NOTSET


# --- what the table of runs is filtered by ---------------------------------------------------------------------------


def test_the_data_of_a_study_are_datasets_of_its_run(tracker, client):
    profile = {"users": 3, "fingerprint": "f" * 64}
    with tracker.start_study("s", params={}, tags={"domain": "movies"}) as study:
        for _ in range(2):
            # Sent again after an answer that was lost, they are there once.
            study.log_datasets([Dataset("movies", "f" * 64, "ratings.csv", profile)])
    run = client.get_run(study.run_id)
    (given,) = run.inputs.dataset_inputs
    assert (given.dataset.name, given.dataset.digest, given.dataset.source) == ("movies", "f" * 36, "ratings.csv")
    assert json.loads(given.dataset.profile) == profile
    assert run.data.tags["domain"] == "movies"
    assert run.data.tags["state"] == "complete"


def test_datasets_wait_for_a_server_that_is_away(folder, client):
    from mlflow.exceptions import MlflowException

    class Away(MlflowClient):
        away = True

        def log_inputs(self, *args, **kwargs):
            if self.away:
                raise MlflowException("no", error_code="TEMPORARILY_UNAVAILABLE")
            return super().log_inputs(*args, **kwargs)

    flaky = Away(tracking_uri=sqlite_uri(folder / "mlflow.db"))
    tracker = MlflowTracker(sqlite_uri(folder / "mlflow.db"), folder / "artifacts", spool=folder, client=flaky)
    with tracker.start_study("s", params={}) as study:
        study.log_datasets([Dataset("movies", "abc", "ratings.csv", {"users": 3})])
        assert study.flush(0.3) == 1
        flaky.away = False
        settled(study)
    assert client.get_run(study.run_id).inputs.dataset_inputs[0].dataset.digest == "abc"


def test_a_trials_name_and_tags_are_the_same_while_it_runs_and_after(tracker, client):
    with tracker.start_study("s", params={}) as study:
        trial = study.start_trial(17, {}, label="attention/batched product", tags={"fusion": "attention"})
        settled(study)
        run = client.get_run(trial.run_id)
        assert run.info.run_name == "trial-017 attention/batched product"
        assert (run.data.tags["fusion"], run.data.tags["state"]) == ("attention", "running")
        trial.finish("complete", value=0.25)
    run = client.get_run(trial.run_id)
    assert run.info.run_name == "0.2500 · trial-017 attention/batched product"
    assert (run.data.tags["fusion"], run.data.tags["state"]) == ("attention", "complete")
