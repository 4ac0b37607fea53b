"""``python -m benchmarks.ranking``: lists of metarec and of every opponent for users that nothing has seen.

Each cell, one fold of users of one set, is kept as soon as it is finished: the same command goes on after an
interruption, and computes again only what its code, settings or data have changed.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.common.command import make_folders
from benchmarks.common.folders import RESULTS, WORK
from metarec.cli.command import check_json, run_command
from metarec.errors import InputError

__all__ = ["main"]

TUNED = 10
"""Trials for each base: a tuned single base is the fair opponent of a fusion."""


def run(
    sets: Sequence[str],
    shots: Sequence[int],
    folds: int,
    seeds: int,
    tune_bases: int,
    split: str,
    jobs: int,
    work: Path,
    out: Path,
    json_file: Path | None,
) -> None:
    """Compute the missing cells and write the report.

    Raises:
        InputError: an option, or a set, is wrong or missing.
    """
    from benchmarks.cold.run import check_plan
    from benchmarks.common.cells import chosen_sets, finished_cells, resumable_board
    from benchmarks.common.folders import ROOT
    from benchmarks.common.machine import describe_run
    from benchmarks.common.sets import FOLDER
    from benchmarks.ranking.cells import LIBRARIES, RankingPlan, bases_of, cells_of, check_split, parts_of, predict_cell
    from benchmarks.ranking.models import ranking_predictions
    from benchmarks.ranking.report import compare_lists, markdown
    from benchmarks.ranking.sets import RANKING_SETS

    start = time.perf_counter()
    data = os.environ.get(FOLDER)
    if not data:
        raise InputError(f"{FOLDER} must name the folder of the sets but is not set")
    found = chosen_sets(sets, RANKING_SETS)
    check_plan(shots, folds, seeds, jobs)
    kind = check_split(split)
    make_folders(work, out)
    target = json_file or out / "ranking.json"
    check_json(target, out)
    if kind == "time" and tune_bases:
        raise InputError(
            f"--tune-bases must be 0 with --split time but got {tune_bases}: bases are tuned in folds of users only"
        )
    models = ranking_predictions
    plan = RankingPlan(tuple(sets), tuple(shots), folds, seeds, Path(data), work, models, tune_bases, kind)
    results: dict[tuple[str, int], list[Any]] = {}
    described_data, records = {}, []
    with resumable_board() as board:
        for one in found:
            domain = one.read(plan.data)
            cells = cells_of(plan, domain)
            own_cells = finished_cells(board, one.name, cells, partial(predict_cell, plan), plan.store, jobs=jobs)
            described_data[one.name] = {
                "users": domain.num_users,
                "items": domain.num_items,
                "events": len(domain.ratings),
                "fingerprint": domain.fingerprint(),
                "bases": list(bases_of(domain)),
                "chosen_on": RANKING_SETS[one.name].chosen_on,
            }
            for cell, result in own_cells:
                for part, own in parts_of(result).items():
                    name = one.name if part == "all" else f"{one.name} {part}"
                    results.setdefault((name, cell.key["shots"]), []).append(own)
            records += own_cells
        board.say("comparing")
        sections = compare_lists(results)
        described = {
            **describe_run("benchmarks.ranking", sys.argv[1:], LIBRARIES, ROOT),
            "seeds": seeds,
            "tune_bases": tune_bases,
            "split": kind,
            "cells_s": sum(result.seconds for _, result in records),
            "duration_s": time.perf_counter() - start,
        }
        nested: dict[str, Any] = {}
        for (name, count), section in sections.items():
            nested.setdefault(name, {})[str(count)] = section.to_json()
        report = {
            "benchmark": "ranking",
            "run": described,
            "settings": {
                "shots": list(shots),
                "folds": folds,
                "tune_bases": tune_bases,
                "metarec_seeds": list(range(seeds)),
                "seed": 0,
                "split": kind,
            },
            "data": described_data,
            "sets": nested,
            "cells": [
                {**cell.key, "digest": cell.digest, "seconds": result.seconds, "settings": result.notes["settings"]}
                for cell, result in records
            ],
        }
        text = markdown(sections, described)
        (out / "ranking.md").write_text(text, encoding="utf-8")
        target.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
        board.say(f"report: {out / 'ranking.md'}, {target}")
    print(text.partition("## Summary")[2].partition("\n## ")[0].strip())


def _command() -> typer.Typer:
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)

    @app.command()
    def ranking(
        sets: Annotated[str, typer.Option(metavar="A,B", help="The sets.")] = ",".join(_sets()),
        shots: Annotated[str, typer.Option(metavar="A,B", help="Sizes of the support sets.")] = "5,10",
        folds: Annotated[int, typer.Option(metavar="N", help="Folds of users.")] = 5,
        seeds: Annotated[int, typer.Option(metavar="N", help="Training seeds of metarec.")] = 1,
        tune_bases: Annotated[
            int, typer.Option(metavar="N", min=0, help="Trials for the settings of each base; 0 leaves the defaults.")
        ] = TUNED,
        split: Annotated[str, typer.Option(metavar="users|time", help="Folds of users, or one cut in time.")] = "users",
        jobs: Annotated[int, typer.Option(metavar="N", help="Processes, each on one thread.")] = 2,
        work: Annotated[Path, typer.Option(metavar="DIR", help="Where finished cells are kept.")] = WORK,
        out: Annotated[Path, typer.Option(metavar="DIR", help="Where the report goes.")] = RESULTS,
        json_file: Annotated[
            Path | None, typer.Option("--json", metavar="FILE", help="All numbers; by default in --out.")
        ] = None,
    ) -> None:
        """Compare the lists of metarec with those of every opponent. METAREC_DATA names the folder of the sets.

        Exit codes: 0 done; 2 bad input; 130 interrupted, to be continued with the same command.
        """
        from benchmarks.cold.run import numbers

        run(
            [name for name in sets.split(",") if name],
            numbers(shots),
            folds,
            seeds,
            tune_bases,
            split,
            jobs,
            work,
            out,
            json_file,
        )

    return app


def _sets() -> tuple[str, ...]:
    from benchmarks.ranking.sets import RANKING_SETS

    return tuple(RANKING_SETS)


def main() -> None:
    """Run the command; input errors end it with one line and an exit code."""
    run_command(_command())
