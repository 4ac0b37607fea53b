"""The notebook of `examples/` runs, and a notebook has progress."""

import ast
import io
import json

import pytest
from rich.console import Console

from metarec.cli import terminal
from tests.support.pages import ROOT

NOTEBOOK = json.loads((ROOT / "examples" / "leaderboard.ipynb").read_text(encoding="utf-8"))
CODE = ["".join(cell["source"]) for cell in NOTEBOOK["cells"] if cell["cell_type"] == "code"]


def test_it_is_short_and_has_no_old_output():
    whole = "\n".join(CODE)
    # From the DataFrame to the recommendation.
    own = whole[whole.index("import metarec\n") : whole.index("user.recommend(5)")].splitlines()
    assert len([line for line in own if line]) < 6
    for cell in NOTEBOOK["cells"]:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None


@pytest.mark.slow
def test_it_runs_and_shows_a_leaderboard_and_a_recommendation(tmp_path, monkeypatch):
    """As in a notebook, the value of the last expression of a cell is shown."""
    monkeypatch.chdir(tmp_path)
    names, shown = {}, []
    for code in CODE:
        *before, last = ast.parse(code).body
        assert isinstance(last, ast.Expr)
        exec(compile(ast.Module(before, []), "cell", "exec"), names)
        shown.append(eval(compile(ast.Expression(last.value), "cell", "eval"), names))
    ratings, board, best, trials, report = shown
    assert list(ratings.columns) == ["user", "item", "rating", "timestamp"]
    assert board["rmse"].is_monotonic_increasing
    assert {"metarec", "stack", "network"} <= set(board["model"])
    assert len(best) == 5
    assert not set(best["item"]) & {"m001", "m002", "m003"}
    assert trials["state"].eq("complete").any()
    assert report.is_file()
    assert report.is_relative_to("mlruns") or report.is_relative_to(tmp_path)


@pytest.mark.parametrize("widgets", [True, False])
def test_a_notebook_has_a_bar_where_it_has_widgets(monkeypatch, widgets):
    monkeypatch.setattr(terminal, "find_spec", lambda name: {"ipywidgets": object() if widgets else None}[name])
    progress = terminal.progress_line(Console(force_jupyter=True, file=io.StringIO()))
    assert progress.disable is not widgets
    # A thread that draws would catch the lines of the trials.
    assert progress.live.auto_refresh is not widgets
