"""``python -m benchmarks.ablation``: stackers, networks, inner steps and cross-fitting, alone and together.

Each fold is kept as soon as it is finished: the same command goes on after an interruption, and computes again only
what its code, settings or data have changed.
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

__all__ = ["main", "run"]

SETS = ("ml_latest_small", "movietweetings_100k", "goodbooks_5pct")


def run(
    sets: Sequence[str],
    shots: int,
    folds: int,
    jobs: int,
    work: Path,
    out: Path,
    json_file: Path | None,
    *,
    networks: Mapping[str, Any] | None = None,
    stackers: Sequence[str] = (),
) -> None:
    """Compute the missing cells and write the report.

    Args:
        networks: in place of :data:`benchmarks.ablation.cells.NETWORKS`. stackers: in place of all.

    Raises:
        InputError: an option, or a set, is wrong or missing.
    """
    from benchmarks.ablation.cells import LIBRARIES, NETWORKS, AblationPlan, cells_of, folds_of, predict_cell
    from benchmarks.ablation.report import compare_parts, markdown
    from benchmarks.cold.run import check_plan
    from benchmarks.common.cells import finished_cells, resumable_board
    from benchmarks.common.folders import ROOT
    from benchmarks.common.machine import describe_run
    from benchmarks.common.sets import FOLDER, find_sets
    from metarec.fusion.stackers import STACKERS

    start = time.perf_counter()
    data = os.environ.get(FOLDER)
    found = find_sets(sets, Path(data) if data else None, None)
    check_plan([shots], folds, 1, jobs)
    make_folders(work, out)
    target = json_file or out / "ablation.json"
    check_json(target, out)
    names = tuple(stackers or STACKERS.names())
    plan = AblationPlan(tuple(found), shots, folds, names, networks or NETWORKS, work)
    results: dict[str, list[Any]] = {}
    records = []
    with resumable_board() as board:
        for one in found:
            domain = one.read()
            own = finished_cells(
                board,
                one.name,
                cells_of(plan, domain),
                partial(predict_cell, plan),
                plan.store,
                jobs=jobs,
                prepare=partial(folds_of, plan, domain, jobs=jobs, on_progress=board.show),
            )
            results[one.name] = [result for _, result in own]
            records += own
        sections = compare_parts(results)
        described = {
            **describe_run("benchmarks.ablation", sys.argv[1:], LIBRARIES, ROOT),
            "cells_s": sum(result.seconds for _, result in records),
            "duration_s": time.perf_counter() - start,
        }
        report = {
            "benchmark": "ablation",
            "run": described,
            "settings": {
                "shots": shots,
                "folds": folds,
                "seed": 0,
                "stackers": list(names),
                "networks": {name: config.model_dump(mode="json") for name, config in plan.networks.items()},
            },
            "sets": sections,
            "cells": [{**cell.key, "digest": cell.digest, "seconds": result.seconds} for cell, result in records],
        }
        text = markdown(sections, described, shots)
        (out / "ablation.md").write_text(text, encoding="utf-8")
        target.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
        board.say(f"report: {out / 'ablation.md'}, {target}")
    print(text.partition("\n## ")[2].partition("\n## The run")[0].strip())


def _command() -> typer.Typer:
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)

    @app.command()
    def ablation(
        sets: Annotated[str, typer.Option(metavar="A,B", help="The rating sets.")] = ",".join(SETS),
        shots: Annotated[int, typer.Option(metavar="N", help="The size of the support sets.")] = 10,
        folds: Annotated[int, typer.Option(metavar="N", help="Folds of users.")] = 5,
        jobs: Annotated[int, typer.Option(metavar="N", help="Processes, each on one thread.")] = 2,
        work: Annotated[Path, typer.Option(metavar="DIR", help="Where finished cells are kept.")] = WORK,
        out: Annotated[Path, typer.Option(metavar="DIR", help="Where the report goes.")] = RESULTS,
        json_file: Annotated[
            Path | None, typer.Option("--json", metavar="FILE", help="All numbers; by default in --out.")
        ] = None,
    ) -> None:
        """Compare the parts of a fusion on users unseen in training. METAREC_DATA names the folder of the sets.

        Exit codes: 0 done; 2 bad input; 130 interrupted, to be continued with the same command.
        """
        run([name for name in sets.split(",") if name], shots, folds, jobs, work, out, json_file)

    return app


def main() -> None:
    """Run the command; input errors end it with one line and an exit code."""
    run_command(_command())
