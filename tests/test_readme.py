"""Every command of the README and of `docs/` is run, here, in `test_docs.py` or by `.ci/run`."""

import ast
import configparser
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest
import yaml
from typer.main import get_command

from metarec import __main__ as umbrella
from metarec.cli import serve as serving
from metarec.cli import study as command
from metarec.cli.study_jobs import app as further
from metarec.ratings import simulate_domains
from metarec.tracking import sqlite_uri, ui_command
from tests.support.pages import (
    FIRST_HOUR,
    JOBS,
    LEARN2LEARN,
    LISTS,
    MODEL,
    PAGES,
    README,
    ROOT,
    blocks,
    blocks_of,
    commands,
)

OPEN_RUNS = ".venv/bin/mlflow ui --backend-store-uri sqlite:///mlruns/mlflow.db"
RUN_BY_CI = ("make study", "make test", "make docs", OPEN_RUNS)
STUDY = [".venv/bin/python", "-m", "metarec.study"]
COMPARISON = [".venv/bin/python", "-m", "metarec.compare"]


FOLLOWED = (FIRST_HOUR, MODEL, LISTS)
"""The pages that `test_docs.py` follows command by command."""

MOST_BYTES = 10 * 1024
"""The size of the README: what somebody reads who wants to know whether to go on."""

COMMANDS = [line for page in PAGES if page not in FOLLOWED for line in commands("sh", page)]
INSTALL = "-m pip install --no-deps --no-build-isolation ./examples/metarec-example"
FURTHER = ("replay", "repair", "report", "worker")
RUN_HERE = [line for line in dict.fromkeys(COMMANDS) if shlex.split(line)[:3] == STUDY]
BEGUN_HERE = [line for line in RUN_HERE if not {*shlex.split(line)[3:4]} & {*FURTHER}]
UMBRELLA = [line for line in COMMANDS if line.startswith(".venv/bin/metarec ")]
COMPARED_HERE = [line for line in COMMANDS if shlex.split(line)[:3] == COMPARISON]


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with the files that the README's commands name."""
    monkeypatch.chdir(tmp_path)
    small = simulate_domains(seed=1, num_users=40, num_items=60, ratings_per_user=30)
    movies, books = small["movies"].ratings, small["books"].ratings
    for name in ("books.csv", "BX-Book-Ratings.csv"):
        books.to_csv(name, index=False)
    movies.rename(columns={"user": "who", "rating": "points"}).to_csv("marks.csv", index=False)
    books.assign(domain=books["item"].str[-1].map(lambda digit: "8" if digit < "8" else "9")).to_csv(
        "shops.csv", index=False
    )
    events = movies[["user", "item"]]
    events.to_csv("events.csv", index=False)
    kinds = events["item"].str[-1].map(lambda digit: "view" if digit < "4" else "cart" if digit < "8" else "buy")
    events.assign(event=kinds).to_csv("log.csv", index=False)
    # `scale=1,5` is for ratings that lie in it.
    movies.assign(rating=movies["rating"].clip(1, 5)).to_csv("ratings.csv", index=False)
    return tmp_path


