"""Jobs on a study: workers, a kill, a repair, a full disk, and a replay of trials."""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from mlflow import MlflowClient

from benchmarks.study.audit import audit
from metarec.cli import study as cli
from metarec.ratings import simulate_domains
from metarec.search.trials import join_study
from metarec.study.data import read_data
from metarec.study.job import Job, run_study
from metarec.study.joining import repair_study, replay_trial, run_worker
from metarec.study.spec import load_spec
from metarec.tracking import MlflowTracker, sqlite_uri
from tests.support.commands import ROOT, begun, ended, no_process_of, soon
from tests.support.studies import reported


@pytest.fixture(scope="module")
def study(place):
    """The folder of a study of five trials that two workers have run."""
    out = place / "two workers"
    options = ["job.yaml", "--data", "movies=movies.csv", "--trials", "5", "--workers", "2", "--study-name", "s"]
    ended(begun(place, *options, "--out", str(out)))
    return out


def job_in(out):
    return reported(out, "s")


@pytest.fixture
def refused(place, monkeypatch, capfd):
    """Runs the command in this process; the line with which it refuses."""
    monkeypatch.chdir(place)
    monkeypatch.setattr(cli, "cores", lambda: 1)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["study", *arguments])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        printed = capfd.readouterr().err
        assert stopped.value.code == 2, printed
        assert "Traceback" not in printed
        return printed.splitlines()[-1]

    return run


@pytest.mark.slow
def test_two_workers_leave_both_stores_in_agreement(study):
    found = audit("s", str(study / "optuna.journal"), sqlite_uri(study / "mlflow.db"))
    assert found["wrong"] == []
    assert found["counted"] == 5
    assert not (study / "spool").exists()
    assert repair_study(job_in(study)) == []


@pytest.mark.slow
def test_every_trial_of_several_processes_has_its_value_again(study, place, monkeypatch):
    monkeypatch.chdir(place)
    trials = join_study("s", str(study / "optuna.journal")).trials
    for trial in trials:
        if trial.value is not None and trial.state.name == "COMPLETE":
            assert replay_trial(job_in(study), {}, trial.number) == (trial.value, trial.value)


@pytest.mark.slow
def test_the_command_prints_whether_a_trial_is_equal(study, place):
    output = ended(begun(place, "replay", "--study-name", "s", "--trial", "0", "--out", str(study)))
    assert output.splitlines()[-1].endswith(": equal")


@pytest.mark.slow
def test_with_other_ratings_it_is_not_the_same_study(study, refused, tmp_path):
    other = simulate_domains(1, num_users=60, num_items=40, ratings_per_user=20)["movies"]
    other.ratings.to_csv(tmp_path / "other.csv", index=False)
    named = ["--study-name", "s", "--trial", "0", "--out", str(study)]
    assert "was begun with other data" in refused("replay", *named, "--data", f"movies={tmp_path}/other.csv")


@pytest.mark.slow
def test_a_worker_elsewhere_needs_the_urls_and_the_data_alone(study, place, tmp_path, monkeypatch):
    """Another folder represents another machine; the number of trials grows meanwhile."""
    monkeypatch.chdir(place)
    spec = load_spec("job.yaml", {"trials": 7, "domains": {"movies": "movies.csv"}})
    shared = join_study("s", str(study / "optuna.journal"))
    shared.set_user_attr("trials", spec.trials)
    tracker = MlflowTracker(sqlite_uri(study / "mlflow.db"), study / "artifacts", spool=tmp_path / "spool")
    elsewhere = Job(tmp_path, "s", storage=None, tracker=tracker)
    monkeypatch.setattr(Job, "optuna_storage", property(lambda _: str(study / "optuna.journal")))
    assert run_worker(elsewhere, {"movies": str(place / "movies.csv")}) == 2
    monkeypatch.undo()
    monkeypatch.chdir(place)
    found = audit("s", str(study / "optuna.journal"), sqlite_uri(study / "mlflow.db"))
    assert (found["counted"], found["wrong"]) == (7, [])
    # The first process scores all trials; it trains missing networks again.
    domains = read_data(spec)
    result = run_study(spec, domains, job_in(study))
    assert len(result.ended) == 7
    assert all(trial["run_id"] for trial in result.to_json()["trials"])


TERMINATED = {
    "reads and starts": lambda out: (out / "cache").is_dir(),
    "fits its bases": lambda out: (out / "mlflow.db").exists(),
    "searches": lambda out: list(out.glob("optuna.journal.running/*")),
    "ends": lambda out: (out / "artifacts" / "s" / "predictions.parquet").exists(),
}


@pytest.mark.slow
@pytest.mark.parametrize("moment", TERMINATED)
def test_sigterm_ends_a_study_cleanly_whatever_it_does(place, tmp_path, moment, request):
    out = tmp_path / "out"
    # Not in tmp_path, which is too long for sockets where tests run in several processes.
    temporary = Path(tempfile.mkdtemp())
    request.addfinalizer(lambda: shutil.rmtree(temporary))
    options = ["job.yaml", "--data", "movies=movies.csv", "--trials", "3", "--workers", "2", "--study-name", "s"]
    command = begun(place, *options, "--out", str(out), TMPDIR=str(temporary))
    assert soon(lambda: TERMINATED[moment](out) or command.poll() is not None)
    assert command.poll() is None, command.communicate()
    command.terminate()
    assert "run the same command with --study-name s" in ended(command, 143)
    assert soon(lambda: no_process_of(command))
    # Torch keeps a cache of its own there.
    ours = (path for path in temporary.iterdir() if not path.name.startswith("torchinductor_"))
    assert [path.name for path in [*ours, *out.rglob("*.part"), *out.glob(".mlflow.db-*")]] == []
    if (out / "mlflow.db").exists():
        client = MlflowClient(sqlite_uri(out / "mlflow.db"))
        runs = client.search_runs([one.experiment_id for one in client.search_experiments()])
        assert "RUNNING" not in {run.info.status for run in runs}
    ended(begun(place, *options, "--out", str(out)))
    found = audit("s", str(out / "optuna.journal"), sqlite_uri(out / "mlflow.db"))
    assert (found["counted"], found["wrong"]) == (3, [])


