"""The package in `examples/`, installed by pip: metarec finds its plug-ins by name."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from metarec.ratings import simulate_domains

ROOT = Path(__file__).parents[1]
OFFLINE = ["--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check"]
FEW = ["--set", "bases=[bias, item-median]", "--set", "training.epochs=2", "--set", "episodes.shots=3"]


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The folder of the installed package; it is built from a copy, because building leaves files behind."""
    folder = tmp_path_factory.mktemp("plugin")
    shutil.copytree(ROOT / "examples" / "metarec-example", folder / "source")
    install = [sys.executable, "-m", "pip", "install", *OFFLINE, "--target", folder / "site", folder / "source"]
    ended = subprocess.run(install, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    return folder / "site"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """The options that name two small domains."""
    folder = tmp_path_factory.mktemp("data")
    domains = simulate_domains(seed=1, num_users=60, num_items=60, ratings_per_user=25)
    for name in ("movies", "books"):
        domains[name].ratings.to_csv(folder / f"{name}.csv", index=False)
    return [f"--data={name}={folder / name}.csv" for name in ("movies", "books")]


@pytest.fixture
def run(installed, tmp_path):
    """Runs a module with the package installed, and returns its --json output."""

    def command(module, *arguments):
        path = os.pathsep.join([str(installed), str(ROOT)])
        ended = subprocess.run(
            [sys.executable, "-m", module, *arguments, "--json", "out.json", "--out", "mlruns"],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": path},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert ended.returncode == 0, ended.stderr
        return json.loads((tmp_path / "out.json").read_text())

    return command


@pytest.mark.slow
def test_a_study_finds_the_recommender_and_the_network(run, data):
    written = run(
        "metarec.study", "cold-start", *data, "--target=movies", "--trials=2", *FEW,
        "--set", "bases.item-median.least=2", "--set", "fusion.network=tilted-mean", "--set", "baselines=[mean]",
        "--set", "search={most: {low: 0.2, high: 0.4}}",
    )  # fmt: skip
    assert all(trial["state"] in ("complete", "pruned") for trial in written["trials"])
    assert 0.2 <= written["trials"][1]["params"]["most"] <= 0.4
    assert {"metarec", "item-median"} <= written["test"]["movies"].keys()


@pytest.mark.slow
def test_a_study_of_transfer_and_a_comparison_find_the_strategy(run, data):
    strategies = "transfer={target_users: 8, strategies: [sources_then_shift, zero_shot]}"
    written = run(
        "metarec.study", "transfer", *data, "--target=movies", "--trials=2", *FEW, "--set", strategies,
        "--set", "fusion.network=tilted-mean", "--set", "baselines=[mean]",
    )  # fmt: skip
    assert [trial["params"]["strategy"] for trial in written["trials"]] == ["sources_then_shift", "zero_shot"]
    few = ["--shots=1", "--target-users=5", "--seeds=1", "--strategies=sources_then_shift"]
    rows = run("metarec.compare", *data, "--target=movies", *few)["rows"]
    assert [row["strategy"] for row in rows] == ["scratch", "sources_then_shift"]
