"""A comparison: its rows follow from the rounds, and a cell is computed once, kept whole, and recorded once."""

import dataclasses
import html
import json
import logging
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from metarec.cells import CellStore
from metarec.compare import cells as cells_module
from metarec.compare import job as job_module
from metarec.compare.cells import StrategyResult, cells_on_disk
from metarec.compare.job import Job, Watcher, run_comparison
from metarec.compare.plan import CellKey
from metarec.errors import InputError
from metarec.tracking import MlflowTracker, NullTracker, markdown_text, runs_address
from metarec.transfer import Sources, TransferRounds, predict_round

KEYS = {"strategy", "target", "shots", "target_users", "seed", "rmse", "mae", "unit_rmse", "n_users"}


@pytest.fixture
def computed(monkeypatch):
    """The cells that are computed in this process, in order."""
    cells = []
    original = job_module.compute_cell

    def compute(cell, *args):
        cells.append(cell)
        return original(cell, *args)

    monkeypatch.setattr(job_module, "compute_cell", compute)
    return cells


class StopsAfter(Watcher):
    def __init__(self, count, error):
        self.count, self.error = count, error

    def on_cell(self, result, done, total):
        if done == self.count:
            raise self.error


def test_the_rows_keep_their_contract(finished):
    comparison, _ = finished
    rows = json.loads(json.dumps(comparison.to_json()))["rows"]
    assert all(set(row) >= KEYS for row in rows)
    places = [(row["shots"], row["target_users"], row["seed"], row["strategy"]) for row in rows]
    # Scratch is there although the plan did not name it.
    names = ["scratch", "zero_shot", "oracle", "mean", "ridge"]
    assert places == [(shots, 6, seed, name) for seed in (0, 1) for shots in (2, 4) for name in names]
    for row in rows:
        assert row["unit_rmse"] == pytest.approx(row["rmse"] / 4.5)
        assert 0 < row["mae"] <= row["rmse"]
    assert len({row["rmse"] for row in rows}) == len(rows)


@pytest.mark.parametrize("name", ["zero_shot", "oracle", "ridge"])
def test_a_row_follows_from_the_predictions_of_its_round(finished, domains, tiny_plan, name):
    comparison, folder = finished
    plan = tiny_plan()
    rounds = TransferRounds(domains, plan.shots, plan.episodes, bases=plan.bases, cache=folder / "cache")
    given = rounds.round("movies", shots=4, target_users=6, number=1)
    predictions = predict_round(name, given, plan.fusion, seed=1).predictions
    mask = given.plain_test.batch.query.mask.numpy()
    errors = (0.5 + 4.5 * predictions[mask]) - given.plain_test.query_ratings[mask]
    (result,) = (one for one in comparison.results if str(one.cell) == f"{name}, 4 shots, 6 users, seed 1")
    row = result.row()
    assert row["rmse"] == pytest.approx(np.sqrt(np.mean(errors**2)))
    assert row["mae"] == pytest.approx(np.mean(np.abs(errors)))
    assert (row["n_users"], row["n_ratings"]) == (len(given.plain_test), mask.sum())
    assert dict(zip(result.users, result.sums, strict=True)) == pytest.approx(
        {
            user: np.sum((0.5 + 4.5 * own[seen] - rating[seen]) ** 2)
            for user, own, rating, seen in zip(
                given.plain_test.users, predictions, given.plain_test.query_ratings, mask, strict=True
            )
        }
    )


def test_predictions_of_the_oracle_are_as_wide_as_the_test_users_need(domains, tiny_plan):
    plan = tiny_plan()
    episodes = plan.episodes.model_copy(update={"max_query": 100})
    given = TransferRounds(domains, [2], episodes, bases={"bias": {}, "content": {}}).round(
        "movies", shots=2, target_users=6
    )
    width = given.plain_test.batch.query.mask.shape[1]
    assert given.more_users.test.batch.query.mask.shape[1] > width
    assert predict_round("oracle", given, plan.fusion, 0).predictions.shape[1] == width


