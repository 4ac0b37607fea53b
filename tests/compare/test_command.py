"""The command: bad input gives one line, exit code 2 and no files; Ctrl-C can be continued."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from metarec.cli import compare as command
from metarec.compare import job as job_module
from metarec.ratings import simulate_domains
from metarec.transfer import competitors

ROOT = Path(__file__).parents[2]
HEAVY = {"torch", "pandas", "numpy", "mlflow", "optuna", "pydantic", "sklearn", "lenskit", "learn2learn", "lightgbm"}
OPTIONS = (
    *("--data", "--target", "--shots", "--target-users", "--strategies", "--seeds", "--regime", "--out"),
    *("--tracking-uri", "--name", "--json"),
)
TWO = ["--data", "movies=movies.csv", "--data", "books=books.csv", "--target", "movies"]


@pytest.fixture
def here(domains, tmp_path, monkeypatch):
    """The working directory: a folder with the ratings of two domains."""
    monkeypatch.chdir(tmp_path)
    for name in ("movies", "books"):
        domains[name].ratings.to_csv(tmp_path / f"{name}.csv", index=False)
    return tmp_path


@pytest.fixture
def refused(here, monkeypatch, capsys):
    """Runs the command in this process and returns its error line."""
    monkeypatch.setattr(command, "cores", lambda: 1)

    def run(*arguments):
        before = set(here.rglob("*"))
        monkeypatch.setattr(sys, "argv", ["compare", *arguments, "--out", "runs"])
        with pytest.raises(SystemExit) as ended:
            command.main()
        printed = capsys.readouterr()
        assert (ended.value.code, printed.out) == (2, ""), printed.err
        assert re.fullmatch(r"error: [^\n]+\n", printed.err), printed.err
        assert set(here.rglob("*")) == before
        return printed.err

    return run


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--strategies", "zero_shto"], ['unknown strategy "zero_shto"', 'did you mean "zero_shot"?', "ridge"]),
        (["--strategies", "ridge,ridge"], ['strategy "ridge" is named twice']),
        (["--target", "moveis"], ['--target "moveis"', 'did you mean "movies"?']),
        (["--shots", "1,few"], ["--shots must be whole numbers such as", '"1,few"']),
        (["--shots", ""], ["--shots must be whole numbers"]),
        (["--shots", "-1"], ["--shots must be numbers in 0..200 but got -1"]),
        (["--shots", "1.5"], ["--shots must be whole numbers", '"1.5"']),
        (["--target-users", "5;20"], ["--target-users must be whole numbers", '"5;20"']),
        (["--target-users", "1"], ["--target-users must be numbers >= 2 but got 1"]),
        (["--target-users", "5,9000"], ["--target-users 9000", "train users", "give smaller numbers"]),
        (["--shots", "200"], ["--target-users 5", "with 205 ratings", "give smaller numbers"]),
        (["--seeds", "0"], ["--seeds must be >= 1 but got 0"]),
        (["--seeds", "x"], ["--seeds", "valid integer", "--help"]),
        (["--regime", "label"], ['--regime: unknown regime "label"', 'did you mean "labels"?']),
        (["--name", "a/b"], ["--name must not hold a slash", '"a/b"']),
        (["--json", "no/such/out.json"], ["--json no/such/out.json", "a folder that exists"]),
        (["--tracking-uri", "./mlruns"], ["./mlruns", "plain folder", "use sqlite:///"]),
        (["--data", "movies.csv"], ["--data must be NAME=PATH", '"movies.csv"']),
        (["--data", "movies=movies.csv"], ["--target must say which", "movies"]),
        (["--data", "movies=missing.csv", "--target", "movies"], ["missing.csv", "no such file"]),
        (["--data", "movies=movies.csv", "--target", "movies"], ["--data must name a source", "add one"]),
        ([*TWO, "--target", "music"], ['--target "music"', "Known: books, movies"]),
        ([*TWO, "--target-users", "60"], ["--target-users 60", 'domain "movies"', "but got 60"]),
        ([*TWO, "--target-users", "60", "--regime", "labels"], ["--target-users 60", 'domain "movies"']),
        (["--nonsense"], ["--nonsense", "--help"]),
    ],
)
def test_bad_input_is_refused_with_one_line(refused, arguments, parts):
    line = refused(*arguments)
    assert all(part in line for part in parts), line


def test_too_few_test_users_are_refused_before_anything_is_fitted(refused, here):
    few = simulate_domains(seed=0, num_users=4, num_items=40, ratings_per_user=24)
    for name in ("movies", "books"):
        few[name].ratings.to_csv(here / f"{name}.csv", index=False)
    line = refused(*TWO, "--target-users", "2", "--shots", "5", "--seeds", "5")
    assert 'domain "' in line
    assert "--target-users 2" in line


def test_an_output_folder_that_cannot_be_written_is_refused(here, monkeypatch, capsys):
    monkeypatch.setattr(command, "cores", lambda: 1)
    monkeypatch.setattr(sys, "argv", ["compare", *TWO, "--target-users", "6", "--shots", "2", "--out", "movies.csv/a"])
    with pytest.raises(SystemExit) as ended:
        command.main()
    assert ended.value.code == 2
    assert "error: --out movies.csv/a: cannot be written" in capsys.readouterr().err


@pytest.fixture
def calls(finished, here, monkeypatch):
    """The arguments of each call of `run_comparison`, which returns the finished comparison."""
    found = []

    def run(plan, domains, job):
        found.append((plan, domains, job))
        job.watcher.on_begin(domains)
        return finished[0]

    monkeypatch.setattr(job_module, "run_comparison", run)
    monkeypatch.setattr(command, "cores", lambda: 1)
    return found


def test_the_options_reach_the_plan_and_the_comparison_is_printed(calls, finished, monkeypatch, capsys):
    options = ["--shots", "0, 3", "--target-users", "7", "--strategies", "mean,pooled", "--seeds", "2"]
    names = ["--regime", "both", "--name", "mine", "--json", "out.json", "--out", "runs", "--link-users"]
    monkeypatch.setattr(sys, "argv", ["compare", *TWO, *options, *names])
    command.main()
    ((plan, domains, job),) = calls
    assert (plan.target, list(domains)) == ("movies", ["movies", "books"])
    assert (plan.shots, plan.target_users, plan.seeds) == ((0, 3), (7,), 2)
    assert plan.strategies == ("scratch", "mean", "pooled")
    assert plan.regimes == ("everything", "labels")
    assert plan.link_users
    assert plan.make_rounds(domains).link_users
    assert (job.name, job.out, job.jobs) == ("mine", Path("runs"), 1)
    assert json.loads(Path("out.json").read_text()) == finished[0].to_json()
    printed = capsys.readouterr()
    assert "│ zero_shot" in printed.out
    assert "runs: sqlite:///runs/mlflow.db" in printed.out
    assert "movies: " in printed.err


def test_without_data_the_simulated_domains_are_compared(calls, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["compare", "--out", "runs"])
    command.main()
    ((plan, domains, job),) = calls
    assert (plan.target, list(domains)) == ("movies", ["movies", "books", "music"])
    assert (plan.shots, plan.target_users, list(plan.strategies)) == ((0, 1, 2, 5, 10), (5, 20, 100), competitors())
    assert re.fullmatch(r"compare-\d{8}-\d{6}", job.name)


def started(arguments, folder):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    return subprocess.Popen(
        [sys.executable, *arguments],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


@pytest.mark.slow
def test_ctrl_c_can_be_continued(here):
    with started(["-u", "-m", "metarec.compare", *TWO, "--target-users", "6", "--name", "s"], here) as process:
        lines = []
        for line in process.stderr:
            lines.append(line)
            if line.startswith("books: "):
                break
        time.sleep(1)
        # As a terminal does, to the whole group.
        os.killpg(process.pid, signal.SIGINT)
        rest, printed = process.stderr.read(), process.stdout.read()
        process.wait(60)
    errors = "".join(lines) + rest
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    assert printed == ""
    assert "to continue, run the same command with --name s" in rest


def test_help_names_every_option_and_imports_nothing_heavy(here):
    with started(["-X", "importtime", "-m", "metarec.compare", "--help"], here) as process:
        printed, imports = process.communicate(timeout=60)
    assert process.returncode == 0
    assert all(option in printed for option in OPTIONS)
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in imports.splitlines()}
    assert "metarec" in imported
    assert not imported & HEAVY