def test_every_command_is_run_by_ci_or_here():
    script = [line.strip() for line in (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()]
    for line in RUN_BY_CI:
        assert line in COMMANDS
        assert any(re.search(rf"(^|\s){re.escape(line)}(\s|$)", entry) for entry in script), line
    assert RUN_HERE
    # What installs the package in examples/ is what `test_plugin_package.py` does.
    rest = set(COMMANDS) - {*RUN_BY_CI, *RUN_HERE, *COMPARED_HERE, *UMBRELLA, f".venv/bin/python {INSTALL}"}
    assert not rest, f"neither in .ci/run nor what this test runs: {rest}"


def test_every_stage_of_the_checks_runs(tmp_path):
    """`.ci/run` with stand-ins for make, the browser and Python: each of its own functions exists and ends."""
    project, programs = tmp_path / "project", tmp_path / "programs"
    script = project / ".ci" / "run"
    script.parent.mkdir(parents=True)
    shutil.copy(ROOT / ".ci" / "run", script)

    def stand_in(path: Path, lines: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"#!/bin/sh\n{lines}\n", encoding="utf-8")
        path.chmod(0o755)

    stand_in(programs / "chromedriver", "")
    # `make` is to create the environment, which is removed first.
    stand_in(tmp_path / "python", 'echo "python $1 $2"')
    stand_in(tmp_path / "mlflow", "sleep 60")
    environment = 'mkdir -p .venv/bin; cp "$STAND_INS/python" "$STAND_INS/mlflow" .venv/bin'
    stand_in(programs / "make", f'{environment}; echo "make $1: 1 passed"')
    variables = {
        **os.environ,
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        "STAND_INS": str(tmp_path),
        "METAREC_DATA": "data",
    }
    done = subprocess.run([script], env=variables, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert not done.stderr
    for target in (".venv/.installed", "lint", "docs", "test", "test-slow", "study"):
        assert f"make {target}: 1 passed\n" in done.stdout
    stages = re.findall(r'^\s*stage "([^"]+)"', script.read_text(encoding="utf-8"), re.MULTILINE)
    times = done.stdout.split("== times\n")[1]
    assert re.findall(r"^ +\d+ s  (.+)$", times, re.MULTILINE) == stages


@pytest.mark.parametrize("line", BEGUN_HERE)
def test_a_study_of_the_readme_finds_its_spec_and_reads_its_data(line, here, monkeypatch):
    from metarec.study import job
    from metarec.study.data import choose_target

    class BegunError(Exception):
        pass

    begun = {}

    def begin(spec, domains, where):
        begun.update(domains)
        assert spec.name in ("cold-start", "transfer", "ranking")
        assert choose_target(spec, domains) in ("movies", "books", "shopping", "shop")
        raise BegunError

    monkeypatch.setattr(job, "run_study", begin)
    monkeypatch.setattr(sys, "argv", ["study", *shlex.split(line)[3:]])
    with pytest.raises(BegunError):
        command.main()
    wanted = dict(entry.split("=", 1) for entry in re.findall(r"--data (\S+)", line))
    # Without --data it is the spec's own domains, a simulated world.
    simulated = {"shop"} if "ranking" in line else {"movies", "books", "music"}
    assert begun.keys() == (wanted.keys() or simulated)
    assert all(domain.num_users > 30 for domain in begun.values())
    if "scale=1,5" in line:
        assert str(begun["movies"].scale) == "1..5"


@pytest.mark.parametrize("line", UMBRELLA)
def test_a_command_that_lists_or_checks_prints_and_writes_nothing(line, here, monkeypatch, capsys):
    before = sorted(here.iterdir())
    monkeypatch.setattr(sys, "argv", shlex.split(line))
    umbrella.main()
    assert capsys.readouterr().out
    assert sorted(here.iterdir()) == before


@pytest.mark.parametrize("line", COMPARED_HERE)
def test_a_comparison_of_the_readme_can_start(line, here, monkeypatch):
    from metarec.compare import __main__ as comparison
    from metarec.compare import job

    class BegunError(Exception):
        pass

    def begin(plan, domains, where):
        assert plan.target in domains
        assert len(domains) > 1
        assert where.name
        raise BegunError

    monkeypatch.setattr(job, "run_comparison", begin)
    monkeypatch.setattr(sys, "argv", ["compare", *shlex.split(line)[3:]])
    with pytest.raises(BegunError):
        comparison.main()


@pytest.mark.slow
def test_the_commands_for_jobs_work_on_a_study(here, monkeypatch, capsys):
    """The commands for continued studies, with few bases and one epoch."""
    small = ["--set", "bases=[bias, item-knn]", "--set", "baselines=[mean]", "--set", "training.epochs=1"]
    lines = [line for line in commands("sh", JOBS) if line in BEGUN_HERE and "--study-name mine" in line]
    assert len(lines) == 2
    for trials, line in enumerate(lines, start=1):
        arguments = [*shlex.split(line)[3:], *small, "--trials", str(trials), "--json", "out.json"]
        monkeypatch.setattr(sys, "argv", ["study", *arguments])
        command.main()
        written = json.loads(Path("out.json").read_text())
        assert written["study"] == "mine"
        assert [trial["number"] for trial in written["trials"]] == list(range(trials))
    # The last lines of a study are the page's commands to open its runs.
    assert OPEN_RUNS.removeprefix(".venv/bin/") in capsys.readouterr().out
    lines = []
    for line in sorted({*RUN_HERE} - {*BEGUN_HERE}):
        monkeypatch.setattr(sys, "argv", ["study", *shlex.split(line)[3:]])
        command.main()
        lines += capsys.readouterr().out.splitlines()
    repaired, replayed, reported = lines
    assert repaired == "all is right"
    assert replayed.endswith(": equal")
    assert Path(reported.removeprefix("report: ")).is_file()


SERVERS = (
    "mlflow server",
    "systemctl enable --now metarec-worker@mine",
    "kubectl create secret",
    "mkdir mlruns && chgrp ",
    "kubectl apply -f ",
    "curl ",
)
"""The first words of commands of other tools, which need servers or clusters."""

MODEL_SERVER = "metarec serve "


@pytest.mark.parametrize("line", commands("bash"))
def test_the_commands_for_other_machines_are_understood(line):
    """The servers do not exist here, but the options must."""
    words = shlex.split(line)
    if words[:3] != ["python", "-m", "metarec.study"]:
        assert line.startswith((*SERVERS, MODEL_SERVER))
        assert all((ROOT / word).is_file() for word in words if word.startswith("deploy/"))
        return
    app, words = get_command(command.app), words[3:]
    if words[0] in FURTHER:
        app, words = get_command(further).commands[words[0]], words[1:]
    parsed = app.make_context("study", words).params
    assert parsed["storage"].startswith("postgresql+psycopg://")
    assert parsed["tracking_uri"].startswith("http://")


def test_an_mlflow_server_has_the_options_that_the_docs_name():
    from mlflow.cli import server

    (line,) = (line for line in commands("bash") if line.startswith("mlflow server"))
    # Parsed, and not called: it would begin to serve.
    options, rest, _ = server.make_parser(click.Context(server)).parse_args(shlex.split(line)[2:])
    assert options["port"] == "5000"
    assert options["app_name"] == "basic-auth"
    assert options["host"] == "127.0.0.1"
    assert not rest


@pytest.mark.parametrize("page", [MODEL, LISTS])
def test_a_model_is_served_with_existing_options(page):
    (line,) = (line for line in commands("bash", page) if line.startswith(MODEL_SERVER))
    parsed = get_command(serving.app).make_context("serve", shlex.split(line)[2:]).params
    assert (parsed["host"], parsed["port"]) == ("127.0.0.1", 5001)


@pytest.mark.parametrize("line", [line for line in commands("bash") if line.startswith("curl ")])
def test_requests_in_the_docs_match_the_signature(line):
    from metarec.model.requests import ListRequests, RatingRequests

    (row,) = json.loads(shlex.split(line)[-1])["dataframe_records"]
    requests = RatingRequests if "item" in row else ListRequests
    names = {column.name: column.required for column in requests.signature().inputs.inputs}
    assert set(row) <= set(names)
    assert {name for name, required in names.items() if required} <= set(row)


def test_deployed_workers_use_existing_options():
    job = yaml.safe_load((ROOT / "deploy" / "worker-job.yaml").read_text())
    (container,) = job["spec"]["template"]["spec"]["containers"]
    unit = configparser.ConfigParser(interpolation=None, strict=False)
    unit.optionxform = str
    unit.read(ROOT / "deploy" / "metarec-worker@.service")
    started = unit["Service"]["ExecStart"].split()
    worker = get_command(further).commands["worker"]
    assert container["command"][1:] == started[1:4] == ["-m", "metarec.study", "worker"]
    for words in (container["args"], started[4:]):
        assert worker.make_context("worker", list(words)).params["study_name"]
        # All users of a machine see arguments.
        assert not any("STORAGE" in word or "TRACKING" in word or "://" in word for word in words)
    assert "secretRef" in container["envFrom"][0]
    assert unit["Service"]["EnvironmentFile"]


def test_the_readme_opens_the_runs_with_the_command_of_a_study(monkeypatch):
    monkeypatch.chdir(ROOT)
    printed = shlex.split(ui_command(sqlite_uri(Path("mlruns/mlflow.db"))))
    assert printed[1:] == shlex.split(OPEN_RUNS)[1:]


def test_deployed_workers_are_valid_kubernetes():
    validate = pytest.importorskip("kubernetes_validate", reason="kubernetes-validate is not installed")
    job = yaml.safe_load((ROOT / "deploy" / "worker-job.yaml").read_text())
    validate.validate(job, validate.latest_version(), strict=True)
    job["spec"]["paralelism"] = job["spec"].pop("parallelism")
    with pytest.raises(validate.ValidationError):
        validate.validate(job, validate.latest_version(), strict=True)


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_deployed_workers_are_a_valid_unit(tmp_path):
    unit = (ROOT / "deploy" / "metarec-worker@.service").read_text()
    place = tmp_path / "metarec-worker@mine.service"
    place.write_text(unit.replace("/opt/metarec/bin/python", sys.executable))
    checked = subprocess.run(["systemd-analyze", "verify", place], capture_output=True, text=True, check=False)
    lines = [line for line in checked.stderr.splitlines() if place.name in line]
    assert (checked.returncode, lines) == (0, [])


def test_the_readme_is_short():
    assert len(PAGES[README].encode()) <= MOST_BYTES


def test_the_readme_loads_a_model_as_its_page_does():
    """`test_docs.py` runs that page."""
    load, _ = blocks("python", README)
    assert load.code in [block.code for block in blocks_of(MODEL)]


@pytest.mark.slow
def test_the_example_of_the_readme_runs(tmp_path):
    _, library = blocks("python", README)
    assert len([line for line in library.code.splitlines() if line.strip()]) <= 10
    weights, shape = python(["-c", library.code], tmp_path).splitlines()
    assert sum(ast.literal_eval(weights).values()) == pytest.approx(1)
    assert re.fullmatch(r"\(\d+, 40\)", shape)


LINKS = [
    (page, target) for page, text in PAGES.items() for target in re.findall(r"\]\(((?!http)[^)#]+)(?:#[^)]*)?\)", text)
]


@pytest.mark.parametrize(("page", "target"), LINKS)
def test_the_targets_of_links_exist(page, target):
    assert (ROOT / page).parent.joinpath(target).is_file()


def python(arguments, folder):
    # From another folder the package is found where it is installed, or on the path that pytest was given.
    ended = subprocess.run([sys.executable, *arguments], cwd=folder, capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def test_the_changed_lines_are_those_of_the_examples():
    shown = blocks("diff", LEARN2LEARN)[0].code
    for sign, name in (("-", "learn2learn"), ("+", "metarec")):
        script = (ROOT / "docs" / "examples" / f"sines_{name}.py").read_text(encoding="utf-8").splitlines()
        for line in (line[1:] for line in shown.splitlines() if line.startswith(sign)):
            assert line in script
