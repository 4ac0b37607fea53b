"""The benchmark of users with known histories: its splits, its cells, and a small set from end to end."""

import gzip
import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from benchmarks.warm import run as warm_run
from benchmarks.warm import sets
from benchmarks.warm.cells import SETTINGS, WarmPlan, cells_of, predict_cell
from benchmarks.warm.report import compare_warm, markdown
from benchmarks.warm.sets import WARM_SETS, WarmSet, random_tenth, surprise_folds
from metarec.cells import CellResult
from metarec.errors import InputError
from tests.episodes.conftest import make_domain

SMALL = {
    **SETTINGS,
    "trials": 2,
    "tune_bases": 2,
    "bases": ["bias", "item-knn"],
    "baselines": ["ridge", "fwls"],
    "training": {"epochs": 2},
    "episodes": {"shots": 5, "folds": 2},
}


@pytest.fixture
def data(tmp_path, monkeypatch):
    """A folder with a table in the layout of MovieLens-100K, and a set of it."""
    movies = make_domain("movies", users=24)
    folder = tmp_path / "data" / "small"
    folder.mkdir(parents=True)
    rows = movies.ratings[["user", "item", "rating", "timestamp"]]
    rows = rows.iloc[: len(rows) // 5 * 5]
    rows.to_csv(folder / "ratings.csv", index=False)
    with gzip.open(folder / "u1.test.gz", "wt") as file:
        rows.iloc[::4].to_csv(file, sep="\t", header=False, index=False)
    known = {
        "small": WarmSet("small", "small", "Small, five folds", surprise_folds, published={"theirs": 0.9}),
        "listed": replace(WARM_SETS["u1"], name="listed", folder="small"),
    }
    monkeypatch.setattr("benchmarks.warm.sets.WARM_SETS", known)
    monkeypatch.setattr("benchmarks.warm.cells.WARM_SETS", known)
    monkeypatch.setattr("benchmarks.warm.report.WARM_SETS", known)
    monkeypatch.setenv("METAREC_DATA", str(folder.parent))
    return folder.parent


def mean_alone(episodes, spec):
    mean = np.full(episodes.test.batch.query.mask.shape, float(episodes.train.batch.query.targets.mean()))
    return {"metarec": mean, "stack": mean + 0.1}, {"metarec": {"mean": 1.0}}


def plan_of(data, tmp_path, name="small", models=mean_alone):
    work = tmp_path / "work"
    work.mkdir()
    return WarmPlan((name,), data, work, SMALL, models)


def test_the_folds_are_those_of_surprise(data):
    domain = sets.WARM_SETS["small"].read(data)
    masks = surprise_folds(domain, data)
    np.testing.assert_array_equal(np.sum(masks, axis=0), 1)
    # KFold(n_splits=5, random_state=0, shuffle=True) of Surprise 1.1.4 on ten ratings.
    ten = surprise_folds(replace(domain, ratings=domain.ratings.iloc[:10]), data)
    assert [np.flatnonzero(mask).tolist() for mask in ten] == [[2, 8], [4, 9], [1, 6], [3, 7], [0, 5]]
    with pytest.raises(InputError, match="that 5 divides but there are 11"):
        surprise_folds(replace(domain, ratings=domain.ratings.iloc[:11]), data)


def test_the_listed_ratings_are_the_test(data):
    one = sets.WARM_SETS["listed"]
    domain = one.read(data)
    (mask,) = one.test_masks(domain, data)
    np.testing.assert_array_equal(np.flatnonzero(mask), np.arange(0, len(domain.ratings), 4))
    with gzip.open(data / "small" / "u1.test.gz", "at") as file:
        file.write("nobody\tnothing\t3\t0\n")
    with pytest.raises(InputError, match="must be one of the ratings but 1 are not"):
        one.test_masks(domain, data)
    (data / "small" / "u1.test.gz").unlink()
    with pytest.raises(InputError, match="the test ratings cannot be read"):
        one.test_masks(domain, data)


def test_a_tenth_is_drawn(data):
    domain = sets.WARM_SETS["small"].read(data)
    (mask,) = random_tenth(domain, data)
    assert mask.sum() == len(domain.ratings) // 10
    np.testing.assert_array_equal(mask, random_tenth(domain, data)[0])


def test_every_test_rating_is_predicted_in_its_fold(data, tmp_path):
    plan = plan_of(data, tmp_path)
    domain = sets.WARM_SETS["small"].read(data)
    rows = pd.concat([predict_cell(plan, cell).frames["rows"] for cell in cells_of(plan, domain)])
    assert sorted(zip(rows["user"], rows["item"], strict=True)) == sorted(
        domain.ratings[["user", "item"]].itertuples(index=False, name=None)
    )
    truth = domain.ratings.set_index(["user", "item"])["rating"]
    found = rows.set_index(["user", "item"])["rating"]
    pd.testing.assert_series_equal(found.sort_index(), truth.sort_index(), check_exact=False)


def test_no_prediction_depends_on_a_test_rating(data, tmp_path):
    """The rule of the benchmark, with every base, stacker and network."""
    from benchmarks.common.study import study_predictions

    plan = plan_of(data, tmp_path, "listed", study_predictions)
    one = sets.WARM_SETS["listed"]
    domain = one.read(data)
    (cell,) = cells_of(plan, domain)
    before = predict_cell(plan, cell)
    path = data / "small" / "ratings.csv"
    table = pd.read_csv(path)
    scale = domain.scale
    table.loc[::4, "rating"] = scale.low + scale.high - table.loc[::4, "rating"]
    table.to_csv(path, index=False)
    again = replace(plan, work=tmp_path)
    (cell,) = cells_of(again, one.read(data))
    after = predict_cell(again, cell)
    models = before.frames["rows"].columns.drop(["domain", "user", "item", "rating"])
    assert {"metarec", "network", "stack", "no-inner-loop", "ridge", "bias"} <= set(models)
    pd.testing.assert_frame_equal(before.frames["rows"][models], after.frames["rows"][models])
    assert "neighbours" in before.notes["settings"]["item-knn"]
    assert before.notes["settings"] == after.notes["settings"]
    assert (before.frames["rows"]["rating"] != after.frames["rows"]["rating"]).any()


def test_a_cell_depends_on_its_code_and_settings(data, tmp_path):
    plan = plan_of(data, tmp_path)
    domain = sets.WARM_SETS["small"].read(data)
    (first, *_), (other, *_) = (cells_of(one, domain) for one in (plan, replace(plan, settings={**SMALL, "trials": 3})))
    assert first.key == other.key
    assert first.digest != other.digest
    assert "benchmarks/common/study.py" in str(first.facts)


@pytest.mark.slow
def test_the_command_writes_a_report_and_goes_on(data, tmp_path, capsys):
    def command():
        warm_run.run(["small"], 1, tmp_path / "work", tmp_path, None, settings=SMALL)

    command()
    assert "| `metarec` |" in capsys.readouterr().out
    found = json.loads((tmp_path / "warm.json").read_text())
    section = found["sets"]["small"]
    assert len(section["models"]["metarec"]["rmse_by_fold"]) == 5
    assert section["models"]["stack"]["rmse"] > 0
    assert {"stack", "no-inner-loop", "best-single"} - set(section["comparisons"]) == {"best-single"}
    text = (tmp_path / "warm.md").read_text()
    assert "| *theirs* | 0.9000 |" in text
    seconds = [cell["seconds"] for cell in found["cells"]]
    command()
    again = json.loads((tmp_path / "warm.json").read_text())
    assert [cell["seconds"] for cell in again["cells"]] == seconds


def test_comparisons_are_paired_over_users():
    rng = np.random.default_rng(0)
    users = np.repeat([f"u{number}" for number in range(60)], 5)
    truth = rng.normal(size=300)
    frame = pd.DataFrame({"domain": "small", "user": users, "item": "i", "rating": truth})
    frame = frame.assign(metarec=truth + 0.5, stack=truth + 0.6, ridge=truth + 0.5)
    (section,) = compare_warm({"u1": [CellResult({"rows": frame}, {})]}).values()
    assert section.rmse["metarec"] == pytest.approx([0.5])
    assert section.mae["stack"] == pytest.approx([0.6])
    assert section.comparisons["stack"]["difference"] == pytest.approx(100 * (1 - 0.5 / 0.6))
    assert section.comparisons["stack"]["verdict"] == "better"
    assert section.comparisons["ridge"]["verdict"] == "no difference"
    run = {"machine": {"memory_gib": None, "cpu": "c", "cores": 2, "system": "s"}, "command": "c", "date": "d"}
    text = markdown(
        {"u1": section},
        {**run, "commit": "c", "versions": {}, "tune_bases": 2, "trials": 3, "duration_s": 1.0, "cells_s": 1.0},
    )
    assert "| `stack` | 0.6000 | 0.6000 | +16.67 % [+16.67, +16.67] |" in text


@pytest.mark.parametrize(
    ("names", "jobs", "problem"),
    [
        (["films"], 1, 'unknown set "films"'),
        (["u1", "u1"], 1, "different sets but got u1,u1"),
        ([], 1, "different sets but got none"),
        (["u1"], 0, "--jobs must be >= 1 but got 0"),
    ],
)
def test_bad_input_is_one_line(names, jobs, problem, tmp_path, monkeypatch):
    monkeypatch.setenv("METAREC_DATA", str(tmp_path))
    with pytest.raises(InputError, match=r"^[^\n]+$") as caught:
        warm_run.run(names, jobs, tmp_path / "work", tmp_path, None)
    assert problem in str(caught.value)
    monkeypatch.delenv("METAREC_DATA")
    with pytest.raises(InputError, match="METAREC_DATA must name the folder"):
        warm_run.run(["u1"], 1, tmp_path / "work", tmp_path, None)
