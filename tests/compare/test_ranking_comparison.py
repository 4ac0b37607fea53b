"""A comparison of lists: nDCG@10 in rows, gains, runs and texts, and what the command refuses."""

import json
import re
import sys

import numpy as np
import pytest

from metarec.cli import compare as command
from metarec.compare import job as job_module
from metarec.compare.data import simulated
from metarec.compare.job import Job, run_comparison
from metarec.compare.plan import ComparisonPlan
from metarec.episodes import EpisodeSettings
from metarec.episodes.ranking import RankingSettings
from metarec.errors import InputError
from metarec.report import ComparisonReporter
from metarec.report.comparison import explanation, table_csv, tables_markdown
from metarec.tracking import MlflowTracker
from metarec.transfer import TransferSettings
from metarec.transfer.competitors import competitors
from tests.transfer.rounds.test_ranking_rounds import events, rated

SHORT = TransferSettings(
    task="ranking",
    epochs=1,
    patience=1,
    folds=2,
    options={"hidden_dim": 4, "prediction_loss": "bpr"},
    stackers=("rrf",),
)
VALUES = {"ndcg@10", "recall@20", "mrr", "hit@10"}


@pytest.fixture(scope="module")
def finished(new_folder):
    folder = new_folder()
    plan = ComparisonPlan(
        "shop",
        ["zero_shot", "stack", "combsum"],
        [3],
        [10],
        2,
        fusion=SHORT,
        episodes=EpisodeSettings(min_query=2, folds=2),
        bases={"popularity": {}, "item-knn": {}},
        ranking=RankingSettings(candidates=10, negatives=2),
    )
    domains = {"shop": events("shop"), "films": rated("films", 1)}
    job = Job(folder, "lists", MlflowTracker.in_folder(folder), ComparisonReporter())
    return run_comparison(plan, domains, job), folder


def test_the_json_has_the_metric_and_its_direction(finished):
    comparison, _ = finished
    found = json.loads(json.dumps(comparison.to_json()))
    assert (found["metric"], found["direction"]) == ("ndcg@10", "maximize")
    assert [row["strategy"] for row in found["rows"]] == ["scratch", "zero_shot", "stack", "combsum"] * 2
    for row in found["rows"]:
        assert set(row) >= VALUES | {"n_users", "seed", "shots", "target_users", "regime"}
        assert "rmse" not in row
        assert 0 <= row["ndcg@10"] <= 1


def test_a_gain_is_that_of_the_mean_ndcg_and_more_is_better(finished):
    comparison, _ = finished
    sums = {}
    for one in comparison.results:
        assert one.scores.values["ndcg@10"] == pytest.approx(np.mean(one.sums))
        sums.setdefault(one.cell.strategy, []).extend(one.sums)
    (gain,) = (line.gain for line in comparison.lines if line.strategy == "combsum" and line.shots is None)
    assert gain.percent == pytest.approx(100 * (np.mean(sums["combsum"]) / np.mean(sums["scratch"]) - 1))
    assert gain.low < gain.percent < gain.high
    best = max((np.mean(own), name) for name, own in sums.items())
    starred = [line for line in "\n".join(tables_markdown(comparison)).splitlines() if r"\*" in line]
    assert [line.split("|")[1].strip() for line in starred] == [best[1]]


def test_texts_name_the_metric(finished):
    comparison, _ = finished
    assert explanation(comparison).startswith("nDCG@10 on shop, mean over 2 draws")
    header = table_csv(comparison.lines).splitlines()[0].split(",")
    assert header[4] == "ndcg@10"
    assert {"recall@20", "mrr", "hit@10"} < set(header)


def test_the_runs_have_clean_names(finished, runs_of):
    comparison, folder = finished
    _, _, children = runs_of(folder)
    assert len(children) == len(comparison.results)
    assert {"ndcg_at_10", "recall_at_20", "mrr", "hit_at_10", "n_users"} <= set(children[0].data.metrics)


def test_the_same_command_gives_the_same_numbers(finished):
    comparison, folder = finished
    domains = {"shop": events("shop"), "films": rated("films", 1)}
    again = run_comparison(comparison.plan, domains, Job(folder, "again"))
    assert again.to_json()["rows"] == comparison.to_json()["rows"]


@pytest.fixture
def calls(finished, tmp_path, monkeypatch):
    """The plans and domains of each call of the command."""
    found = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        job_module, "run_comparison", lambda plan, domains, job: found.append((plan, domains)) or finished[0]
    )
    monkeypatch.setattr(command, "cores", lambda: 1)
    return found


def run(monkeypatch, *options):
    monkeypatch.setattr(sys, "argv", ["compare", "--out", "runs", *options])
    command.main()


