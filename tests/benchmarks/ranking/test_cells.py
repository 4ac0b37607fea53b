"""A cell of the benchmark on ranking, with models that are not trained."""

import numpy as np
import pandas as pd
import pytest

from benchmarks.ranking import cells
from benchmarks.ranking.cells import RankingPlan, cells_of, check_split, parts_of, predict_cell
from benchmarks.ranking.report import compare_lists, markdown
from benchmarks.ranking.run import run
from metarec.cells import CellResult
from metarec.errors import InputError
from metarec.ratings import Domain, simulate_implicit_domains


def untrained(episodes, seed):
    test = episodes.test
    return {name: test.query_fallback.numpy() for name in ("metarec", "stack", "best-single")}, {}


@pytest.mark.parametrize(("split", "parts"), [("users", {"all"}), ("time", {"warm", "cold"})])
def test_the_users_of_a_cell_and_their_parts(split, parts, tmp_path, monkeypatch):
    events = simulate_implicit_domains(num_users=150, num_items=150)["shop"].ratings
    # Some users come after the cut only.
    late = 86_400 * events["user"].str[1:].astype(int)
    domain = Domain("shop", events.assign(timestamp=events["timestamp"] + late), feedback="implicit")
    monkeypatch.setattr(cells, "_domain", lambda plan, name: domain)
    monkeypatch.setattr(cells, "bases_of", lambda domain: {"popularity": {}, "item-knn": {}})
    tuned = 1 if split == "users" else 0
    plan = RankingPlan(("shop",), (3,), 3, 1, tmp_path, tmp_path, untrained, tuned, split)
    found = cells_of(plan, domain)
    assert len(found) == (3 if split == "users" else 1)
    result = predict_cell(plan, found[0])
    assert set(result.notes["settings"]) == ({"popularity", "item-knn"} if tuned else set())
    own = parts_of(result)
    assert set(own) == parts
    users = [set(part.frames["users"]["user"]) for part in own.values()]
    assert sum(map(len, users)) == result.frames["users"]["user"].nunique()
    if split == "time":
        cut = np.sort(domain.ratings["timestamp"].to_numpy())[int(0.8 * len(domain.ratings))]
        before = set(domain.ratings["user"][domain.ratings["timestamp"] < cut])
        assert set(own["warm"].frames["users"]["user"]) <= before
        assert not set(own["cold"].frames["users"]["user"]) & before
    sections = compare_lists({(f"amazon_toys {name}", 3): [part] for name, part in own.items()})
    facts = {"command": "", "date": "", "commit": "", "versions": {}, "duration_s": 1.0, "cells_s": 1.0, "seeds": 1}
    facts["machine"] = {"system": "", "cpu": "", "cores": 2, "memory_gib": 1}
    text = markdown(sections, {**facts, "split": split, "tune_bases": tuned})
    assert ("Warm users have events before the cut" in text) == (split == "time")


def test_a_part_of_too_few_users_is_not_compared():
    users = [{"user": f"u{place}", "model": "metarec", "part": "cold" if place == 0 else "warm"} for place in range(11)]
    notes = {"settings": {}, "parts": {"warm": {"proposed": 0.5}, "cold": {"proposed": 0.0}}}
    found = parts_of(CellResult({"users": pd.DataFrame(users)}, notes))
    assert list(found) == ["warm"]
    assert found["warm"].notes == {"settings": {}, "proposed": 0.5}
    assert len(found["warm"].frames["users"]) == 10


def test_bases_are_not_tuned_with_a_split_by_time(tmp_path, monkeypatch):
    monkeypatch.setenv("METAREC_DATA", str(tmp_path))
    with pytest.raises(InputError, match="--tune-bases must be 0 with --split time but got 10"):
        run(["amazon_toys"], (5,), 3, 1, 10, "time", 1, tmp_path / "work", tmp_path / "out", None)


def test_an_unknown_split():
    with pytest.raises(InputError, match='--split must be one of users, time but got "day"'):
        check_split("day")