@pytest.mark.slow
@pytest.mark.parametrize("recorded", [3, 0])
def test_going_on_computes_only_the_missing_cells(finished, folder, domains, tiny_plan, computed, runs_of, recorded):
    """With an interrupted session that recorded its cells, and one that did not."""
    whole, _ = finished
    tracker = MlflowTracker.in_folder(folder)
    first = Job(folder, "whole", tracker if recorded else NullTracker(), watcher=StopsAfter(3, KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        run_comparison(tiny_plan(), domains, first)
    assert len(computed) == 3
    if recorded:
        _, (parent,), children = runs_of(folder)
        assert (parent.info.status, len(children)) == ("KILLED", 3)

    again = run_comparison(tiny_plan(), domains, Job(folder, "whole", tracker))
    assert again.to_json() == whole.to_json()
    assert computed == [result.cell for result in whole.results]
    third = run_comparison(tiny_plan(), domains, Job(folder, "whole", tracker))
    assert third.to_json() == whole.to_json()
    assert len(computed) == len(whole.results)

    client, (parent,), children = runs_of(folder)
    assert parent.info.status == "FINISHED"
    assert sorted(child.info.run_name for child in children) == sorted(str(one.cell) for one in whole.results)
    assert {child.info.status for child in children} == {"FINISHED"}

    client.delete_run(parent.info.run_id)
    fourth = run_comparison(tiny_plan(), domains, Job(folder, "whole", tracker))
    assert len(computed) == len(whole.results)
    _, (anew,), both = runs_of(folder)
    assert fourth.run_id == anew.info.run_id != parent.info.run_id
    own = [child for child in both if child.data.tags["metarec.parent"] == anew.info.run_id]
    assert len(own) == len(whole.results)


@pytest.mark.parametrize("noted_in", ["folder", "store"])
def test_a_name_is_not_used_for_other_data_or_settings(finished, domains, tiny_plan, folder, noted_in):
    """The runs of both would be in one table."""
    # The store alone knows it where another folder is used with one server.
    where = finished[1] if noted_in == "folder" else folder
    other = {**domains, "books": domains["books"].without(domains["books"].ratings["user"].unique()[:1])}
    for plan, data, key in (
        (tiny_plan(), other, "domains.books"),
        (tiny_plan(link_users=True), domains, "link_users"),
        (tiny_plan(), {name: domains[name] for name in ("movies", "books")}, "domains.music"),
    ):
        job = Job(where, "whole", MlflowTracker.in_folder(finished[1]))
        with pytest.raises(InputError, match=rf'comparison "whole" has other data or settings: {key} was .* --name'):
            run_comparison(plan, data, job)
        shutil.rmtree(folder / "artifacts", ignore_errors=True)


def test_the_sources_are_made_once_a_round(folder, domains, tiny_plan, monkeypatch):
    counts = []
    original = Sources.__init__

    def make(self, episodes):
        original(self, episodes)
        counts.append(len(episodes))

    monkeypatch.setattr(Sources, "__init__", make)
    run_comparison(tiny_plan(seeds=1, strategies=["zero_shot", "model_agnostic"]), domains, Job(folder, "s"))
    # One for each round and for the one of the similarities; the empty ones are for scratch.
    assert counts.count(2) == 3


def test_more_processes_change_nothing(finished, folder, domains, tiny_plan):
    whole, _ = finished
    assert run_comparison(tiny_plan(), domains, Job(folder, "whole", jobs=2)).to_json() == whole.to_json()


def test_an_error_in_a_worker_ends_the_comparison(folder, domains, tiny_plan):
    broken = tiny_plan().fusion.model_copy(update={"loss": "mse", "options": {"hidden_dim": "wide"}})
    with pytest.raises(InputError, match="hidden_dim must be an integer"):
        run_comparison(tiny_plan(fusion=broken), domains, Job(folder, "broken", jobs=2))


def digests(plan, domains):
    return {key: cell.digest for key, cell in cells_on_disk(plan, domains).items()}


def test_a_cell_is_found_again_only_for_the_same_data_and_settings(domains, tiny_plan):
    plan = tiny_plan()
    own = digests(plan, domains)
    assert len(set(own.values())) == len(plan.cells())
    books = domains["books"]
    ratings = books.ratings.copy()
    ratings.loc[0, "rating"] = 6 - ratings.loc[0, "rating"] if ratings.loc[0, "rating"] != 3 else 4
    others = [digests(plan, {**domains, "books": replace(books, ratings=ratings)})]
    others += [
        digests(tiny_plan(**change), domains)
        for change in (
            {"shots": [2, 3]},
            {"bases": {"bias": {}}},
            {"link_users": True},
            {"fusion": plan.fusion.model_copy(update={"epochs": 4})},
            {"episodes": plan.episodes.model_copy(update={"max_query": 9})},
        )
    ]
    assert len(set().union(*(found.values() for found in [own, *others]))) == sum(map(len, [own, *others]))
    # More rounds and other strategies do not change a cell.
    wider = digests(tiny_plan(seeds=9, target_users=[6, 10], strategies=["mean"]), domains)
    assert {key: wider[key] for key in own if key in wider} == {
        key: digest for key, digest in own.items() if key.strategy in ("scratch", "mean")
    }


def test_a_cell_is_computed_again_when_the_code_of_its_plug_in_has_changed(domains, tiny_plan, monkeypatch):
    before = digests(tiny_plan(), domains)
    monkeypatch.setattr(cells_module.STRATEGIES, "code_of", lambda names: {"ridge": "new"} if "ridge" in names else {})
    after = digests(tiny_plan(), domains)
    assert {key.strategy for key in before if before[key] != after[key]} == {"ridge"}


def test_a_damaged_cell_is_computed_again(finished, folder, domains, tiny_plan, computed, caplog):
    whole, _ = finished
    plan = tiny_plan(seeds=1)
    first = run_comparison(plan, domains, Job(folder, "s"))
    damaged = next((folder / "artifacts" / "s" / "cells").glob("ridge/shots-2.*seed-0*.json"))
    damaged.write_text(damaged.read_text()[:100])
    computed.clear()
    with caplog.at_level(logging.WARNING):
        assert run_comparison(plan, domains, Job(folder, "s")).to_json() == first.to_json()
    assert [str(cell) for cell in computed] == ["ridge, 2 shots, 6 users, seed 0"]
    assert "is damaged; it is computed again" in caplog.text
    assert [row for row in whole.to_json()["rows"] if row["seed"] == 0] == first.to_json()["rows"]


def test_one_run_for_the_comparison_and_one_for_each_cell(finished, runs_of, tmp_path):
    comparison, folder = finished
    client, (parent,), children = runs_of(folder)
    assert (parent.info.run_id, parent.info.status) == (comparison.run_id, "FINISHED")
    assert parent.data.tags["metarec.role"] == "comparison"
    assert {child.data.tags["metarec.parent"] for child in children} == {parent.info.run_id}
    runs = {run.info.run_name: run for run in children}
    for result in comparison.results:
        run, row = runs.pop(str(result.cell)), result.row()
        for name in ("strategy", "target", "shots", "target_users", "seed", "regime"):
            assert run.data.params[name] == str(row[name])
        for name in ("rmse", "mae", "unit_rmse"):
            assert run.data.metrics[name] == row[name]
        kept = [file.path for file in client.list_artifacts(run.info.run_id)]
        assert kept == (["reasons.json"] if result.reasons else [])
    assert not runs
    ridge = next(run for run in children if run.info.run_name.startswith("ridge"))
    reasons = client.download_artifacts(ridge.info.run_id, "reasons.json", str(tmp_path))
    assert "alpha" in json.loads(Path(reasons).read_text())["settings"][0]

    files = {file.path for file in client.list_artifacts(parent.info.run_id)}
    assert files == {"gain_over_scratch.png", "report.html", "similarity.png", "table.csv", "table.md"}
    for name in ("gain_over_scratch.png", "similarity.png"):
        picture = Path(client.download_artifacts(parent.info.run_id, name, str(tmp_path))).read_bytes()
        assert int.from_bytes(picture[16:20], "big") == 800
    table = Path(client.download_artifacts(parent.info.run_id, "table.md", str(tmp_path))).read_text().strip()
    assert table in parent.data.tags["mlflow.note.content"]
    assert "| zero_shot |" in table


def rows_of(client, comparison):
    """Strategy -> its row in MLflow."""
    query = f"tags.`mlflow.parentRunId` = '{comparison.run_id}' and tags.`metarec.role` = 'row'"
    rows = client.search_runs([comparison.experiment_id], query)
    return {run.data.params["strategy"]: run for run in rows}


def test_each_strategy_is_a_run_above_its_cells(finished, runs_of):
    comparison, folder = finished
    client, _, cells = runs_of(folder)
    rows = rows_of(client, comparison)
    assert set(rows) == set(comparison.plan.strategies)
    for line in comparison.lines:
        row = rows[line.strategy]
        assert row.info.status == "FINISHED"
        if line.shots is None:
            assert row.info.run_name == f"{line.value:.4f} · {line.strategy}"
            assert row.data.metrics["overall_rmse"] == line.value
            assert row.data.metrics["overall_gain_percent"] == (0.0 if line.gain is None else line.gain.percent)
            text = "" if line.gain is None else f"{line.gain}: {line.gain.verdict}"
            assert row.data.tags["gain over scratch"] == text
        else:
            for name, value in {"rmse": line.value, "gain_percent": line.gain.percent if line.gain else 0.0}.items():
                (point,) = [p for p in client.get_metric_history(row.info.run_id, name) if p.step == line.shots]
                assert point.value == value
    for cell in cells:
        assert cell.data.tags["mlflow.parentRunId"] == rows[cell.data.params["strategy"]].info.run_id


def test_the_address_leads_to_a_leaderboard(finished, runs_of):
    comparison, folder = finished
    client, _, _ = runs_of(folder)
    experiment = client.get_experiment(comparison.experiment_id)
    key = runs_address(comparison.experiment_id, comparison.run_id, view="row").rpartition("=")[2]
    view = json.loads(experiment.tags[f"mlflow.sharedViewState.{key}"])
    order = [f"{view['orderByKey']} {'ASC' if view['orderByAsc'] else 'DESC'}"]
    found = client.search_runs([comparison.experiment_id], view["searchFilter"], order_by=order)
    gains = [run.data.metrics["overall_gain_percent"] for run in found]
    assert len(found) == len(comparison.plan.strategies)
    assert gains == sorted(gains, reverse=True)
    for column in view["selectedColumns"]:
        kind, name = column.replace("`", "").split(".", 1)
        assert all(name in getattr(run.data, kind) for run in found), column


def test_the_report_begins_with_the_verdict(finished, runs_of, tmp_path):
    comparison, folder = finished
    client, (parent,), _ = runs_of(folder)
    page = Path(client.download_artifacts(parent.info.run_id, "report.html", str(tmp_path))).read_text()
    (verdict,) = comparison.verdicts()
    assert verdict in html.unescape(page)
    assert page.index(verdict.split()[0]) < page.index("<table")
    assert parent.data.tags["mlflow.note.content"].startswith(markdown_text(verdict))
    for line in comparison.lines_of(comparison.settings()[0], None):
        assert f"<td>{line.strategy}</td>" in page
    assert page.count("data:image/png;base64,") == 2


def test_the_similarity_is_that_of_domains_without_test_users(finished, domains, tiny_plan, folder, monkeypatch):
    whole, _ = finished
    table = whole.similarity
    assert list(table) == list(domains)
    for a in domains:
        assert table[a][a] == pytest.approx(1)
        for b in domains:
            assert table[a][b] == pytest.approx(table[b][a])
            assert 0 <= table[a][b] <= 1
    rounds = TransferRounds(domains, [2, 4], tiny_plan().episodes, bases=tiny_plan().bases, cache=folder / "cache")
    given = rounds.round("movies", shots=4, target_users=6)
    tested = set(given.test.users)
    seen = []
    original = job_module.domain_similarity

    def compare(a, b):
        seen.extend([*a.train.users, *b.train.users])
        return original(a, b)

    monkeypatch.setattr(job_module, "domain_similarity", compare)
    job_module._similarities(tiny_plan(), domains, given)
    assert set(seen)
    assert not tested & set(seen)


def test_both_regimes_have_rows_of_their_own(domains, tiny_plan, folder):
    plan = tiny_plan(regimes=["everything", "labels"], seeds=1, shots=[2, 4], strategies=["mean"])
    rows = run_comparison(plan, domains, Job(folder, "both")).to_json()["rows"]
    assert [(row["regime"], row["shots"]) for row in rows if row["strategy"] == "mean"] == [
        ("everything", 2),
        ("everything", 4),
        ("labels", 2),
        ("labels", 4),
    ]
    by_regime = {(row["regime"], row["strategy"], row["shots"]): row["rmse"] for row in rows}
    assert by_regime["everything", "mean", 2] != by_regime["labels", "mean", 2]


def test_a_result_survives_its_file(finished, domains, tiny_plan, tmp_path):
    comparison, _ = finished
    store, cells = CellStore(tmp_path), cells_on_disk(tiny_plan(), domains)
    for result in comparison.results:
        cell = cells[result.cell]
        store.save(cell, result.on_disk())
        again = StrategyResult.from_disk(CellKey.of(cell.key), store.load(cell))
        assert dataclasses.asdict(again) == dataclasses.asdict(result)