def test_without_data_three_shops_with_users_of_their_own_are_compared(calls, monkeypatch, capsys):
    run(monkeypatch, "--task", "ranking", "--set", "ranking.candidates=20")
    ((plan, domains),) = calls
    assert (plan.target, list(domains)) == ("shop", ["shop", "market", "store"])
    assert list(plan.strategies) == competitors("ranking")
    assert plan.ranking.candidates == 20
    users = [set(domain.ratings["user"]) for domain in domains.values()]
    assert not users[0] & users[1]
    assert "nDCG@10 with 10 target users" in capsys.readouterr().out


def test_a_target_with_events_is_ranked_and_a_rated_one_is_not(calls, monkeypatch):
    events("shop").ratings.to_csv("shop.csv", index=False)
    rated("films", 1).ratings.to_csv("films.csv", index=False)
    tables = ["--data", "shop=shop.csv", "--data", "films=films.csv"]
    for options in (["shop"], ["films"], ["films", "--task", "ranking"]):
        run(monkeypatch, *tables, "--target", *options)
    assert [plan.fusion.task for plan, _ in calls] == ["ranking", "rating", "ranking"]


def test_tables_are_read_by_the_keys_of_a_study(calls, monkeypatch):
    """The same keys and values as those of a study: for all domains, or by domain."""
    names = {"user": "uid", "item": "class", "rating": "mark"}
    films = rated("films", 1).ratings.rename(columns=names)
    films.loc[::5, "mark"] = 0
    films.to_csv("films.csv", index=False)
    rated("tales", 2).ratings.assign(user=lambda table: "é" + table["user"]).to_csv(
        "tales.csv", index=False, encoding="cp437"
    )
    events("shop").ratings.assign(event="buy").to_csv("shop.csv", index=False)
    keys = {
        **{f"columns.films.{role}": name for role, name in names.items()},
        **{"missing.films.0": "drop", "encoding.tales": "cp437", "scale.films": "0,5", "scale.tales": "0,6"},
        "event_weights.buy": "7",
    }
    assignments = [part for key, value in keys.items() for part in ("--set", f"{key}={value}")]
    run(
        monkeypatch,
        *("--data", "films=films.csv", "--data", "tales=tales.csv", "--data", "shop=shop.csv"),
        *("--target", "shop", *assignments),
    )
    ((_, domains),) = calls
    assert len(domains["films"].ratings) == (films["mark"] > 0).sum()
    assert [str(domains[name].scale) for name in ("films", "tales")] == ["0..5", "0..6"]
    assert domains["tales"].ratings["user"].str.startswith("é").all()
    assert (domains["shop"].ratings["weight"] % 7 == 0).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--set", "columns.usr=uid"], '--set columns: unknown column "usr"; did you mean "user"'),
        (["--set", "missing.flims={0: drop}"], '--set missing: unknown domain "flims"'),
        (["--set", "event_weights.buy=much"], "--set event_weights.buy: .*but got 'much'"),
        (["--set", "encodign=utf-16"], '--set unknown key "encodign"; did you mean "encoding"'),
        (["--set", "trials=5"], '--set unknown key "trials"'),
        (["--task", "rank"], '--task must be rating or ranking but got "rank"'),
        (["--task", "ranking", "--set", "ranking.candidate=20"], 'unknown key "ranking.candidate"; did you mean'),
        (["--task", "ranking", "--set", "ranking.candidates=5"], "--set ranking.candidates: .*but got 5"),
        (["--task", "ranking", "--set", "candidates"], '--set must be KEY=VALUE but got "candidates"'),
        (["--task", "ranking", "--link-users"], "--link-users converts ratings between domains"),
        (["--task", "ranking", "--strategies", "ridge"], 'unknown strategy "ridge"'),
    ],
)
def test_wrong_options_are_one_line(calls, monkeypatch, capsys, options, message):
    with pytest.raises(SystemExit) as ended:
        run(monkeypatch, *options)
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("error: ")

    assert re.search(message, line), line
    assert not calls


def test_a_rated_target_refuses_a_source_with_events_in_one_line(new_folder):
    plan = ComparisonPlan("films", ["mean"], [3], [10], 1)
    with pytest.raises(
        InputError, match='"shop" has only events, and a rated target needs sources with ratings'
    ) as caught:
        run_comparison(plan, {"films": rated("films", 1), "shop": events("shop")}, Job(new_folder() / "out", "a"))
    assert "\n" not in str(caught.value)


def test_the_simulated_shops_are_the_same_each_time():
    one, other = simulated("ranking"), simulated("ranking")
    assert [domain.fingerprint() for domain in one.values()] == [domain.fingerprint() for domain in other.values()]
    assert len({domain.fingerprint() for domain in one.values()}) == 3
