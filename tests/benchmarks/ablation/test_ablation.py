"""The ablation: what its rows are, that no test rating reaches one, and a small set from end to end."""

import json

import numpy as np
import pandas as pd
import pytest

from benchmarks.ablation import run as ablation
from benchmarks.ablation.cells import AblationPlan, cells_of, predict_cell
from benchmarks.ablation.report import compare_parts
from benchmarks.common.sets import RatingSet
from metarec.cells import CellResult
from metarec.errors import InputError
from metarec.meta import NetworkConfig
from metarec.model import Fusion, FusionConfig
from metarec.ratings import simulate_domains

NETWORKS = {"0 steps": NetworkConfig(epochs=1, inner_steps=0), "1 step": NetworkConfig(epochs=1)}
STACKERS = ("mean", "ridge")


def written(folder, change=lambda ratings: ratings):
    folder.mkdir(parents=True, exist_ok=True)
    movies = simulate_domains(3, num_users=45, num_items=40, ratings_per_user=20)["movies"]
    change(movies.ratings.copy()).to_csv(folder / "ratings.csv", index=False)
    return RatingSet("ml_latest_small", str(folder))


@pytest.fixture
def few_bases(monkeypatch):
    monkeypatch.setattr("benchmarks.ablation.cells.bases_of", lambda domain: {"bias": {}, "item-knn": {}})


@pytest.fixture
def plan(tmp_path, few_bases):
    return AblationPlan((written(tmp_path / "data"),), 5, 3, STACKERS, NETWORKS, tmp_path / "work")


def test_the_rows_are_each_part_alone_and_together(plan):
    cells = cells_of(plan, plan.sets[0].read())
    result = predict_cell(plan, cells[0])
    models = {"stack", "0 steps", "1 step", "stack + 0 steps", "stack + 1 step", "all"}
    found = result.frames["rows"]
    assert set(found.columns) == {"domain", "user", "item", "rating", *models, *(f"{name} × 4" for name in models)}
    seconds = result.notes["seconds"]
    assert seconds["stack + 1 step"] == pytest.approx(seconds["stack"] + seconds["1 step"])
    assert all(value > 0 for value in seconds.values())
    # The stack is the product's.
    from benchmarks.ablation.cells import _folds

    episodes = _folds(plan, "ml_latest_small").episodes(0, 5)
    alone = Fusion(FusionConfig(networks={}, stackers=STACKERS, cross_fit=4)).fit(episodes).predict(episodes.test)
    ratings = episodes.test.scale.to_ratings(np.clip(alone[episodes.test.batch.query.mask.numpy()], 0, 1))
    np.testing.assert_allclose(found["stack × 4"], ratings, atol=1e-6)


def test_no_prediction_depends_on_a_query_rating_of_a_test_user(plan, tmp_path):
    domain = plan.sets[0].read()
    cell = cells_of(plan, domain)[0]
    before = predict_cell(plan, cell).frames["rows"]
    asked = pd.MultiIndex.from_frame(before[["user", "item"]])

    def turned(ratings):
        rows = pd.MultiIndex.from_frame(ratings[["user", "item"]].astype(str)).isin(asked)
        ratings.loc[rows, "rating"] = domain.scale.low + domain.scale.high - ratings.loc[rows, "rating"]
        return ratings

    other = AblationPlan((written(tmp_path / "turned", turned),), 5, 3, STACKERS, NETWORKS, tmp_path / "other")
    after = predict_cell(other, cells_of(other, other.sets[0].read())[0]).frames["rows"]
    models = before.columns.drop(["domain", "user", "item", "rating"])
    pd.testing.assert_frame_equal(before[models], after[models])
    assert (before["rating"] != after["rating"]).all()


def test_gains_are_against_the_stack():
    rng = np.random.default_rng(0)
    truth = rng.normal(size=200)
    rows = pd.DataFrame({"domain": "d", "user": np.repeat(np.arange(50).astype(str), 4), "item": "i", "rating": truth})
    rows = rows.assign(
        **{"stack": truth + 0.5, "1 step": truth + 0.6, "stack × 4": truth + 0.45, "all × 4": truth + 0.36}
    )
    cell = CellResult({"rows": rows}, {"seconds": {"stack": 1.0, "1 step": 2.0, "stack × 4": 4.0, "all × 4": 8.0}})
    models = compare_parts({"d": [cell]})["d"]["models"]
    assert models["stack"] == {"rmse": pytest.approx(0.5), "seconds": 1.0, "comparisons": {}}
    assert models["1 step"]["comparisons"]["stack"]["verdict"] == "worse"
    crossed = models["all × 4"]["comparisons"]
    assert crossed["stack"]["gain"] == pytest.approx(28)
    assert crossed["stack × 4"]["gain"] == pytest.approx(20)
    assert crossed["stack × 4"]["verdict"] == "better"
    assert list(models["stack × 4"]["comparisons"]) == ["stack"]


def test_the_command_writes_a_report_and_goes_on(tmp_path, few_bases, monkeypatch, capsys):
    one = written(tmp_path / "sets" / "ml_latest_small")
    monkeypatch.setenv("METAREC_DATA", str(tmp_path / "sets"))

    def command():
        settings = {"networks": {"1 step": NETWORKS["1 step"]}, "stackers": STACKERS}
        ablation.run([one.name], 5, 3, 1, tmp_path / "work", tmp_path, None, **settings)
        return json.loads((tmp_path / "ablation.json").read_text())

    first = command()
    assert "| `stack + 1 step × 4` |" in capsys.readouterr().out
    assert first["sets"]["ml_latest_small"]["n_users"] == 45
    assert command()["cells"] == first["cells"]


@pytest.mark.parametrize(
    ("sets", "folds", "problem"),
    [
        (["films"], 5, 'unknown set "films"'),
        ([], 5, "different sets"),
        (["ciao"], 5, "METAREC_DATA"),
        (["ciao"], 2, ""),
    ],
)
def test_bad_input_is_one_line(sets, folds, problem, tmp_path, monkeypatch):
    monkeypatch.delenv("METAREC_DATA", raising=False)
    with pytest.raises(InputError, match=r"^[^\n]+$") as caught:
        ablation.run(sets, 5, folds, 1, tmp_path / "work", tmp_path, None)
    assert problem in str(caught.value)
