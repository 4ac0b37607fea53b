"""``python -m benchmarks.cold``: metarec against every tuned baseline on users that nothing has seen.

For each set, all bases are fitted for every fold of users; then metarec (with several seeds) and the baselines learn
to combine them, for every fold and every number of shots. Each of these cells is kept as soon as it is finished: the
same command goes on after an interruption, and computes again only what its code, settings or data have changed.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.common.command import make_folders
from benchmarks.common.folders import RESULTS, WORK
from metarec.cli.command import check_json, run_command
from metarec.errors import InputError

__all__ = ["check_plan", "main", "numbers"]


def run(
    models: Callable[[], Any],
    sets: Sequence[str],
    shots: Sequence[int],
    folds: int,
    seeds: int,
    jobs: int,
    work: Path,
    out: Path,
    json_file: Path | None,
    ml100k: Path | None,
    arguments: Sequence[str],
) -> None:
    """Compute the missing cells and write the report.

    Args:
        models: makes the :class:`benchmarks.cold.cells.Models` that are compared.
        arguments: of the command line, for the report.

    Raises:
        InputError: an option, or a set, is wrong or missing.
    """
    from benchmarks.cold.cells import Plan, cells_of, folds_of, predict_cell, set_predictions
    from benchmarks.common.cells import compute_missing, resumable_board
    from benchmarks.common.sets import FOLDER, find_sets
    from benchmarks.common.statistics import compare
    from metarec.episodes import EpisodeSettings

    start = time.perf_counter()
    data = os.environ.get(FOLDER)
    found = find_sets(sets, Path(data) if data else None, ml100k)
    check_plan(shots, folds, seeds, jobs)
    make_folders(work, out)
    target = json_file or out / "cold_users.json"
    check_json(target, out)
    plan = Plan(tuple(found), tuple(shots), folds, seeds, EpisodeSettings(), work, models())
    domains = {rating_set.name: rating_set.read() for rating_set in found}
    cells = {name: cells_of(plan, domain) for name, domain in domains.items()}
    with resumable_board() as board:
        for name, domain in domains.items():
            prepare = partial(folds_of, plan, domain, jobs=jobs, on_progress=board.show)
            compute = partial(predict_cell, plan)
            compute_missing(board, name, cells[name], compute, plan.store, jobs=jobs, prepare=prepare)
        board.say("comparing")
        predicted = {
            (name, number): set_predictions(plan.store, cells[name], number, domain.scale)
            for name, domain in domains.items()
            for number in plan.shots
        }
        _write(plan, domains, cells, compare(predicted), out, target, arguments, start)
        board.say(f"report: {out / 'cold_users.md'}, {out / 'cold_users.png'}, {target}")


def _write(
    plan: Any,
    domains: Any,
    cells: Any,
    sections: Any,
    out: Path,
    target: Path,
    arguments: Sequence[str],
    start: float,
) -> None:
    from benchmarks.cold.cells import LIBRARIES, ROOT, bases_of
    from benchmarks.cold.picture import gains_picture
    from benchmarks.cold.report import markdown, sections_json
    from benchmarks.common.machine import describe_run

    records = [(cell, plan.store.load(cell)) for own in cells.values() for cell in own]
    described = {
        **describe_run("benchmarks.cold", arguments, LIBRARIES, ROOT),
        "seeds": plan.seeds,
        "cells_s": sum(result.seconds for _, result in records),
        "duration_s": time.perf_counter() - start,
    }
    report = {
        "benchmark": "cold_users",
        "run": described,
        "settings": {
            "shots": list(plan.shots),
            "folds": plan.folds,
            "metarec_seeds": list(range(plan.seeds)),
            "seed": 0,
            "episodes": plan.episodes.model_dump(exclude={"shots"}),
        },
        "data": {
            name: {
                "scale": str(domain.scale),
                "users": domain.num_users,
                "items": domain.num_items,
                "ratings": len(domain.ratings),
                "fingerprint": domain.fingerprint(),
                "bases": list(bases_of(domain)),
            }
            for name, domain in domains.items()
        },
        "sets": sections_json(sections),
        "cells": [
            {**cell.key, "digest": cell.digest, "seconds": result.seconds, "settings": result.notes["settings"]}
            for cell, result in records
        ],
    }
    scales = {name: f"scale {domain.scale}" for name, domain in domains.items()}
    text = markdown(sections, described, scales)
    (out / "cold_users.md").write_text(text, encoding="utf-8")
    gains_picture(sections).savefig(out / "cold_users.png")
    target.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(text.partition("## Summary")[2].partition("\n## ")[0].strip())


def check_plan(shots: Sequence[int], folds: int, seeds: int, jobs: int) -> None:
    """Raise InputError where one of these options is out of its range."""
    if not shots or min(shots) < 1 or len(set(shots)) < len(shots):
        raise InputError(f"--shots must be different numbers >= 1 but got {','.join(map(str, shots)) or 'none'}")
    for option, value, least in (("--folds", folds, 3), ("--seeds", seeds, 1), ("--jobs", jobs, 1)):
        if value < least:
            raise InputError(f"{option} must be >= {least} but got {value}")


def numbers(text: str) -> list[int]:
    """The numbers of --shots.

    Raises:
        InputError: they are no numbers with commas between them.
    """
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise InputError(
            f'--shots must be numbers with commas between them, as in 1,2,5,10, but got "{text}"'
        ) from None


def real_models() -> Any:
    """metarec and its baselines."""
    from benchmarks.cold.baselines import baseline_predictions
    from benchmarks.cold.cells import Models
    from benchmarks.cold.models import metarec_predictions
    from metarec.episodes import cross_validate

    return Models(cross_validate, baseline_predictions, metarec_predictions)


def command(models: Callable[[], Any]) -> typer.Typer:
    """The command line over these models."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)

    @app.command()
    def cold_users(
        sets: Annotated[str, typer.Option(metavar="A,B", help="The rating sets.")] = ",".join(_sets()),
        shots: Annotated[str, typer.Option(metavar="A,B", help="Sizes of the support sets.")] = "1,2,5,10",
        folds: Annotated[int, typer.Option(metavar="N", help="Folds of users.")] = 5,
        seeds: Annotated[int, typer.Option(metavar="N", help="Training seeds of metarec.")] = 3,
        jobs: Annotated[int, typer.Option(metavar="N", help="Processes, each on one thread.")] = 2,
        work: Annotated[Path, typer.Option(metavar="DIR", help="Where finished cells are kept.")] = WORK,
        out: Annotated[Path, typer.Option(metavar="DIR", help="Where the report goes.")] = RESULTS,
        json_file: Annotated[
            Path | None, typer.Option("--json", metavar="FILE", help="All numbers; by default in --out.")
        ] = None,
        ml100k: Annotated[
            Path | None, typer.Option(metavar="DIR", help="The folder of MovieLens-100K's atomic files.")
        ] = None,
    ) -> None:
        """Compare metarec with every baseline on users unseen in training. METAREC_DATA names the folder of the sets.

        Exit codes: 0 done; 2 bad input; 130 interrupted, to be continued with the same command.
        """
        names = [name for name in sets.split(",") if name]
        run(models, names, numbers(shots), folds, seeds, jobs, work, out, json_file, ml100k, sys.argv[1:])

    return app


def _sets() -> tuple[str, ...]:
    from benchmarks.common.sets import SETS

    return SETS


def main(models: Callable[[], Any] = real_models) -> None:
    """Run the command; input errors end it with one line and an exit code."""
    run_command(command(models))
