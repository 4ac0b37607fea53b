"""The benchmark of transfer: its cells, its requests, and its bars on made-up numbers."""

import ast
import json
import os
import re
import runpy
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import typer
from scipy.stats import t as student
from typer.testing import CliRunner

from benchmarks.common.sets import RatingSet, find_sets, largest_domains
from benchmarks.transfer import cells as _transfer_cells
from benchmarks.transfer import run as transfer
from benchmarks.transfer.bars import (
    HINDSIGHT,
    Condition,
    FinishedCell,
    Line,
    auto_bar,
    few_users_bar,
    hostile_bar,
    ledger,
    lines_of,
    pairs_bar,
    pooled_few,
)
from benchmarks.transfer.cells import CODE, COMPETITORS, ROOT, TransferPlan, facts_of, make_rounds, together
from benchmarks.transfer.hostile import hostile_domain, largest_other
from benchmarks.transfer.picture import gains_picture
from benchmarks.transfer.plan import Request, cells_of, needs_of
from benchmarks.transfer.report import markdown
from benchmarks.transfer.statistics import Errors, compare
from benchmarks.transfer.summary import CARRYING
from metarec.errors import InputError
from metarec.transfer import TransferSettings, competitors, controls
from metarec.transfer.competitors import ORACLE_USERS
from tests.benchmarks.conftest import write_set

STRATEGIES = ["model_agnostic", "auto"]
CONTROLS = ["scratch", "stack", "pooled", "mean", "best-single", "ridge"]
QUICK = TransferSettings(epochs=2, patience=1, folds=2, stackers=("ridge",))
SMALL = Request(parts=("leave-one-out",), shots=(2,), target_users=(5,), rounds=1, regimes=("labels",))


@pytest.fixture(scope="module")
def plan(tmp_path_factory):
    folder = tmp_path_factory.mktemp("transfer")
    for seed, name in enumerate(("films", "books")):
        write_set(folder / name, seed=seed, users=60)
    sets = tuple(RatingSet(name, str(folder / name)) for name in ("films", "books"))
    return TransferPlan(sets, folder / "work", QUICK, bases=("bias", "item-knn"))


@pytest.fixture
def start(plan, tmp_path, monkeypatch):
    """Runs the benchmark; hands back the names of the cells that it computed, and the report."""
    compute = _transfer_cells.compute_cell

    def start(request):
        computed = []

        def noted(plan, cell):
            computed.append(cell.name)
            return compute(plan, cell)

        monkeypatch.setattr(_transfer_cells, "compute_cell", noted)
        transfer.run(plan, request, 1, tmp_path, tmp_path / "transfer.json", [])
        return computed, json.loads((tmp_path / "transfer.json").read_text())

    return start


def finished_cell(
    target, factors, *, number=0, users=20, shots=5, regime="labels", reasons=None, users_seed=0, **notes
):
    """A cell in which each competitor's errors are the common ones, times its factor."""
    rng = np.random.default_rng([users_seed, number, len(target)])
    spread = rng.uniform(0.5, 1.5, 40)
    key = {"part": "", "target": target, "source": "others"} | notes.pop("key", {})
    key |= {"regime": regime, "shots": shots, "users": users, "round": number}
    base = pd.DataFrame({"user": [f"{number % 5}-{place}" for place in range(40)], "ratings": 10})
    squared = base.assign(**{name: spread * factor**2 for name, factor in factors.items()})
    absolute = base.assign(**{name: spread * factor for name, factor in factors.items()})
    frames = {"squared": squared, "absolute": absolute}
    return FinishedCell(key, frames, {"reasons": {"auto": reasons} if reasons else {}, **notes})


def sections_of(cells):
    return compare(lines_of(cells), STRATEGIES, CONTROLS), compare(pooled_few(cells), STRATEGIES, CONTROLS)


EVEN = dict.fromkeys([*CONTROLS, *STRATEGIES], 1.0)


