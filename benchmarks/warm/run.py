"""``python -m benchmarks.warm``: metarec on published splits of the ratings of users with known histories.

The model is the one that a study with ``protocol: warm`` proposes. Each fold is kept as soon as it is finished: the
same command goes on after an interruption, and computes again only what its code, settings or data have changed.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.common.command import make_folders
from benchmarks.common.folders import RESULTS, WORK
from metarec.cli.command import check_json, run_command
from metarec.errors import InputError

__all__ = ["main", "run"]


def run(
    sets: Sequence[str],
    jobs: int,
    work: Path,
    out: Path,
    json_file: Path | None,
    *,
    settings: Mapping[str, Any] | None = None,
) -> None:
    """Compute the missing cells and write the report.

    Args:
        settings: keys of the spec and their values, in place of :data:`benchmarks.warm.cells.SETTINGS`.

    Raises:
        InputError: an option, or a set, is wrong or missing.
    """
    from benchmarks.common.cells import chosen_sets, finished_cells, resumable_board
    from benchmarks.common.folders import ROOT
    from benchmarks.common.machine import describe_run
    from benchmarks.common.sets import FOLDER
    from benchmarks.common.study import study_predictions
    from benchmarks.warm.cells import LIBRARIES, SETTINGS, WarmPlan, cells_of, predict_cell
    from benchmarks.warm.report import compare_warm, markdown
    from benchmarks.warm.sets import WARM_SETS

    start = time.perf_counter()
    data = os.environ.get(FOLDER)
    if not data:
        raise InputError(f"{FOLDER} must name the folder of the sets but is not set")
    found = chosen_sets(sets, WARM_SETS)
    if jobs < 1:
        raise InputError(f"--jobs must be >= 1 but got {jobs}")
    make_folders(work, out)
    target = json_file or out / "warm.json"
    check_json(target, out)
    plan = WarmPlan(tuple(sets), Path(data), work, SETTINGS if settings is None else settings, study_predictions, jobs)
    results: dict[str, list[Any]] = {}
    described_data, records = {}, []
    with resumable_board() as board:
        for one in found:
            domain = one.read(plan.data)
            # The bases of a fold are fitted by several processes; folds follow each other.
            own = finished_cells(board, one.name, cells_of(plan, domain), partial(predict_cell, plan), plan.store)
            described_data[one.name] = {
                "about": one.about,
                "users": domain.num_users,
                "items": domain.num_items,
                "ratings": len(domain.ratings),
                "fingerprint": domain.fingerprint(),
                "published": dict(one.published),
            }
            results[one.name] = [result for _, result in own]
            records += own
        sections = compare_warm(results)
        described = {
            **describe_run("benchmarks.warm", sys.argv[1:], LIBRARIES, ROOT),
            **{name: plan.settings[name] for name in ("tune_bases", "trials")},
            "cells_s": sum(result.seconds for _, result in records),
            "duration_s": time.perf_counter() - start,
        }
        report = {
            "benchmark": "warm",
            "run": described,
            "settings": dict(plan.settings),
            "data": described_data,
            "sets": {name: section.to_json() for name, section in sections.items()},
            "cells": [
                {
                    **cell.key,
                    "digest": cell.digest,
                    "seconds": result.seconds,
                    "bases": result.notes["bases"],
                    "settings": result.notes["settings"],
                }
                for cell, result in records
            ],
        }
        text = markdown(sections, described)
        (out / "warm.md").write_text(text, encoding="utf-8")
        target.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
        board.say(f"report: {out / 'warm.md'}, {target}")
    print(text.partition("\n## ")[2].partition("\n## The run")[0].strip())


def _command() -> typer.Typer:
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)

    @app.command()
    def warm(
        sets: Annotated[str, typer.Option(metavar="A,B", help="The sets.")] = ",".join(_sets()),
        jobs: Annotated[int, typer.Option(metavar="N", help="Processes that fit bases.")] = 2,
        work: Annotated[Path, typer.Option(metavar="DIR", help="Where finished cells are kept.")] = WORK,
        out: Annotated[Path, typer.Option(metavar="DIR", help="Where the report goes.")] = RESULTS,
        json_file: Annotated[
            Path | None, typer.Option("--json", metavar="FILE", help="All numbers; by default in --out.")
        ] = None,
    ) -> None:
        """Predict the test ratings of published splits. METAREC_DATA names the folder of the sets.

        Exit codes: 0 done; 2 bad input; 130 interrupted, to be continued with the same command.
        """
        run([name for name in sets.split(",") if name], jobs, work, out, json_file)

    return app


def _sets() -> tuple[str, ...]:
    from benchmarks.warm.sets import WARM_SETS

    return tuple(WARM_SETS)


def main() -> None:
    """Run the command; input errors end it with one line and an exit code."""
    run_command(_command())
