"""The table, the pictures and the reasons follow from the cells."""

import csv
import io
import json
import os
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from markdown_it import MarkdownIt
from rich.console import Console

from metarec.cli.compare_tables import show_comparison
from metarec.compare.cells import StrategyResult, plain
from metarec.compare.plan import ComparisonPlan
from metarec.compare.records import added_metrics, cell_record
from metarec.compare.summary import Comparison, added, best_of, lines
from metarec.evaluation.measures import RATING
from metarec.evaluation.metrics import Scores
from metarec.report.comparison import ComparisonReporter, table_csv, tables_markdown
from metarec.report.comparison_page import comparison_page, reasons_text
from metarec.report.figures.canvas import save
from metarec.report.figures.comparison import gain_over_scratch, similarity
from metarec.tracking import TAG_LENGTH, ComparisonRun, markdown_text
from metarec.transfer import competitors

USERS = 40


def made(plan, *, factor=lambda cell: 1.0, reasons=None):
    """Cells of users with four ratings each, whose squared errors are those of scratch times a factor."""
    results = []
    for cell in plan.cells():
        (_, _, seed), shots = cell.round
        squared = np.random.default_rng([seed, shots]).gamma(2.0, size=USERS) * factor(cell)
        rmse = float(np.sqrt(squared.sum() / (4 * USERS)))
        users = [f"{seed}-{user}" for user in range(USERS)]
        own = Scores({"rmse": rmse, "mae": rmse / 2, "unit_rmse": rmse / 4}, USERS, 4 * USERS)
        results.append(StrategyResult(cell, plan.target, own, users, squared.tolist(), reasons or {}, 0.0, 1.0))
    return results


def compared(plan, **options):
    results = made(plan, **options)
    table = {a: {b: 1.0 if a == b else 0.55 for b in ("movies", "books")} for a in ("movies", "books")}
    return Comparison("c", plan, "1..5", results, lines(plan, results), added(plan, results), table)


def by_strategy(cell):
    return {"zero_shot": 0.81, "oracle": 0.25, "mean": 1.21}.get(cell.strategy, 1.0)


@pytest.fixture
def plan():
    return ComparisonPlan("movies", ["zero_shot", "oracle", "mean"], [0, 5], [20], 3)


def test_means_over_seeds_and_gains_over_scratch(plan):
    results = made(plan, factor=by_strategy)
    found = {(line.strategy, line.shots): line for line in lines(plan, results)}
    assert len(found) == 4 * 3
    own = [one.scores.rmse for one in results if one.cell.strategy == "mean" and one.cell.round.shots == 5]
    assert found["mean", 5].value == pytest.approx(np.mean(own))
    assert found["mean", 5].n_users == 3 * USERS
    for shots in (0, 5, None):
        assert found["scratch", shots].gain is None
        # All users' errors shrink alike, so that there is nothing to be uncertain of.
        assert found["zero_shot", shots].gain[:4] == pytest.approx((10, 10, 10, 0))
        assert found["mean", shots].gain[:4] == pytest.approx((-10, -10, -10, 0))
        assert found["mean", shots].gain.by_draw == pytest.approx((-10, -10, -10))


def test_all_rows_of_a_user_are_drawn_together(plan):
    """The interval is as wide with each user's rows in two numbers of shots as with them in one."""
    half = {f"{seed}-{user}" for seed in range(3) for user in range(0, USERS, 2)}

    def gain(shots):
        own = ComparisonPlan("movies", ["mean"], shots, [20], 3)
        results = []
        for one in made(own):
            squared = [4.0 if user in half and one.cell.strategy == "mean" else 1.0 for user in one.users]
            results.append(StrategyResult(one.cell, "movies", one.scores, one.users, squared, {}, 0.0, 1.0))
        (line,) = (line for line in lines(own, results) if line.strategy == "mean" and line.shots is None)
        return line.gain

    assert gain([0, 5])[:3] == pytest.approx(gain([0])[:3])
    assert gain([0]).high - gain([0]).low > 1