@pytest.mark.slow
def test_a_larger_run_computes_only_what_a_smaller_one_did_not(start):
    computed, report = start(SMALL)
    assert len(computed) == 2
    assert all(set(COMPETITORS["leave-one-out"]) == set(cell["rmse"]) for cell in report["cells"])
    assert set(controls()) < set(COMPETITORS["leave-one-out"]) < set(competitors())
    assert report["left_out"] == ["gradient_based", "feature_alignment"]
    # One draw: no interval over draws, and no verdict.
    assert {one["interval"] for line in report["lines"] for one in line["against"]["auto"].values()} == {None}
    assert {one["verdict"] for line in report["lines"] for one in line["against"]["auto"].values()} == {"one draw"}
    # A fifth of 60 users.
    assert {line["n_users"] for line in report["lines"]} == {12}
    assert report["pairs"] is None
    assert report["hostile"] is None

    again, same = start(SMALL)
    assert again == []
    assert same["lines"] == report["lines"]

    larger, report = start(replace(SMALL, target_users=(5, 20)))
    assert len(larger) == 2
    assert not set(computed) & set(larger)
    assert [line["users"] for line in report["lines"]] == [5, 5, 20, 20]


@pytest.mark.slow
def test_the_report_of_all_parts_agrees_with_its_cells(start, tmp_path):
    _, report = start(Request(shots=(5,), target_users=(20,), rounds=1, regimes=("labels",)))
    by_part = {}
    for cell in report["cells"]:
        by_part.setdefault(cell["part"], []).append(cell)
    assert {part: len(cells) for part, cells in by_part.items()} == {"leave-one-out": 2, "pairs": 2, "hostile": 4}
    for line in report["lines"]:
        (cell,) = (one for one in by_part["leave-one-out"] if one["target"] == line["target"])
        assert line["rmse"] == pytest.approx(cell["rmse"])
    (pair,) = (one for one in report["pairs"]["labels"]["pairs"] if one["target"] == "films")
    (cell,) = (one for one in by_part["pairs"] if one["target"] == "films")
    assert pair["score"] == cell["notes"]["similarity"]["score"]
    assert {"ratings", "features", "gradients", "base_errors"} <= set(pair)
    rmse = cell["rmse"]
    assert pair["over_scratch"] == pytest.approx(100 * (1 - rmse["model_agnostic"] / rmse["scratch"]))
    assert {cell["source"] for cell in by_part["hostile"] if cell["target"] == "films"} == {
        "books-inverted",
        "books-shuffled",
    }
    # With the other set as the only source, both parts are the same question.
    (all_others,) = (one for one in by_part["leave-one-out"] if one["target"] == "films")
    assert all_others["rmse"]["zero_shot"] == pytest.approx(rmse["zero_shot"])
    text = (tmp_path / "transfer.md").read_text()
    assert "## labels, 20 target users" in text
    assert (tmp_path / "transfer.png").read_bytes().startswith(b"\x89PNG")


def test_cells_that_share_sources_find_them_taught(plan):
    domains = {rating_set.name: rating_set.read() for rating_set in plan.sets}
    rounds = make_rounds(plan, domains)
    cells = cells_of(replace(SMALL, target_users=(5, 20)), domains, facts_of(plan, domains, rounds))
    (first, second) = (cell for cell in cells if cell.key["target"] == "films")
    assert together(first) == together(second)
    sides = [
        rounds.round("films", shots=2, target_users=cell.key["users"], regime="labels", sources=["books"]).sources
        for cell in (first, second)
    ]
    assert sides[0] is sides[1]
    other = rounds.round("films", shots=5, target_users=5, regime="labels", sources=["books"]).sources
    assert other is not sides[0]
    # With everything scarce the sources are cut down to as many users, too.
    everything = cells_of(replace(SMALL, target_users=(5, 20), regimes=("everything",)), domains, {SMALL.parts[0]: {}})
    assert len({together(cell) for cell in everything}) == len(everything)


def test_bases_are_asked_once_for_what_several_cells_need(plan):
    domains = {rating_set.name: rating_set.read() for rating_set in plan.sets}
    facts = {part: {} for part in ("leave-one-out", "pairs", "hostile")}
    cells = cells_of(Request(rounds=1, regimes=("labels",), shots=(5,), target_users=(20,)), domains, facts)
    needs = needs_of(cells, list(domains))
    names = {f"{name}{kind}" for name in domains for kind in ("", "-inverted", "-shuffled")}
    assert sorted(need.name for need in needs) == sorted(names)


