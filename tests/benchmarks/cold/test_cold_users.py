"""The command: what it refuses, what it reports, and how it goes on after an interruption."""

import ast
import json
import os
import re
import signal
import time
from pathlib import Path

import pandas as pd
import pytest

from benchmarks.cold.cells import CODE
from benchmarks.common.sets import SETS, find_sets, largest_domain
from metarec.errors import InputError

ROOT = Path(__file__).parents[3]
SMALL = ("--sets", "ml_latest_small", "--shots", "2,5", "--folds", "3", "--seeds", "2")
CELLS = 3 * 2 * (1 + 2)


def end(process):
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


def numbers(folder):
    return json.loads((folder / "cold_users.json").read_text())


def computed(folder):
    return (folder / "log").read_text().splitlines() if (folder / "log").exists() else []


@pytest.fixture(scope="module")
def finished(command, tmp_path_factory):
    """A run that nothing interrupted: its folder and what it printed."""
    folder = tmp_path_factory.mktemp("finished")
    code, out, err = end(command(folder, *SMALL, "--jobs", "1"))
    assert code == 0, err
    return folder, out


@pytest.mark.slow
def test_a_run_its_report_and_a_second_that_computes_nothing(finished, command, data):
    folder, out = finished
    assert len(computed(folder)) == CELLS
    report = numbers(folder)
    section = report["sets"]["ml_latest_small"]["5"]
    ratings = pd.read_csv(data / "ml_latest_small" / "ratings.csv.gz")
    # Every user has 16 ratings, and is a test user once.
    assert section["n_users"] == ratings["user"].nunique()
    assert section["n_ratings"] == ratings["user"].nunique() * (16 - 5)
    assert set(section["models"]) == {"metarec", "network", "mean", "best-single", "items", "support"}
    assert set(section["comparisons"]) == {"mean", "best-single", "network"}
    # The network has ten times metarec's noise, and is no baseline.
    assert section["comparisons"]["network"]["rmse"]["verdict"] == "better"
    assert section["models"]["network"]["kind"] == "part"
    # metarec is here the mean with noise, and the report says so.
    assert section["comparisons"]["mean"]["rmse"]["difference"] < 0
    best = section["best_baseline"]
    assert section["models"][best]["rmse"] == min(section["models"][name]["rmse"] for name in ("mean", "best-single"))
    assert report["run"]["command"].startswith("python -m benchmarks.cold --sets ml_latest_small")
    assert {"python", "torch", "lenskit", "lightgbm", "scikit-learn", "numpy"} <= set(report["run"]["versions"])
    assert report["settings"]["metarec_seeds"] == [0, 1]
    assert len(report["cells"]) == CELLS
    assert (folder / "cold_users.png").read_bytes().startswith(b"\x89PNG")
    assert "| ml_latest_small | 5 |" in out

    code, _, err = end(command(folder, *SMALL, "--jobs", "2"))
    assert code == 0
    assert f"{CELLS} of {CELLS} cells are finished" in err
    assert len(computed(folder)) == CELLS
    assert numbers(folder)["sets"] == report["sets"]


@pytest.mark.slow
def test_ctrl_c_keeps_finished_cells_and_the_rerun_gives_the_same_report(finished, command, tmp_path):
    process = command(tmp_path, *SMALL, "--jobs", "2", STAND_IN_PAUSE="0.7")
    deadline = time.time() + 90
    while len(list((tmp_path / "work").rglob("*.json"))) < 4:
        assert time.time() < deadline
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    code, out, err = end(process)
    assert code == 130
    assert out == ""
    assert err.splitlines()[-1] == "interrupted; to continue, run the same command"
    assert "Traceback" not in err
    kept = len(list((tmp_path / "work").rglob("*.json")))
    assert 4 <= kept < CELLS
    (tmp_path / "log").unlink()

    code, _, err = end(command(tmp_path, *SMALL, "--jobs", "2"))
    assert code == 0, err
    assert f"{kept} of {CELLS} cells are finished" in err
    assert len(computed(tmp_path)) == CELLS - kept
    assert numbers(tmp_path)["sets"] == numbers(finished[0])["sets"]


