"""The benchmark on linked users: the same ratings with and without links, and its summary."""

import numpy as np
import pandas as pd
import pytest
import typer
from typer.testing import CliRunner

from benchmarks.transfer.linked_cells import LinkedPlan, measure, ratings_elsewhere
from benchmarks.transfer.linked_users import _markdown, main, summarise
from metarec.episodes import EpisodeSettings
from metarec.ratings import simulate_domains
from metarec.transfer import TransferRounds, TransferSettings

CUT = EpisodeSettings(min_query=3, max_query=8)


@pytest.fixture(scope="module")
def domains():
    return simulate_domains(seed=0, num_users=60, num_items=40, ratings_per_user=20, shared=0.8)


@pytest.fixture(scope="module")
def table(domains):
    two = {name: domains[name] for name in ("books", "movies")}
    plan = LinkedPlan(two, (0,), (0,), ("mean",), 8, "labels", CUT, TransferSettings(), None, {"bias": {}})
    return measure(plan, lambda line: None)


def test_links_change_predictions_for_users_with_a_history_elsewhere(table):
    assert set(table["target"]) == {"books", "movies"}
    assert not table.duplicated(["target", "user"]).any()
    has_history = table["elsewhere"] > 0
    assert has_history.any()
    moved = (table["linked"] - table["unlinked"]).abs() > 1e-9
    assert moved[has_history].mean() > 0.9


def test_histories_are_counted_up_to_the_first_query(domains):
    rounds = TransferRounds(domains, (0,), CUT, bases={"bias": {}})
    given = rounds.round("books", shots=0, target_users=8, regime="labels")
    counts = ratings_elsewhere(domains, "books", given)
    for user, count in zip(given.test.users, counts, strict=True):
        own = {name: made.ratings["timestamp"][made.ratings["user"] == user] for name, made in domains.items()}
        # After no shots the first query is the first rating.
        assert count == sum((own[name] < own["books"].min()).sum() for name in ("movies", "music"))


def test_errors_are_pooled_and_users_are_paired():
    table = pd.DataFrame(
        {
            "target": "books",
            "shots": 0,
            "model": "mean",
            "elsewhere": [0, *[3] * 9],
            "ratings": 2,
            "unlinked": [0.08, *np.linspace(0.1, 0.2, 9)],
            "linked": [0.08, *np.linspace(0.05, 0.15, 9)],
        }
    )
    lines = summarise(table)
    everyone = next(line for line in lines if line["users"] == "all" and line["target"] == "books")
    assert everyone["n_users"] == 10
    assert everyone["unlinked_unit_rmse"] == pytest.approx((table["unlinked"].sum() / 20) ** 0.5, abs=1e-5)
    assert everyone["verdict"] == "better"
    assert everyone["effect"] == 1
    chosen = [line for line in lines if line["users"] != "all"]
    assert [line["n_users"] for line in chosen] == [9, 9]
    worse = summarise(table.rename(columns={"linked": "unlinked", "unlinked": "linked"}))
    assert worse[0]["verdict"] == "worse"
    described = dict.fromkeys(("command", "date", "commit", "versions", "machine", "duration_s"), "")
    text = _markdown({"regime": "labels", "target_users": 8, "rounds": [0], "rows": lines, "run": described})
    assert "| books | 0 | mean | 10 |" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "books"], '--data must be NAME=PATH but got "books"'),
        (["--rounds", "a"], "--rounds must be whole numbers >= 0, separated by commas, but got 'a'"),
        (["--regime", "label"], 'unknown --regime "label"; did you mean "labels"'),
    ],
)
def test_wrong_arguments_end_with_one_line(arguments, message, tmp_path):
    given = ["--work", str(tmp_path), "--out", str(tmp_path), *arguments]
    app = typer.Typer()
    app.command()(main)
    ended = CliRunner().invoke(app, given)
    assert ended.exit_code == 2
    assert ended.stderr.startswith("error: ")
    assert message in ended.stderr