def test_rounds_are_made_for_the_requested_shots(plan):
    assert Request(parts=("leave-one-out",), shots=(10, 1)).all_shots == (1, 10)
    # Pairs of sets and hostile sources always have five.
    assert Request(shots=(1,)).all_shots == (1, 5)
    domains = {rating_set.name: rating_set.read() for rating_set in plan.sets}
    few = replace(plan, shots=(2,))
    assert make_rounds(few, domains).shots == (2,)
    whole, fewer = (facts_of(own, domains, make_rounds(own, domains)) for own in (plan, few))
    assert whole != fewer


def test_a_hostile_source_says_the_opposite_or_nothing(plan):
    domain = plan.sets[0].read()
    inverted, shuffled = (hostile_domain(domain, kind) for kind in ("inverted", "shuffled"))
    assert (inverted.ratings["rating"] + domain.ratings["rating"] == 6).all()
    for key in ("user", "item"):
        assert shuffled.ratings[key].value_counts().to_dict() == domain.ratings[key].value_counts().to_dict()
    means = [one.ratings.groupby("item")["rating"].mean() for one in (inverted, shuffled)]
    pd.testing.assert_series_equal(*means)
    assert (shuffled.ratings["user"] != domain.ratings["user"]).mean() > 0.5
    assert shuffled.fingerprint() == hostile_domain(domain, "shuffled").fingerprint()
    larger = replace(domain, name="larger")
    assert largest_other({"a": domain.restrict({"u00"}), "b": larger, "c": larger}, "b") == "c"


def test_a_planted_gain_is_significant_and_its_size_is_right():
    factors = EVEN | {"model_agnostic": 0.94, "scratch": 1.05}
    lines, pooled = sections_of([finished_cell("films", factors, number=number) for number in range(3)])
    (section,) = lines.values()
    assert (section.n_users, section.n_draws) == (120, 3)
    assert section.best_control == "best-single"
    found = section.against["model_agnostic"]["mean"]
    assert found.difference == pytest.approx(6.0)
    assert found.interval == pytest.approx((6.0, 6.0))
    assert found.by_draw == pytest.approx((6.0, 6.0, 6.0))
    assert found.p_holm >= found.p
    assert section.beats_all("model_agnostic")
    assert section.verdicts("auto") == ["better", *["no difference"] * 5]
    bar = few_users_bar(lines, pooled)
    own = bar["model_agnostic"]["regimes"]["labels"]["films"]
    assert own["over_scratch"]["difference"] == pytest.approx(100 * (1 - 0.94 / 1.05))
    assert own["over_stack"]["difference"] == pytest.approx(6.0)
    better = {"over_scratch": 1, "over_stack": 1, "over_best_control": 1, "over_all_controls": 1}
    assert bar["model_agnostic"]["better"] == {"labels": better}
    assert bar["auto"]["better"] == {"labels": {**dict.fromkeys(better, 0), "over_scratch": 1}}
    assert bar[HINDSIGHT]["regimes"]["labels"]["films"]["strategy"] == "model_agnostic"


def test_a_gain_of_one_draw_of_three_is_no_gain():
    """The errors of 40 users in each draw shrink alike, so over users alone the gain would be certain."""
    cells = [
        finished_cell("films", EVEN | {"auto": 0.94 if number == 0 else 1.0}, number=number) for number in range(3)
    ]
    lines, pooled = sections_of(cells)
    (section,) = lines.values()
    found = section.against["auto"]["stack"]
    assert found.by_draw == pytest.approx((6, 0, 0))
    assert found.interval[0] < 0
    assert set(section.verdicts("auto")) == {"no difference"}
    assert few_users_bar(lines, pooled)["auto"]["better"]["labels"]["over_stack"] == 0


def test_the_mean_of_targets_is_tested_over_draws():
    gains = {"films": [0.02, 0.0, 0.01], "books": [0.0, 0.02, 0.03]}
    cells = [
        finished_cell(target, EVEN | {"auto": 1 - own}, number=number)
        for target, several in gains.items()
        for number, own in enumerate(several)
    ]
    mean = few_users_bar(*sections_of(cells))["auto"]["mean"]["labels"]["over_stack"]
    assert mean["by_draw"] == pytest.approx((1, 1, 2))
    assert mean["difference"] == pytest.approx(4 / 3)
    assert mean["interval"] == pytest.approx((4 / 3 - 4.3027 / 3, 4 / 3 + 4.3027 / 3), abs=1e-3)
    assert mean["p"] == pytest.approx(2 * student.sf(4.0, 2))