def test_the_best_strategy_is_not_the_oracle(plan):
    comparison = compared(plan, factor=by_strategy)
    (setting,) = comparison.settings()
    column = comparison.lines_of(setting, 5)
    assert min(column, key=lambda line: line.value).strategy == "oracle"
    assert best_of(column, RATING) == "zero_shot"
    (table,) = tables_markdown(comparison)
    table = table.splitlines()
    assert [line for line in table if r"\*" in line] == [line for line in table if line.startswith("| zero_shot")]


def test_only_a_gain_that_holds_over_draws_is_bold():
    """Zero-shot gains 10 % in each draw, pooled 30 % in one of three draws; one draw alone shows nothing."""

    def factor(cell):
        seed = cell.round.world.seed
        return {"zero_shot": 0.81, "pooled": 0.49 if seed == 0 else 1.0}.get(cell.strategy, 1.0)

    def shown(seeds):
        comparison = compared(ComparisonPlan("movies", ["zero_shot", "pooled"], [5], [20], seeds), factor=factor)
        (setting,) = comparison.settings()
        console = Console(width=120, record=True, file=io.StringIO())
        show_comparison(console, comparison)
        printed = " ".join(console.export_text().split())
        return "\n\n".join(tables_markdown(comparison)), comparison.lines_of(setting, None), printed

    table, (_, zero_shot, pooled), printed = shown(3)
    assert [line for line in table.splitlines() if "**" in line] == [
        line for line in table.splitlines() if line.startswith("| zero_shot")
    ]
    assert zero_shot.gain.is_above_zero
    assert pooled.gain.percent > zero_shot.gain.percent * 0.9
    assert pooled.gain.low < 0 < pooled.gain.high
    assert pooled.gain.by_draw == pytest.approx((30, 0, 0))
    assert "mean over 3 draws" in printed

    table, (_, zero_shot, pooled), printed = shown(1)
    assert "**" not in table
    assert str(zero_shot.gain) == "+10.00 % (one draw)"
    assert "mean over one draw" in printed
    assert "+10.00 % (one draw)" in printed


def test_one_sentence_says_what_the_sources_models_add():
    plan = ComparisonPlan("movies", ["auto", "stack"], [0, 5], [20], 3)
    comparison = compared(plan, factor=lambda cell: {"auto": 0.81, "stack": 0.9}.get(cell.strategy, 1.0))
    added_percent = 100 * (1 - 0.9 / 0.9**0.5)
    (sentence,) = comparison.sentences()
    assert sentence == (
        f"With 20 target users the sources' models add +{added_percent:.2f} % [+{added_percent:.2f}, "
        f"+{added_percent:.2f}] to the mixture of stackers (auto against stack, over 3 draws of users)."
    )
    (entry,) = comparison.to_json()["auto_over_stack"]
    assert (entry["target_users"], entry["percent"]) == (20, pytest.approx(added_percent))
    assert entry["by_draw"] == pytest.approx([added_percent] * 3)
    assert added_metrics(comparison)["everything/20 users/auto_over_stack"] == pytest.approx(added_percent)
    console = Console(width=100, record=True, file=io.StringIO())
    show_comparison(console, comparison)
    assert sentence in " ".join(console.export_text().split())
    assert compared(ComparisonPlan("movies", ["auto"], [5], [20], 2)).sentences() == []


def test_one_sentence_has_the_verdict():
    plan = ComparisonPlan("movies", ["pooled", "auto", "oracle"], [0, 5], [20], 3)
    comparison = compared(plan, factor=lambda cell: {"auto": 0.81, "oracle": 0.1}.get(cell.strategy, 1.1))
    (verdict,) = comparison.verdicts()
    gain = 100 * (1 - (0.81 / 1.1) ** 0.5)
    assert verdict == (
        f"auto is the best of 3 in hindsight with 20 target users: +{gain:.2f} % [+{gain:.2f}, +{gain:.2f}] "
        "against scratch (better)."
    )
    worse = compared(plan, factor=lambda cell: 1.0 if cell.strategy == "scratch" else 1.2)
    assert worse.verdicts() == [
        "scratch is the best of 3 in hindsight with 20 target users: no other one has a gain over scratch."
    ]