FAILURES = {
    "fit": r"ZeroDivisionError: no ratings \(rude.py, line 13\)",
    "exit": r"SystemExit: 0 \(rude.py, line 15\)",
    "end of file": r"EOFError \(rude.py, line 17\)",
    "predict": r"KeyError: 'item' \(rude.py, line 22\)",
}


def rude_study(where, data, out):
    """The arguments of a study with a base that raises."""
    bases = f"bases={{bias: {{}}, rude: {{where: {where}}}, item-knn: {{}}}}"
    return ["job.yaml", "--study-name", "s", "--set", bases, "--data", f"movies={data}", "--out", str(out)]


def line_about(where):
    return f'error: base recommender "rude" fails on domain "movies": {FAILURES[where]}; correct it'


@pytest.mark.parametrize("where", FAILURES)
def test_a_base_that_raises_ends_the_command_with_one_line(refused, rude, tmp_path, monkeypatch, where):
    """Few ratings are fitted in the process of the command."""
    monkeypatch.syspath_prepend(str(rude))
    line = refused(*rude_study(where, "movies.csv", tmp_path))
    assert re.match(line_about(where), line), line


@pytest.mark.slow
@pytest.mark.parametrize(("where", "workers"), zip(FAILURES, "2121", strict=True))
def test_a_base_that_raises_always_ends_the_command(place, rude, tmp_path, where, workers):
    """Many ratings are fitted in processes of their own; all of them end with the command."""
    big = simulate_domains(0, num_users=600, num_items=300, ratings_per_user=60)["movies"]
    big.ratings.to_csv(tmp_path / "big.csv", index=False)
    path = os.pathsep.join([str(ROOT), str(rude)])
    options = [*rude_study(where, tmp_path / "big.csv", tmp_path), "--workers", workers]
    command = begun(place, *options, PYTHONPATH=path)
    last = ended(command, 2).splitlines()[-1]
    assert re.match(line_about(where), last), last
    assert soon(lambda: no_process_of(command))


@pytest.mark.slow
def test_a_killed_command_is_repaired_and_goes_on(place, tmp_path):
    options = ["job.yaml", "--data", "movies=movies.csv", "--trials", "6", "--workers", "2", "--study-name", "s"]
    slow = ["--set", "training.epochs=200", "--set", "training.patience=200", "--set", "pruner=none"]
    command = begun(place, *options, *slow, "--out", str(tmp_path))
    assert soon(lambda: list(tmp_path.glob("optuna.journal.running/*")))
    time.sleep(0.5)
    os.killpg(command.pid, signal.SIGKILL)
    command.wait()
    output = ended(begun(place, "repair", "--study-name", "s", "--out", str(tmp_path)))
    assert "had lost its process: ended, to be tried again" in output
    assert "the run of study s was left open: ended as interrupted" in output
    assert ended(begun(place, "repair", "--study-name", "s", "--out", str(tmp_path))) == "all is right\n"
    ended(begun(place, *options, *slow, "--out", str(tmp_path), "--trials", "2"))
    assert audit("s", str(tmp_path / "optuna.journal"), sqlite_uri(tmp_path / "mlflow.db"))["wrong"] == []


@pytest.fixture
def small_disk(tmp_path):
    """A small file system, and a function that enlarges it."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=300m", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("no file system can be mounted here")
    yield disk, lambda: subprocess.run(["mount", "-o", "remount,size=300m", str(disk)], check=True)
    subprocess.run(["umount", "-l", str(disk)], check=True)


@pytest.mark.slow
@pytest.mark.parametrize("kilobytes", [900, 2000])
def test_a_full_disk_is_reported_and_leaves_no_partial_files(place, small_disk, kilobytes):
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
    output, _ = command.communicate(timeout=300)
    # The code is 2 if there was no space for the store of runs.
    assert command.returncode in (1, 2), output
    assert "Traceback" not in output
    assert re.match("error: .*(No space left|disk is full)", output.splitlines()[-1]), output
    enlarge()
    ended(begun(place, *options))
    found = audit("s", str(disk / "runs" / "optuna.journal"), sqlite_uri(disk / "runs" / "mlflow.db"))
    assert (found["counted"], found["wrong"]) == (12, [])


@pytest.mark.slow
def test_a_read_only_disk_is_reported_at_once(place, small_disk):
    disk, _ = small_disk
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    options = ["job.yaml", "--data", "movies=movies.csv", "--study-name", "s"]
    output = ended(begun(place, *options, "--out", str(disk / "runs")), 2)
    assert "cannot be written: Read-only file system; give another folder" in output


def test_an_unwritable_folder_is_reported_at_once(refused, tmp_path):
    (tmp_path / "file").write_text("")
    options = ["job.yaml", "--data", "movies=movies.csv", "--study-name", "s"]
    output = refused(*options, "--out", str(tmp_path / "file" / "runs"))
    assert "cannot be written: Not a directory; give another folder" in output
