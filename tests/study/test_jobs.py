"""Studies as jobs: joined from elsewhere, with servers that come and go, repaired, and repeated trial by trial."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from benchmarks._servers import MlflowServer, Postgres, Proxy, postgres_missing
from benchmarks._study_audit import audit
from metarec.errors import InputError
from metarec.ratings import simulate_domains
from metarec.study.job import Job, read_data, run_study
from metarec.study.joining import repair_study, replay_trial, run_worker
from metarec.study.search import join_study
from metarec.study.spec import load_spec
from metarec.study.tracking import MlflowTracker, sqlite_uri

ROOT = Path(__file__).parents[2]
SPEC = {
    "name": "job",
    "bases": ["bias", "item-knn"],
    "baselines": ["mean"],
    "episodes": {"shots": 3, "min_query": 3, "max_query": 10, "folds": 2},
    "training": {"epochs": 6, "patience": 6},
}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a spec and ratings, from where commands are run."""
    folder = tmp_path_factory.mktemp("place")
    movies = simulate_domains(0, num_users=60, num_items=40, ratings_per_user=20)["movies"]
    movies.ratings.to_csv(folder / "movies.csv", index=False)
    (folder / "job.yaml").write_text(yaml.safe_dump(SPEC))
    return folder


def begun(place, *options, **changes):
    """``python -m metarec.study`` as a process, from that folder."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "COLUMNS": "200", **changes}
    return subprocess.Popen(
        [sys.executable, "-m", "metarec.study", *options],
        cwd=place,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def ended(process, code=0):
    told, _ = process.communicate(timeout=300)
    assert process.returncode == code, told
    assert "Traceback" not in told
    return told


def soon(happens):
    """Whether it happens within two minutes."""
    for _ in range(600):
        if happens():
            return True
        time.sleep(0.2)
    return False


def begun_trials(storage):
    try:
        study = join_study("s", storage)[0]
    except InputError:
        return 0
    return sum(trial.state.name != "WAITING" for trial in study.trials)


@pytest.fixture(scope="module")
def study(place):
    """The folder of a study of five trials that two workers have run."""
    out = place / "two workers"
    options = ["job.yaml", "--data", "movies=movies.csv", "--trials", "5", "--workers", "2", "--study-name", "s"]
    ended(begun(place, *options, "--out", str(out)))
    return out


def job_in(out):
    return Job(out, "s", tracker=MlflowTracker.in_folder(out))


def test_two_workers_leave_both_stores_in_agreement(study):
    found = audit("s", str(study / "optuna.journal"), sqlite_uri(study / "mlflow.db"))
    assert found["wrong"] == []
    assert found["counted"] == 5
    assert not (study / "spool").exists()
    assert repair_study(job_in(study)) == []


def test_every_trial_of_several_processes_has_its_value_again(study, place, monkeypatch):
    monkeypatch.chdir(place)
    trials = join_study("s", str(study / "optuna.journal"))[0].trials
    for trial in trials:
        if trial.value is not None and trial.state.name == "COMPLETE":
            assert replay_trial(job_in(study), {}, trial.number).value == trial.value


def test_the_command_says_whether_a_trial_is_the_same_again(study, place):
    told = ended(begun(place, "replay", "--study-name", "s", "--trial", "0", "--out", str(study)))
    assert told.splitlines()[-1].endswith(": equal")
    # With other ratings it is not the same study.
    other = simulate_domains(1, num_users=60, num_items=40, ratings_per_user=20)["movies"]
    other.ratings.to_csv(place / "other.csv", index=False)
    options = ["--study-name", "s", "--trial", "0", "--out", str(study), "--data", "movies=other.csv"]
    assert "was begun with other data" in ended(begun(place, "replay", *options), 2)


def test_a_worker_elsewhere_needs_the_urls_and_the_data_alone(study, place, tmp_path, monkeypatch):
    """Another folder stands for another machine; the trials that are wanted grow meanwhile."""
    monkeypatch.chdir(place)
    spec = load_spec("job.yaml", {"trials": 7, "domains": {"movies": "movies.csv"}})
    shared, _, _ = join_study("s", str(study / "optuna.journal"))
    shared.set_user_attr("trials", spec.trials)
    tracker = MlflowTracker(sqlite_uri(study / "mlflow.db"), study / "artifacts", spool=tmp_path / "spool")
    elsewhere = Job(tmp_path, "s", storage=None, tracker=tracker)
    monkeypatch.setattr(Job, "optuna_storage", property(lambda _: str(study / "optuna.journal")))
    assert run_worker(elsewhere, {"movies": str(place / "movies.csv")}) == 2
    monkeypatch.undo()
    monkeypatch.chdir(place)
    found = audit("s", str(study / "optuna.journal"), sqlite_uri(study / "mlflow.db"))
    assert (found["counted"], found["wrong"]) == (7, [])
    # Whoever began it scores all of them; the networks that it does not have are learned again.
    domains = read_data(spec)
    result = run_study(spec, domains, job_in(study))
    assert len(result.trials) == 7
    assert all(trial["run_id"] for trial in result.to_json()["trials"])


@pytest.mark.slow
def test_a_killed_command_is_repaired_and_goes_on(place, tmp_path):
    options = ["job.yaml", "--data", "movies=movies.csv", "--trials", "6", "--workers", "2", "--study-name", "s"]
    slow = ["--set", "training.epochs=400", "--set", "training.patience=400", "--set", "pruner=none"]
    command = begun(place, *options, *slow, "--out", str(tmp_path))
    assert soon(lambda: list(tmp_path.glob("optuna.journal.running/*")))
    time.sleep(1.5)
    os.killpg(command.pid, signal.SIGKILL)
    command.wait()
    told = ended(begun(place, "repair", "--study-name", "s", "--out", str(tmp_path)))
    assert "had lost its process: ended, to be tried again" in told
    assert "the run of study s was left open: ended as interrupted" in told
    assert ended(begun(place, "repair", "--study-name", "s", "--out", str(tmp_path))) == "all is right\n"
    ended(begun(place, *options, *slow, "--out", str(tmp_path), "--trials", "2"))
    assert audit("s", str(tmp_path / "optuna.journal"), sqlite_uri(tmp_path / "mlflow.db"))["wrong"] == []


@pytest.fixture
def small_disk(tmp_path):
    """A small file system of its own, and what makes it larger."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=300m", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("no file system can be mounted here")
    yield disk, lambda: subprocess.run(["mount", "-o", "remount,size=300m", str(disk)], check=True)
    subprocess.run(["umount", "-l", str(disk)], check=True)