def test_a_description_fits_the_store_and_begins_with_the_verdict(tmp_path):
    plan = ComparisonPlan("movies", competitors(), [0, 1, 2, 5, 10], [5, 20, 100], 3)
    comparison = compared(plan)
    notes = []
    run = ComparisonRun()
    run.describe = notes.append
    world = {name: SimpleNamespace(num_users=1, num_items=2, ratings=[], scale="1..5") for name in ("movies", "books")}
    ComparisonReporter().report(run, comparison, world)
    (note,) = notes
    assert len(note) <= TAG_LENGTH
    assert note.startswith(markdown_text(comparison.verdicts()[0]))
    assert note.endswith("The rest is in `report.html`, among the artifacts.")


def test_the_reasons_of_auto_are_sentences():
    reasons = {
        "transfers": True,
        "share": 0.62,
        "shares": {"zero_shot": 0.62, "ridge": 0.378, "fwls": 0.002},
        "predicted_gain": 1.25,
        "transferred_gain": 0.5,
        "confidence": 0.875,
        "untouched_gain": 0.031,
        "sources": {"books": {"similarity": 0.71, "gains_from_the_others": [0.2, -0.1]}},
    }
    assert list(reasons_text(reasons)) == [
        "62% of the weight is on the sources' models; all weights: zero shot 0.62, ridge 0.38.",
        "It expects +1.25 % over the simplest alternative, and +0.50 % over the mixture without the sources' models "
        "(with probability 0.88 above 0).",
        "Without a step to the domain, the sources' models gain 3.1 % over the bases' mean.",
        "Similarity to books: 0.71; as a target it gains +0.20 %, -0.10 %.",
    ]


def test_the_terminals_table_fits_into_100_columns():
    plan = ComparisonPlan("movies", competitors())
    comparison = compared(plan, factor=lambda cell: 3.0 if cell.strategy == "mean" else 1.0)
    console = Console(width=100, record=True, file=io.StringIO())
    show_comparison(console, comparison)
    text = console.export_text()
    assert "…" not in text
    for setting in comparison.settings():
        assert f"RMSE with {setting}" in " ".join(text.split())
    for name in plan.strategies:
        assert len(re.findall(rf"│ {name} +│(?: +\*?\d\.\d{{4}} │){{5}}", text)) == 3, name
    assert text.count("*") == 5 * 3 + 1


def test_the_file_of_the_table_can_be_read_again(plan):
    comparison = compared(plan, factor=by_strategy)
    rows = list(csv.DictReader(io.StringIO(table_csv(comparison.lines))))
    assert len(rows) == len(comparison.lines)
    row = next(row for row in rows if (row["strategy"], row["shots"]) == ("zero_shot", "5"))
    assert float(row["gain_percent"]) == pytest.approx(10)
    assert {row["target_users"] for row in rows} == {"20"}


def test_gains_are_in_the_json_beside_the_rows(plan):
    content = json.loads(json.dumps(compared(plan, factor=by_strategy).to_json()))
    (gain,) = (one for one in content["gains"] if (one["strategy"], one["shots"]) == ("mean", 0))
    assert (gain["target_users"], gain["percent"]) == (20, pytest.approx(-10))


REASONS = {
    "chosen": "pooled",
    "scores": {"pooled": 0.81234567, "scratch": np.float64(0.9), "zero_shot": float("nan")},
    "tried": ("pooled", "scratch"),
    "steps": [{"name": "a", "kept": True}, {"name": "b", "kept": None}],
    "nothing": [],
}