def test_a_test_user_of_two_draws_counts_in_both():
    cells = [finished_cell("films", EVEN, number=number) for number in range(10)]
    (errors,) = lines_of(cells).values()
    assert (errors.n_users, errors.n_draws, len(errors.ratings)) == (200, 10, 400)


def test_plain_use_of_the_sources_can_be_the_best_control():
    factors = EVEN | {"auto": 0.97, "pooled": 0.95}
    lines, pooled = sections_of([finished_cell("films", factors, number=number) for number in range(3)])
    (section,) = lines.values()
    assert section.best_control == "pooled"
    own = few_users_bar(lines, pooled)["auto"]["regimes"]["labels"]["films"]
    assert own["best_control"] == "pooled"
    assert own["over_best_control"]["difference"] == pytest.approx(100 * (1 - 0.97 / 0.95))
    bar = auto_bar(lines)
    assert bar["behind"] == {name: int(name == "pooled") for name in CONTROLS}
    assert [one["opponent"] for one in bar["worse"]] == ["pooled"]
    assert set(CARRYING) == {"auto", "model_agnostic", "gradient_based", "feature_alignment", "prototype_based"}


def test_correction_is_over_all_lines_of_a_strategy_and_not_over_other_strategies():
    rng = np.random.default_rng(0)
    lines = {}
    index = pd.MultiIndex.from_product([range(5), range(30)], names=["draw", "user"])
    for shots in (1, 2):
        squared = pd.DataFrame(rng.uniform(0.5, 1.5, (150, 8)), columns=[*CONTROLS, *STRATEGIES], index=index)
        lines[Line("labels", 5, shots, "films")] = Errors(pd.Series(4, index=index), squared, squared)
    sections = compare(lines, STRATEGIES, CONTROLS)
    for name in STRATEGIES:
        family = [one for section in sections.values() for one in section.against[name].values()]
        assert min(family, key=lambda one: one.p).p_holm == pytest.approx(min(1, 12 * min(one.p for one in family)))


def test_the_worst_deficit_is_that_of_the_line_where_it_is():
    cells = [finished_cell("films", EVEN | {"auto": 0.99}, shots=shots) for shots in (1, 2)]
    cells += [finished_cell("books", EVEN | {"auto": 1.02}), finished_cell("books", EVEN | {"auto": 1.5}, users=100)]
    bar = few_users_bar(*sections_of(cells))
    # 100 target users are not few.
    assert bar["auto"]["worst"] == {
        "percent": pytest.approx(-2.0),
        "regime": "labels",
        "users": 20,
        "shots": 5,
        "target": "books",
    }


def test_few_users_are_pooled_over_shots_and_sizes():
    cells = [finished_cell("films", EVEN, shots=shots, users=users) for shots in (1, 2) for users in (5, 20, 100)]
    (pooled,) = pooled_few(cells).values()
    assert list(pooled_few(cells)) == [Condition("labels", "films")]
    assert len(pooled.ratings) == 40
    assert (pooled.ratings == 40).all()
    assert pooled.rmse()["auto"] == pytest.approx(lines_of(cells)[Line("labels", 5, 1, "films")].rmse()["auto"])


def test_an_auto_that_is_worse_is_counted_and_its_regret_is_right():
    good = EVEN | {"model_agnostic": 0.9, "auto": 0.9}
    bad = EVEN | {"auto": 1.03, "mean": 1.01, "scratch": 1.2}
    cells = [
        finished_cell(target, factors, number=number)
        for target, factors in (("films", good), ("books", bad))
        for number in range(3)
    ]
    lines, _ = sections_of(cells)
    bar = auto_bar(lines)
    assert bar["lines"] == 2
    (worse,) = bar["worse"]
    assert (worse["target"], worse["opponent"]) == ("books", "best-single")
    assert worse["percent"] == pytest.approx(-3.0)
    assert bar["regret"] == pytest.approx((0.0 + 3.0) / 2)
    assert bar["worst_regret"]["target"] == "books"
    # One draw shows nothing.
    lines, _ = sections_of([finished_cell("films", EVEN | {"ridge": 0.9})])
    assert auto_bar(lines)["worse"] == []


def test_without_auto_there_is_no_bar_for_it():
    factors = {name: 1.0 for name in EVEN if name != "auto"}
    lines, pooled = sections_of([finished_cell("films", factors)])
    assert auto_bar(lines) is None
    assert "auto" not in few_users_bar(lines, pooled)
    assert ledger([finished_cell("films", factors)]) is None
    assert hostile_bar([finished_cell("films", factors)]) == []