@pytest.mark.slow
@pytest.mark.parametrize("kilobytes", [900, 1400, 2000])
def test_a_full_disk_is_said_and_nothing_half_written_is_in_the_way(place, small_disk, kilobytes):
    disk, enlarge = small_disk
    subprocess.run(["mount", "-o", f"remount,size={kilobytes}k", str(disk)], check=True)
    options = [
        "job.yaml",
        "--data",
        "movies=movies.csv",
        "--trials",
        "12",
        "--study-name",
        "s",
        "--out",
        f"{disk}/runs",
    ]
    command = begun(place, *options)
    told, _ = command.communicate(timeout=300)
    # 2, if there was not even room for the store of runs.
    assert command.returncode in (1, 2), told
    assert "Traceback" not in told
    assert re.match("error: .*(No space left|disk is full)", told.splitlines()[-1]), told
    enlarge()
    ended(begun(place, *options))
    found = audit("s", str(disk / "runs" / "optuna.journal"), sqlite_uri(disk / "runs" / "mlflow.db"))
    assert (found["counted"], found["wrong"]) == (12, [])


@pytest.mark.slow
def test_a_read_only_disk_is_said_at_once(place, small_disk):
    disk, _ = small_disk
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    options = ["job.yaml", "--data", "movies=movies.csv", "--study-name", "s"]
    told = ended(begun(place, *options, "--out", str(disk / "runs")), 2)
    assert "cannot be written: Read-only file system; give another folder" in told


def test_a_folder_that_cannot_be_written_is_said_at_once(place, tmp_path):
    (tmp_path / "file").write_text("")
    options = ["job.yaml", "--data", "movies=movies.csv", "--study-name", "s"]
    told = ended(begun(place, *options, "--out", str(tmp_path / "file" / "runs")), 2)
    assert "cannot be written: Not a directory; give another folder" in told


@pytest.mark.slow
@pytest.mark.skipif(postgres_missing() is not None, reason=str(postgres_missing()))
def test_servers_that_come_and_go_lose_no_trial(place, tmp_path):
    """While trials run PostgreSQL is stopped three times, a proxy answers 500 for MLflow's server, it is killed,
    and while it is away a worker joins from elsewhere."""
    pytest.importorskip("psycopg", reason="the driver psycopg is not installed")
    with Postgres() as postgres, MlflowServer(tmp_path / "server") as server, Proxy(server.port) as proxy:
        stores = ["--storage", postgres.url, "--tracking-uri", proxy.url, "--study-name", "s"]
        options = ["job.yaml", "--data", "movies=movies.csv", "--trials", "40", "--workers", "1"]
        slow = ["--set", "training.epochs=60", "--set", "training.patience=60", "--set", "pruner=none"]
        first = begun(place, *options, *slow, *stores, "--out", str(tmp_path / "one"))
        assert soon(lambda: begun_trials(postgres.url) >= 2)
        proxy.broken = True
        assert soon(lambda: proxy.refused > 5)
        proxy.broken = False
        server.kill()
        second = begun(place, "worker", *stores, "--data", "movies=movies.csv", "--out", str(tmp_path / "two"))
        for _ in range(3):
            postgres.stop()
            time.sleep(2)
            postgres.start()
            time.sleep(3)
        begun_before = begun_trials(postgres.url)
        assert soon(lambda: begun_trials(postgres.url) > begun_before + 3)
        server.start()
        told = {"one": ended(first), "two": ended(second)}
        assert int(re.search(r"(\d+) trials ended", told["two"])[1]) > 0
        for name in [name for name in told if "could not be sent" in told[name]]:
            # The trials were over before the server was there again.
            ended(begun(place, "repair", *stores, "--out", str(tmp_path / name)))
        found = audit("s", postgres.url, server.url)
    assert found["wrong"] == []
    assert found["complete"] == found["counted"] == 40