def test_reasons_of_any_type_are_kept():
    plan = ComparisonPlan("movies", ["mean"], [5], [20], 1)
    result = made(plan, reasons=plain(REASONS))[1]
    kept = json.loads(cell_record("k", result).files["reasons.json"])
    assert kept["scores"]["scratch"] == 0.9
    assert kept["steps"][1] == {"name": "b", "kept": None}
    assert json.loads(json.dumps(plain(REASONS), allow_nan=False)) == plain(REASONS) == kept
    assert cell_record("k", made(plan)[0]).files == {}


def labels(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_the_picture_of_gains(plan):
    figure = gain_over_scratch(compared(plan, factor=by_strategy))
    (axes,) = figure.axes
    assert axes.get_title(loc="left") == "movies: gain over scratch, 20 target users"
    assert [label.get_text() for label in axes.get_xticklabels()] == ["0", "5"]
    assert labels(figure) == ["baselines on the few users", "zero shot", "oracle"]
    drawn = {container.get_label(): container.lines[0].get_ydata() for container in axes.containers}
    assert drawn["zero shot"] == pytest.approx([10, 10])
    assert drawn["oracle"] == pytest.approx([50, 50])


@pytest.mark.parametrize(
    "own",
    [
        ComparisonPlan("movies", ["scratch"], [5], [20], 1),
        ComparisonPlan("movies", ["ridge"], [5], [20], 1),
        ComparisonPlan("movies", ["zero_shot"], [5], [20], 1),
        ComparisonPlan("movies", competitors(), [0, 1, 2, 5, 10], [5, 20, 100], 1, ["everything", "labels"]),
    ],
    ids=["scratch", "baseline", "strategy", "all"],
)
@pytest.mark.filterwarnings("error")
def test_any_comparison_gives_a_picture_of_the_same_width(own):
    figure = gain_over_scratch(compared(own))
    assert len(figure.axes) == len(own.regimes) * len(own.target_users)
    png = io.BytesIO()
    figure.savefig(png, format="png")
    assert int.from_bytes(png.getvalue()[16:20], "big") == 800


def test_the_picture_of_similarities():
    names = ["movies", "books", "music"]
    figure = similarity({a: {b: 1.0 if a == b else 0.25 for b in names} for a in names})
    axes = figure.axes[0]
    shown = [text.get_text() for text in axes.texts]
    assert shown == ["1.00", "0.25", "0.25", "0.25", "1.00", "0.25", "0.25", "0.25", "1.00"]
    assert [label.get_text() for label in axes.get_xticklabels()] == names


def test_names_from_the_data_are_shown_as_they_are(tmp_path):
    name = "<b>[red]x[/red]|[y](z)$^$"
    plan = ComparisonPlan(name, ["zero_shot"], [0], [20], 1)
    reasons = {name: {"source": name, "more": [name]}}
    results = made(plan, reasons=reasons)
    comparison = Comparison("c", plan, "1..5", results, lines(plan, results), {}, {name: {name: 1.0}})
    console = Console(width=120, file=io.StringIO(), markup=False, emoji=False)
    show_comparison(console, comparison)
    assert f"{name}, scale 1..5" in console.file.getvalue()
    for figure in (gain_over_scratch(comparison), similarity(comparison.similarity)):
        save(figure, Path(os.devnull))
    world = {name: SimpleNamespace(num_users=1, num_items=2, ratings=[], scale="1..5")}
    text = ComparisonReporter().description(plan, world, name)
    tokens = MarkdownIt("commonmark").enable("table").parse(text)
    kinds = {inner.type for token in tokens for inner in (token, *(token.children or ()))}
    assert not kinds & {"link_open", "image", "html_inline", "html_block"}
    assert any(inner.content == name for token in tokens for inner in (token.children or ()))
    page = comparison_page(comparison, world, [], tmp_path)
    assert "<b>[red]" not in page
    assert "&lt;b&gt;[red]" in page
