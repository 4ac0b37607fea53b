"""``python -m benchmarks.published``: the cold users of MetaHIN's lists, by the model that a study proposes.

The bases' predictions are kept: the same command goes on after an interruption.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
import typer

from benchmarks.common.command import make_folders
from benchmarks.common.folders import RESULTS, WORK
from metarec.cli.command import check_json, run_command
from metarec.errors import InputError

__all__ = ["main", "measured", "run"]

SETTINGS: Mapping[str, Any] = {"episodes": {"shots": 20}, "trials": 10}
"""What is set beside the spec ``cold-start``: the lists' users have 3 to 90 ratings to adapt on."""

FOLDER = "ml1m"

_HOW = """\
MovieLens-1M. The cold users are those of MetaHIN's published lists who have {fewest} to {most} ratings. The last
{query} ratings of each are predicted from all of the user's others; the users that are not in the lists are there to
learn from. The model is the one that a study with the spec `cold-start` and the settings `{settings}` proposes. All
choices are made on validation users among the others.

- MAE and RMSE are over all predicted ratings. Gain: how much lower metarec's MAE is, in percent; in brackets the 95 %
  bootstrap interval over users. A negative gain means that metarec is behind.
- In italics: as published by others.
"""


def run(jobs: int, work: Path, out: Path, json_file: Path | None, *, settings: Mapping[str, Any] = SETTINGS) -> None:
    """Predict the lists and write the report.

    Raises:
        InputError: an option is wrong, or the files are missing or wrong.
    """
    from benchmarks.cold.report import describe
    from benchmarks.common.folders import ROOT
    from benchmarks.common.machine import describe_run
    from benchmarks.common.sets import FOLDER as VARIABLE
    from benchmarks.published.metahin import FEWEST, MOST, PUBLISHED, QUERY, predict_lists, read_lists
    from metarec.study.spec import load_spec
    from metarec.threads import one_thread

    start = time.perf_counter()
    data = os.environ.get(VARIABLE)
    if not data:
        raise InputError(f"{VARIABLE} must name the folder of the sets but is not set")
    if jobs < 1:
        raise InputError(f"--jobs must be >= 1 but got {jobs}")
    make_folders(work, out)
    target = json_file or out / "published.json"
    check_json(target, out)
    lists = read_lists(Path(data) / FOLDER)
    spec = load_spec(str(ROOT / "studies" / "cold-start.yaml"), dict(settings))
    with one_thread():
        rows, chosen = predict_lists(lists, spec, work / "bases", jobs)
    models = measured(rows)
    libraries = ("lenskit", "lightgbm", "numpy", "scikit-learn", "scipy", "torch")
    described = describe_run("benchmarks.published", sys.argv[1:], libraries, ROOT)
    seconds = time.perf_counter() - start
    report = {
        "benchmark": "published",
        "run": {**described, "duration_s": seconds},
        "settings": dict(settings),
        "metahin": {
            "ratings_of_a_user": [FEWEST, MOST],
            "query": QUERY,
            "n_users": int(rows["user"].nunique()),
            "n_ratings": len(rows),
            "models": models,
            "published": PUBLISHED,
            "chosen": chosen,
        },
    }
    how = _HOW.format(query=QUERY, fewest=FEWEST, most=MOST, settings=json.dumps(dict(settings)))
    where = describe({**described, "duration_s": seconds, "cells_s": seconds})
    counts = f"{rows['user'].nunique():,} users, {len(rows):,} ratings."
    text = f"# Published protocols\n\n{how}\n{counts}\n\n{_table(models, PUBLISHED)}\n\n## The run\n\n{where}\n"
    (out / "published.md").write_text(text, encoding="utf-8")
    target.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(_table(models, PUBLISHED))


def measured(rows: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """Model -> mae, rmse, and metarec's gain in MAE with its interval over users.

    Args:
        rows: user, item, rating, and each model's predictions.
    """
    from metarec.evaluation.metrics import METAREC, drawn_gains

    errors = rows.drop(columns=["user", "item", "rating"]).sub(rows["rating"], axis=0)
    absolute = errors.abs().groupby(rows["user"], sort=False).sum()
    gains = drawn_gains(
        absolute[METAREC].to_numpy(),
        absolute.drop(columns=METAREC),
        lambda ours, theirs: 100 * (1 - ours / theirs),
        seed=0,
    )
    return {
        str(name): {
            "mae": float(own.abs().mean()),
            "rmse": float(np.sqrt((own**2).mean())),
            **(
                {"gain": gains[str(name)].percent, "interval": [gains[str(name)].low, gains[str(name)].high]}
                if name in gains
                else {}
            ),
        }
        for name, own in errors.items()
    }


def _table(models: Mapping[str, Mapping[str, Any]], published: Mapping[str, float]) -> str:
    from benchmarks.cold.report import signed, table

    lines = [
        (
            own["mae"],
            [
                f"`{name}`",
                f"{own['mae']:.4f}",
                f"{own['rmse']:.4f}",
                f"{signed(own['gain'], 2)} % [{', '.join(signed(end, 2) for end in own['interval'])}]"
                if "gain" in own
                else "",
            ],
        )
        for name, own in models.items()
    ]
    lines += [(mae, [f"*{name}*", f"{mae:.2f}", "", ""]) for name, mae in published.items()]
    return table(["model", "MAE", "RMSE", "metarec's gain in MAE [95 %]"], [cells for _, cells in sorted(lines)])


def _command() -> typer.Typer:
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)

    @app.command()
    def published(
        jobs: Annotated[int, typer.Option(metavar="N", help="Processes that fit bases.")] = 2,
        work: Annotated[Path, typer.Option(metavar="DIR", help="Where the bases' predictions are kept.")] = WORK,
        out: Annotated[Path, typer.Option(metavar="DIR", help="Where the report goes.")] = RESULTS,
        json_file: Annotated[
            Path | None, typer.Option("--json", metavar="FILE", help="All numbers; by default in --out.")
        ] = None,
    ) -> None:
        """Predict the ratings of published lists of cold users. METAREC_DATA names the folder of the sets.

        Exit codes: 0 done; 2 bad input; 130 interrupted, to be continued with the same command.
        """
        run(jobs, work, out, json_file)

    return app


def main() -> None:
    """Run the command; input errors end it with one line and an exit code."""
    run_command(_command())