@pytest.mark.slow
def test_stale_and_damaged_cells_are_computed_again(command, tmp_path):
    few = ("--sets", "ml_latest_small", "--shots", "5", "--folds", "3", "--seeds", "1", "--jobs", "1")
    assert end(command(tmp_path, *few))[0] == 0
    before = numbers(tmp_path)["sets"]
    records = sorted((tmp_path / "work").rglob("*.json"))
    # As if an older version of a base had written it: another digest, and other facts.
    content = json.loads(records[0].read_text())
    content["facts"]["code"]["metarec/bases"] = "old"
    records[0].write_text(json.dumps(content))
    digest = records[0].name.split(".")[-2]
    for path in records[0].parent.glob(f"*{digest}*"):
        path.rename(path.with_name(path.name.replace(digest, "0" * 16)))
    records[1].write_text(records[1].read_text()[:-30])
    (tmp_path / "log").unlink()
    code, _, err = end(command(tmp_path, *few))
    assert code == 0
    assert re.search(r"4 of 6 cells are finished, 1 are stale: code\.metarec/bases: old -> \w+ \(1 cells\)", err)
    assert len(computed(tmp_path)) == 2
    assert numbers(tmp_path)["sets"] == before


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--sets", "ml_latest"), 'unknown set "ml_latest"'),
        (("--sets", "jester5k,jester5k"), "different sets"),
        (("--sets", "jester5k,ml-100k"), "ml-100k: --ml100k is not given"),
        (("--sets", "goodbooks_5pct"), "goodbooks_5pct is not there; name its folder with METAREC_DATA"),
        (("--sets", "jester5k", "--shots", "1,x"), "--shots must be numbers"),
        (("--sets", "jester5k", "--shots", "5,5"), "--shots must be different"),
        (("--sets", "jester5k", "--folds", "2"), "--folds must be >= 3 but got 2"),
        (("--sets", "jester5k", "--seeds", "0"), "--seeds must be >= 1"),
        (("--sets", "jester5k", "--json", "no/such/folder.json"), "--json no/such/folder.json: cannot be written"),
        (("--fold", "3"), "--help lists the options"),
    ],
)
def test_bad_input_is_one_line(arguments, says, data, tmp_path, monkeypatch, capsys):
    from benchmarks.cold import run as cold_users

    monkeypatch.setenv("METAREC_DATA", str(data))
    places = ["--work", str(tmp_path / "work"), "--out", str(tmp_path / "out")]
    monkeypatch.setattr("sys.argv", ["cold_users", *arguments, *places])
    with pytest.raises(SystemExit) as stopped:
        cold_users.main(lambda: pytest.fail("nothing is computed"))
    assert stopped.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert says in line


def test_a_set_is_looked_for_only_where_it_is_asked_for(data):
    (found,) = find_sets(["jester5k"], data, None)
    assert found.read().name == "jester5k"
    with pytest.raises(InputError, match="METAREC_DATA is not given"):
        find_sets(["jester5k"], None, None)


def test_the_largest_category_is_found_by_counting(tmp_path):
    path = tmp_path / "ratings.csv.gz"
    pd.DataFrame({"user": list("abcde"), "domain": ["10", "9", "9", "10", "3"]}).to_csv(path, index=False)
    assert largest_domain(path) == "10"


def test_real_sets_are_found():
    if "METAREC_DATA" not in os.environ:
        pytest.skip("METAREC_DATA does not name the folder of real ratings")
    names = [name for name in SETS if name != "ml-100k"]
    found = find_sets(names, Path(os.environ["METAREC_DATA"]), None)
    assert [rating_set.name for rating_set in found] == names


@pytest.mark.parametrize(
    ("model", "files"),
    [
        ("baselines", ["cold/baselines", "cold/cells", "cold/ranking"]),
        ("metarec", ["cold/models", "cold/baselines", "cold/cells"]),
    ],
)
def test_cells_depend_on_all_code_that_computes_them(model, files):
    covered = CODE[model]
    assert all((ROOT / part).exists() for part in covered)
    for file in files:
        path = f"benchmarks/{file}.py"
        assert path in covered
        for node in ast.walk(ast.parse((ROOT / path).read_text())):
            # The store of cells computes none of them.
            if isinstance(node, ast.ImportFrom) and re.match(r"metarec\.(?!(cells|files)$)", node.module):
                place = node.module.replace(".", "/")
                named = any(part in (place, f"{place}.py") or place.startswith(f"{part}/") for part in covered)
                assert named, f"{path} uses {node.module}"


def test_a_baseline_is_kept_when_a_network_changes():
    assert not any(
        part in ("metarec/fusion", "metarec/meta", "benchmarks/cold/models.py") for part in CODE["baselines"]
    )