@pytest.mark.parametrize(("sign", "rho"), [(1, 1.0), (-1, -1.0)])
def test_the_ledger_correlates_predicted_and_realised_gains(sign, rho):
    cells = [
        finished_cell(
            "films",
            EVEN | {"auto": 1 - place / 100},
            number=place,
            reasons={"transfers": place > 0, "share": 0.5, "predicted_gain": float(sign * place)},
        )
        for place in range(6)
    ]
    found = ledger(cells)
    assert found["rank_correlation"] == pytest.approx(rho)
    assert (found["rounds"], found["transferred"]) == (6, 5)
    assert found["mean_realised"] == pytest.approx(2.5)
    assert found["thirds"][0]["predicted"] == pytest.approx(0.5 if sign > 0 else -4.5)
    assert found["thirds"][0]["realised"] == pytest.approx(0.5 if sign > 0 else 4.5)


def test_declined_hostile_sources_are_counted():
    key = {"key": {"source": "books-inverted"}}
    factors = EVEN | {"zero_shot": 1.1, "auto": 1.02}
    reported = [{"transfers": False, "share": 0.0}, {"transfers": True, "share": 0.5}]
    (found,) = hostile_bar(
        [
            finished_cell("films", factors, number=number, reasons=reasons, **key)
            for number, reasons in enumerate(reported)
        ]
    )
    assert (found["rounds"], found["declined"], found["share"]) == (2, 1, 0.25)
    assert found["regret"] == pytest.approx(2.0)
    assert found["regret_of_zero_shot"] == pytest.approx(10.0)


def test_similarity_and_gain_are_ranked_over_pairs_by_their_means_over_rounds():
    cells = []
    for place in range(5):
        for number in range(2):
            # Round by round the order is muddled; only the means over the two rounds follow it.
            gained = 1 - (place + (4 if number else -4) * (place % 2)) / 100
            parts = {"ratings": 1 - place / 10, "features": 0.5} | ({"users": place / 10} if place < 3 else {})
            cells.append(
                finished_cell(
                    f"target {place}",
                    EVEN | {"model_agnostic": gained},
                    number=number,
                    key={"source": "films"},
                    similarity={"score": place / 10, "parts": parts},
                )
            )
    found = pairs_bar(cells)["labels"]
    assert len(found["pairs"]) == 5
    assert found["pairs"][3]["over_plain"] == pytest.approx(3.0)
    assert "users" not in found["pairs"][3]
    rhos = {part: own["over_scratch"]["rho"] for part, own in found["correlations"].items()}
    assert rhos == {
        "score": pytest.approx(1.0),
        "ratings": pytest.approx(-1.0),
        "features": None,
        "users": pytest.approx(1.0),
    }
    assert found["correlations"]["users"]["over_scratch"]["pairs"] == 3


def test_the_report_says_plainly_what_was_missed():
    factors = EVEN | {"auto": 1.03, "model_agnostic": 0.9}
    reasons = {"transfers": True, "share": 1.0, "predicted_gain": 4.0}
    cells = [
        finished_cell("films", factors, users=users, reasons=reasons, number=number)
        for users in (5, 100)
        for number in range(2)
    ]
    lines, pooled = sections_of(cells)
    run = {"command": "c", "date": "d", "commit": "e", "versions": {}, "duration_s": 1.0, "cells_s": 1.0}
    run["machine"] = {"cpu": "f", "cores": 2, "memory_gib": 8, "system": "g"}
    text = markdown(
        {
            "run": run,
            "controls": CONTROLS,
            "few_users": few_users_bar(lines, pooled),
            "left_out": ["gradient_based"],
            "auto": auto_bar(lines),
            "ledger": ledger(cells),
            "hostile": hostile_bar([finished_cell("films", factors | {"zero_shot": 1.0}, reasons=reasons)]),
            "pairs": None,
        },
        lines,
    )
    assert "The lowest gain of auto over the best control is −3.00 % (at least −0.3 % wanted: MISSED)" in text
    assert "significantly worse (uncorrected) than the best control on 2 of 2 lines" in text
    assert "auto declined in 0 of 1 rounds" in text
    assert "| **+10.00 % [+10.00, +10.00]** best-single | yes |" in text
    assert "| −3.00 % [−3.00, −3.00] best-single | no |" in text
    assert "Not computed here: gradient_based." in text
    assert ORACLE_USERS in text
    assert "predicted gain +4.00 %, realised −3.00 %" in text
    (axes,) = gains_picture("auto", few_users_bar(lines, pooled)["auto"]["regimes"]).axes
    assert (axes.get_title(loc="left"), axes.get_yticklabels()[0].get_text()) == ("labels", "films")


