"""The benchmark of known users: its folds, what reaches a fit, and a small table from end to end."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks.warm import cells as _warm_cells
from benchmarks.warm.bases import WARM_BASES, Predicted, WarmBase
from benchmarks.warm.cells import Plan, compute_fold, splits_of
from benchmarks.warm.context import context_features
from benchmarks.warm.data import five_folds, inner_parts, read_table
from benchmarks.warm.fusion import WarmSettings, fuse, make_episodes
from benchmarks.warm.run import MOVIELENS, markdown, run
from metarec.errors import InputError
from metarec.meta import NetworkConfig
from metarec.model import FusionConfig
from metarec.ratings import RatingScale

ROOT = Path(__file__).parents[3]
QUICK = FusionConfig(networks={"network": NetworkConfig(options={"hidden_dim": 4}, epochs=2)})


def write_movies(folder, *, seed=0, users=40, items=30, rated=15):
    """MovieLens' atomic files of an invented world, where users rate in sessions."""
    rng = np.random.default_rng(seed)
    quality, mood, taste, kind = (
        rng.normal(size=items),
        rng.normal(size=users),
        rng.normal(size=users),
        rng.normal(size=items),
    )
    rows = []
    for user in range(users):
        for place, item in enumerate(rng.permutation(items)[:rated]):
            rating = 3 + 0.7 * quality[item] + 0.5 * mood[user] + 0.6 * taste[user] * kind[item] + rng.normal(0, 0.4)
            rows.append(
                (user + 1, item + 1, int(np.clip(round(rating), 1, 5)), 880000000 + user * 90000 + place // 3 * 700)
            )
    rng.shuffle(rows)
    folder.mkdir(parents=True, exist_ok=True)

    def write(kind, columns, values):
        frame = pd.DataFrame(values, columns=columns)
        frame.to_csv(folder / f"{folder.name}.{kind}", sep="\t", index=False)

    write("inter", ["user_id:token", "item_id:token", "rating:float", "timestamp:float"], rows)
    people = [(user + 1, 20 + user, "MF"[user % 2], "writer", "0") for user in range(users)]
    write("user", ["user_id:token", "age:token", "gender:token", "occupation:token", "zip_code:token"], people)
    films = [(item + 1, f"film {item}", 1960 + item, "Drama Comedy" if item % 2 else "War") for item in range(items)]
    write("item", ["item_id:token", "movie_title:token_seq", "release_year:token", "class:token_seq"], films)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_movies(tmp_path_factory.mktemp("movies") / "small")


@pytest.fixture(scope="module")
def table(folder):
    return read_table(folder)


def quick_bases():
    """The benchmark's bases, with as few rounds as say anything."""
    return [
        replace(base, settings={**base.settings, "factors": 2, "rounds": 12, "burn_in": 4})
        if "rounds" in base.settings
        else base
        for base in WARM_BASES
        if base.name not in ("user-knn", "biased-mf")
    ]


def test_folds_are_those_of_the_published_table():
    folds = five_folds(100_000)
    order = np.arange(100_000)
    np.random.RandomState(0).shuffle(order)
    assert [list(fold[:3]) for fold in folds] == [list(order[start : start + 3]) for start in range(0, 100_000, 20_000)]
    assert folds[0][:3].tolist() == FIRST_ROWS
    assert sorted(np.concatenate(folds)) == list(range(100_000))
    with pytest.raises(InputError, match="that 5 divides"):
        five_folds(99)


FIRST_ROWS = [3582, 60498, 53227]


def test_inner_parts_hold_each_training_row_once_and_no_test_row(table, tmp_path):
    for fold, test in enumerate(five_folds(len(table.ratings))):
        *inner, last = splits_of(Plan(table, [], 4, 0, tmp_path), fold)
        assert sorted(np.concatenate([split.asked for split in inner])) == sorted(last.known)
        assert set(last.asked) == set(test)
        for split in [*inner, last]:
            assert not set(split.known) & set(split.asked)
            assert not set(split.known) & set(test)
    assert [len(part) for part in inner_parts(np.arange(10), 3, 1)] == [4, 3, 3]


@pytest.mark.parametrize("base", quick_bases(), ids=lambda base: base.name)
def test_a_base_learns_more_than_the_mean(base, table):
    test = five_folds(len(table.ratings))[0]
    train = np.setdiff1d(np.arange(len(table.ratings)), test)
    answer = base.predict(table, table.known(train), table.asked(test))
    says = np.isfinite(answer.ratings)
    errors = answer.ratings[says] - table.ratings[test][says]
    assert says.mean() > 0.8
    assert np.mean(errors**2) < np.mean((table.ratings[test] - table.ratings[train].mean()) ** 2)


def everything_predicted(table, work, bases):
    """Fold 0: what all bases say of its test rows, and what all models make of it, by row of the table."""
    plan = Plan(table, bases, 3, 0, work)
    answers, _ = compute_fold(plan, 0, lambda cell, seconds: None)
    names = [base.name for base in bases]
    episodes = make_episodes(table, splits_of(plan, 0), answers, names, RatingScale(1, 5), WarmSettings())
    fused = fuse(episodes, QUICK).predictions
    return {**{n: a.ratings for n, a in zip(names, answers["test"], strict=True)}, **fused}


def with_other_test_ratings(table):
    test = five_folds(len(table.ratings))[0]
    ratings = table.ratings.copy()
    ratings[test] = 6 - ratings[test]
    return replace(table, ratings=ratings, digest="other")


def moved(before, after):
    return {name for name in before if not np.array_equal(before[name], after[name], equal_nan=True)}


def test_no_test_rating_reaches_a_fit(table, tmp_path):
    bases = quick_bases()
    before = everything_predicted(table, tmp_path / "before", bases)
    after = everything_predicted(with_other_test_ratings(table), tmp_path / "after", bases)
    assert len(before) == len(bases) + 8
    assert moved(before, after) == set()


def test_a_planted_leak_is_seen(table, tmp_path):
    def peeks(table, known, asked):
        mean = np.bincount(table.items, table.ratings, table.shape[1]) / np.bincount(table.items)
        return Predicted(mean[asked.items], np.zeros(len(asked.items)))

    bases = [*quick_bases()[:2], WarmBase("peeks", "looks at all ratings of the table", peeks)]
    before = everything_predicted(table, tmp_path / "before", bases)
    after = everything_predicted(with_other_test_ratings(table), tmp_path / "after", bases)
    assert {"peeks", "ridge", "metarec"} <= moved(before, after)


def test_support_of_a_training_row_comes_from_its_own_part(table, tmp_path):
    """Errors on other parts come from bases that were fitted with the row's own rating."""
    bases = quick_bases()[:2]
    plan = Plan(table, bases, 3, 0, tmp_path)
    splits = splits_of(plan, 0)
    marked = {
        split.part: [Predicted(np.full(len(split.asked), 1.0 + number), np.zeros(len(split.asked)))] * 2
        for number, split in enumerate(splits)
    }
    episodes = make_episodes(table, splits, marked, ["a", "b"], RatingScale(1, 5), WarmSettings())
    for part in (episodes.train, episodes.validation):
        for support, query in zip(part.batch.support.predictions, part.batch.query.predictions, strict=True):
            values = set(support[support != 0.5].tolist()) | set(query[query != 0.5].tolist())
            assert len(values) <= 1
    assert not episodes.test.batch.query.targets.any()


def test_what_is_known_of_a_row_does_not_hold_its_rating(table):
    test = five_folds(len(table.ratings))[1]
    train = np.setdiff1d(np.arange(len(table.ratings)), test)
    names, values = context_features(table, table.known(train), table.asked(test))
    assert values.shape == (len(test), len(names))
    assert np.isfinite(values).all()
    untimed, _ = context_features(table, table.known(train), table.asked(test), timed=False)
    assert set(names) - set(untimed) == {"user_age", "item_age", "minutes_to_nearest", "nearby_residual"}


@pytest.mark.slow
def test_a_small_table_from_end_to_end_and_again_from_what_is_kept(table, tmp_path, monkeypatch):
    bases = [base for base in quick_bases() if base.name in ("bias", "bayesian-mf", "bayesian-mf-time")]
    said = []
    first = run(table, bases, WarmSettings(), QUICK, parts=3, seed=0, work=tmp_path, say=said.append)
    assert len(said) == 5 * 4 * len(bases) + 5
    assert all(len(values) == 5 for values in first.rmse.values())
    assert {"bias", "mean", "ridge", "fwls", "gbm", "metarec", "ridge without timestamps"} <= set(first.rmse)
    again = run(table, bases, WarmSettings(), QUICK, parts=3, seed=0, work=tmp_path, say=said.append)
    assert len(said) == 5 * 4 * len(bases) + 10
    assert again.rmse == first.rmse
    assert again.mae == first.mae
    other = Plan(table, [replace(bases[1], settings={**bases[1].settings, "seed": 9})], 3, 0, tmp_path)
    assert not any(cell.file.exists() for cell in _warm_cells.cells_of(other, 0))
    described = dict.fromkeys(("command", "date", "commit", "versions", "machine", "settings"), "x")
    text = markdown(first, {"bias": "LensKit"}, described, published=True)
    assert "| metarec |" in text
    assert "*Surprise SVD++*" in text
    assert "*Surprise" not in markdown(first, {}, described, published=False)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: (folder / f"{folder.name}.inter").unlink(), "is not there"),
        (lambda folder: (folder / f"{folder.name}.item").write_text("item_id:token\n1\n"), "has no column"),
        (
            lambda folder: (folder / f"{folder.name}.inter").write_text(
                "user_id:token\titem_id:token\trating:float\ttimestamp:float\n1\t1\tgood\t3\n"
            ),
            "finite number",
        ),
        (
            lambda folder: (folder / f"{folder.name}.inter").write_text(
                "user_id:token\titem_id:token\trating:float\ttimestamp:float\n1\t1\t3\t3\n"
            ),
            "at least 100 ratings",
        ),
    ],
    ids=["missing", "column", "number", "few"],
)
def test_wrong_input_is_refused_in_one_line(tmp_path, spoil, message):
    folder = write_movies(tmp_path / "bad")
    spoil(folder)
    with pytest.raises(InputError, match=message) as refusal:
        read_table(folder)
    assert "\n" not in str(refusal.value)


def test_the_command_refuses_in_one_line(tmp_path):
    command = [sys.executable, "-m", "benchmarks.warm.run", "--data", str(tmp_path / "nowhere")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert len(done.stderr.splitlines()) == 1


def test_the_kept_results_are_of_the_published_table():
    path = ROOT / "benchmarks" / "results" / "warm_ml100k.json"
    kept = json.loads(path.read_text(encoding="utf-8"))
    assert kept["data"] == {"ratings": 100_000, "digest": MOVIELENS, "as_published": True}
    for model in kept["models"].values():
        assert model["mean_rmse"] == pytest.approx(np.mean(model["rmse"]))
    assert kept["models"]["metarec"]["mean_rmse"] <= 0.890
