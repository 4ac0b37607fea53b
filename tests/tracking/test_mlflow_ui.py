"""What somebody sees who opens the runs of a study with MLflow's own user interface."""

import json
import shutil
import subprocess
import urllib.request
from pathlib import Path

import pytest

from benchmarks.study.servers import MlflowServer
from metarec.tracking import MlflowTracker, runs_address

pytestmark = pytest.mark.slow

NAMES = {"0.1873 · trial-000": "FINISHED", "0.2500 · trial-001 · pruned": "KILLED", "trial-002 · failed": "FAILED"}


def record_a_study(tracker):
    with tracker.start_study("quickstart", params={"trials": 3}, description="**three trials**") as study:
        for number, (state, value) in enumerate([("complete", 0.1873), ("pruned", 0.25), ("failed", None)]):
            with study.start_trial(number, {"inner_lr": 0.1 * number}) as trial:
                trial.log_epoch(0, {"loss": 1.0})
                trial.log_epoch(1, {"loss": float("nan") if state == "failed" else 0.5})
                with trial.artifacts() as files:
                    (files / "spec.yaml").write_text(f"number: {number}\n")
                trial.finish(state, reason=None if state == "complete" else "on purpose", value=value)
    return study


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    return folder, record_a_study(MlflowTracker.in_folder(folder))


@pytest.fixture(scope="module")
def server(recorded):
    """The address of a server on the recorded store."""
    folder, _ = recorded
    with MlflowServer(folder, MLFLOW_DISABLE_TELEMETRY="true") as started:
        yield started.url


def ask(address, path, body=None):
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(
        f"{address}/api/2.0/mlflow/{path}", data=data, headers={"Content-Type": "application/json"}
    )
    return json.load(urllib.request.urlopen(request, timeout=30))


def listed(address, experiment_id):
    runs = ask(address, "runs/search", {"experiment_ids": [experiment_id]})["runs"]
    for run in runs:
        run["tags"] = {tag["key"]: tag["value"] for tag in run["data"]["tags"]}
    parents = [run for run in runs if "mlflow.parentRunId" not in run["tags"]]
    children = [run for run in runs if "mlflow.parentRunId" in run["tags"]]
    return parents, children


def check_story(address, study):
    (parent,), children = listed(address, study.experiment_id)
    assert (parent["info"]["run_name"], parent["info"]["status"]) == ("quickstart", "FINISHED")
    assert parent["tags"]["mlflow.note.content"] == "**three trials**"
    assert {run["info"]["run_name"]: run["info"]["status"] for run in children} == NAMES
    assert {run["tags"]["mlflow.parentRunId"] for run in children} == {parent["info"]["run_id"]}
    for run in children:
        files = ask(address, f"artifacts/list?run_id={run['info']['run_id']}")["files"]
        assert [file["path"] for file in files] == ["spec.yaml"]


def test_the_server_lists_one_parent_and_its_trials(server, recorded):
    _, study = recorded
    check_story(server, study)
    experiments = ask(server, "experiments/search", {"max_results": 10})["experiments"]
    assert {"metarec"} == {entry["name"] for entry in experiments} - {"Default"}


def test_recording_through_a_server_tells_the_same_story(server, recorded, capfd):
    folder, _ = recorded
    study = record_a_study(MlflowTracker(server, folder / "ignored", experiment="through a server"))
    check_story(server, study)
    assert not (folder / "ignored").exists()
    seen = capfd.readouterr()
    assert seen.out == ""
    assert seen.err == ""


@pytest.mark.skipif(shutil.which("chromium") is None, reason="chromium is not on the PATH")
def test_the_table_of_runs_is_drawn(server, recorded, tmp_path):
    _, study = recorded
    picture = tmp_path / "page.png"
    address = runs_address(study.experiment_id, server=server)
    quiet = ["gpu", "quic", "background-networking", "component-update", "sync"]
    command = ["chromium", "--headless", "--no-sandbox", "--no-first-run", *(f"--disable-{name}" for name in quiet)]
    command += [f"--user-data-dir={tmp_path / 'profile'}", "--window-size=1400,900", "--virtual-time-budget=15000"]
    subprocess.run([*command, f"--screenshot={picture}", address], check=True, capture_output=True, timeout=120)
    content = Path(picture).read_bytes()
    assert content.startswith(b"\x89PNG")
    # An empty page of this size takes about 5 kB, the table of runs about 80.
    assert len(content) > 30_000