def test_the_command_reads_its_arguments(monkeypatch, capsys):
    """The module once called the function without them, and computed everything."""
    monkeypatch.setattr(sys, "argv", ["transfer", "--rounds", "0"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_module("benchmarks.transfer", run_name="__main__")
    assert ended.value.code == 2
    assert "--rounds must be >= 1 but got 0" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"parts": ("pairs", "other")}, "--parts must be different ones of leave-one-out,pairs,hostile"),
        ({"shots": (3,)}, "--shots must be different ones of 0,1,2,5,10 but got 3"),
        ({"regimes": ()}, "--regimes must be different ones of everything,labels but got none"),
        ({"target_users": (5, 5)}, "--target-users must be different numbers >= 2 but got 5,5"),
        ({"target_users": (1,)}, "--target-users must be different numbers >= 2 but got 1"),
        ({"rounds": 0}, "--rounds must be >= 1 but got 0"),
    ],
)
def test_wrong_requests_are_errors(wrong, message):
    with pytest.raises(InputError) as refused:
        Request(**wrong)
    assert message in str(refused.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "others=a.csv", "--data", "b=b.csv"], 'a set cannot be called "others"'),
        (["--data", "b=b.csv"], "must name at least two sets, a target and a source, but got b"),
        (["--sets", "jester5k"], "--sets or --data must name at least two sets"),
        (["--sets", "jester5k,jester"], 'unknown set "jester"'),
        (["--sets", "jester5k,ciao-1"], "ciao is not there"),
        (["--target-users", "few"], "--target-users must be numbers with commas"),
        (["--jobs", "0"], "--jobs must be >= 1"),
        (["--sets", "jester5k,ml_latest_small"], "of its"),
    ],
)
def test_bad_input_is_one_line(arguments, message, data, tmp_path, monkeypatch):
    monkeypatch.setenv("METAREC_DATA", str(data))
    app = typer.Typer()
    app.command()(transfer.main)
    places = ["--work", str(tmp_path / "work"), "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(app, [*arguments, *places])
    assert result.exit_code == 2
    (line,) = result.stderr.splitlines()[-1:]
    assert line.startswith("error: ")
    assert message in line


def test_categories_are_sets_and_those_with_the_most_ratings_come_first(tmp_path):
    path = tmp_path / "ciao" / "ratings.csv.gz"
    write_set(path.parent, seed=0, domain=["7", "5", "5", "10"] * 96)
    assert largest_domains(path, 2) == ["5", "10"]
    (found,) = find_sets(["ciao-10"], tmp_path, None)
    assert (found.name, found.path) == ("ciao-10", f"{path.parent}#10")
    assert found.read().name == "ciao-10"
    with pytest.raises(InputError, match='ciao has no category "100"; did you mean "10"'):
        find_sets(["ciao-100"], tmp_path, None)


def test_the_group_has_the_largest_categories_of_the_real_ratings():
    if "METAREC_DATA" not in os.environ:
        pytest.skip("METAREC_DATA does not name the folder of real ratings")
    path = Path(os.environ["METAREC_DATA"]) / "ciao" / "ratings.csv.gz"
    assert [name for name in transfer.SETS if name.startswith("ciao")] == [
        f"ciao-{category}" for category in largest_domains(path, 3)
    ]


def test_cells_depend_on_all_code_that_computes_them():
    assert all((ROOT / part).exists() for part in CODE)
    for file in ("transfer/cells", "transfer/hostile"):
        path = f"benchmarks/{file}.py"
        assert path in CODE
        for node in ast.walk(ast.parse((ROOT / path).read_text())):
            # The store of cells computes none of them.
            if isinstance(node, ast.ImportFrom) and re.match(r"metarec\.(?!(cells|files)$)", node.module):
                place = node.module.replace(".", "/")
                named = any(part in (place, f"{place}.py") or place.startswith(f"{part}/") for part in CODE)
                assert named, f"{path} uses {node.module}"
