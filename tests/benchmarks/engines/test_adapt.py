"""The benchmark on serving: its clock, its users, and the command on a small set."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from benchmarks.common.command import BAD_INPUT
from benchmarks.engines import adapt
from benchmarks.engines.adapt_cases import CASES, PARTS, Case, Clock, in_parts, one_by_one, prepare
from metarec.episodes import EpisodeSettings, assign_roles
from metarec.ratings import read_domain
from metarec.threads import one_thread
from tests.benchmarks.conftest import ROOT, write_set


@pytest.fixture(scope="module")
def domain(tmp_path_factory):
    folder = tmp_path_factory.mktemp("adapt") / "tiny"
    write_set(folder, seed=3, users=30, items=24)
    return read_domain(folder)


def test_cases_differ_and_the_first_is_the_default():
    assert len({case.name for case in CASES}) == len(CASES)
    assert CASES[0] == Case()
    assert CASES[0].name == "gated, 1 step, batched, items rated most"


def test_a_clock_counts_calls_by_part():
    clock = Clock()
    assert clock.timed("sum", sum)([1, 2]) == 3
    taken = clock.take()
    assert taken["sum"] > 0
    assert not clock.seconds


@pytest.mark.slow
def test_every_part_is_measured_and_the_parts_make_the_total(domain):
    with one_thread():
        world = prepare(domain, CASES[:2], items=8)
        rows = list(one_by_one(world, CASES[:2], rounds=1, limit=2))
        many = in_parts(world, CASES[0], users=5, part=2)
    assert [row["round"] for row in rows] == [0, 0, 1, 1, 1, 1]
    for taken in (*rows, many):
        parts = [taken[part] for part in (*world.maker.bases, *PARTS)]
        assert min(parts) > 0
        assert sum(parts) == pytest.approx(taken["total"], rel=0.05)
    # Served users are test users, and the scored items are not rated.
    roles = assign_roles({"tiny": domain}, "tiny", EpisodeSettings(), 0).roles
    assert len(world.users) == sum(role == "test" for role in roles.values())
    for history, items in world.users:
        assert len(history.items) == 10
        assert {kind: len(own) for kind, own in items.items()} == {"rated most": 8, "drawn": 8}
        assert not np.isin(history.items, np.concatenate(list(items.values()))).any()


@pytest.mark.slow
def test_the_command_writes_its_report(tmp_path):
    write_set(tmp_path / "tiny", seed=3, users=30, items=24)
    command = [
        sys.executable, "-m", "benchmarks.engines.adapt",
        "--data", str(tmp_path / "tiny"), "--items", "8", "--rounds", "1",
        "--users", "2", "--many", "4", "--out", str(tmp_path), "--work", str(tmp_path / "work"),
        "--json", str(tmp_path / "all.json"),
    ]  # fmt: skip
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "all.json").read_text())
    (one,) = report["sets"]
    assert [case["case"] for case in one["one_user_ms"]] == [case.name for case in CASES]
    assert all(case["median"]["total"] > case["median"]["fusion"] > 0 for case in one["one_user_ms"])
    assert (tmp_path / "adapt.md").read_text() in done.stdout
    assert "The bar, for the first case: total" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["--rounds", "0"], "--rounds must be >= 1 but got 0"), (["--data", "nowhere"], "nowhere: there are no ratings")],
)
def test_bad_input_is_reported_in_one_line(tmp_path, arguments, message):
    from typer.testing import CliRunner

    app = adapt.typer.Typer()
    app.command()(adapt.main)
    done = CliRunner().invoke(app, [*arguments, "--out", str(tmp_path), "--work", str(tmp_path)])
    assert done.exit_code == BAD_INPUT
    assert message in done.output
