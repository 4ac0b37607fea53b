"""``python -m benchmarks.transfer``: the gain of transfer between domains, on real ratings.

Three parts. *leave-one-out*: each set is the target once, with all others as sources and all competitors. *pairs*: each
set is the only source of each other one, with the similarity of the two. *hostile*: the only source is another set with
inverted ratings. Each round of each of them is a cell, kept as soon as it is finished: the same command continues after
an interruption, and a command with more target users, rounds or regimes computes only the missing cells. Other numbers
of shots are other draws of users, because the users of a draw have enough ratings for all of them.
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

from benchmarks.common.command import ending_plainly, make_folders
from benchmarks.common.folders import RESULTS, WORK
from metarec.cli.command import named_paths
from metarec.errors import InputError

__all__ = ["main", "run"]

FOLDER = "METAREC_DATA"
SETS = ("ml_latest_small", "goodbooks_5pct", "jester5k", "movietweetings_100k", "ciao-1", "ciao-10", "ciao-3")
"""Of ciao the three largest categories."""


def run(plan: Any, request: Any, jobs: int, out: Path, json_file: Path, arguments: Sequence[str]) -> None:
    """Compute the missing cells and write the report.

    Args:
        plan: a :class:`benchmarks.transfer.cells.TransferPlan`. request: a :class:`benchmarks.transfer.plan.Request`.
        arguments: of the command line, for the report.

    Raises:
        InputError: a set cannot be read, or has too few users.
    """
    from benchmarks.common.machine import describe_run
    from benchmarks.common.terminal import Board
    from benchmarks.transfer.bars import AUTO
    from benchmarks.transfer.cells import LIBRARIES, ROOT
    from benchmarks.transfer.picture import gains_picture
    from benchmarks.transfer.report import markdown
    from benchmarks.transfer.summary import cells_json, load, summarise

    start = time.perf_counter()
    domains = {rating_set.name: rating_set.read() for rating_set in plan.sets}
    with Board() as board:
        cells = _computed(plan, request, domains, jobs, board)
        board.say("comparing")
        found = load(plan.store, cells)
        numbers, lines = summarise([cell for cell, _ in found])
    report = {
        "benchmark": "transfer",
        "run": {
            **describe_run("benchmarks.transfer", arguments, LIBRARIES, ROOT),
            "cells_s": sum(seconds for _, seconds in found),
            "duration_s": time.perf_counter() - start,
        },
        "data": {
            name: {"scale": str(domain.scale), "users": domain.num_users, "ratings": len(domain.ratings)}
            for name, domain in domains.items()
        },
        **numbers,
        "cells": cells_json(cells, found),
    }
    text = markdown(report, lines)
    (out / "transfer.md").write_text(text, encoding="utf-8")
    if AUTO in (report["few_users"] or {}):
        gains_picture(AUTO, report["few_users"][AUTO]["regimes"]).savefig(out / "transfer.png")
    # Without indentation, for there are thousands of numbers.
    json_file.write_text(json.dumps(report, separators=(",", ":")) + "\n", encoding="utf-8")
    print(text.partition("## Bars")[2].partition("\n## ")[0].strip())


def _computed(plan: Any, request: Any, domains: Any, jobs: int, board: Any) -> Any:
    """All requested cells, after the missing ones are computed."""
    from benchmarks.common.cells import state_of
    from benchmarks.transfer.cells import compute_cell, facts_of, make_rounds, together
    from benchmarks.transfer.plan import cells_of, needs_of
    from metarec.cells import run_cells

    rounds = make_rounds(plan, domains, jobs=jobs, on_progress=board.show)
    cells = cells_of(request, domains, facts_of(plan, domains, rounds))
    missing = [cell for cell in cells if not plan.store.finished(cell)]
    for part in request.parts:
        own, left = ([cell for cell in some if cell.key["part"] == part] for some in (cells, missing))
        board.say(state_of(part, own, left, plan.store))
    # Bases are fitted for hours, so too few users are found before.
    for target in {cell.key["target"] for cell in missing}:
        rounds.check(target, target_users=max(cell.key["users"] for cell in missing))
    needs = needs_of(missing, list(domains))
    for place, need in enumerate(needs):
        board.show(place, len(needs), f"bases: {need.name}, round {need.number}")
        rounds.prepare(**need._asdict())
    # The rounds are large, and workers read them from the disk.
    del rounds
    done = 0

    def on_done(cell: Any, result: Any) -> None:
        nonlocal done
        done += 1
        board.show(done, len(missing), "cells")
        board.say(f"{cell.name}  {result.seconds:.1f} s")

    run_cells(missing, partial(compute_cell, plan), plan.store, jobs=jobs, on_done=on_done, together=together)
    return cells


def _words(text: str) -> tuple[str, ...]:
    return tuple(word for word in text.split(",") if word)


def _numbers(option: str, text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise InputError(f'{option} must be numbers with commas between them, as in 5,20, but got "{text}"') from None


def main(
    sets: Annotated[
        str, typer.Option(metavar="A,B", help=f"The rating sets of the group, by name, in the folder {FOLDER}.")
    ] = ",".join(SETS),
    data_paths: Annotated[
        list[str] | None,
        typer.Option("--data", metavar="NAME=PATH", help="Ratings of your own, in place of --sets; may be repeated."),
    ] = None,
    parts: Annotated[
        str, typer.Option(metavar="A,B", help="Which of the three parts.")
    ] = "leave-one-out,pairs,hostile",
    shots: Annotated[
        str, typer.Option(metavar="A,B", help="Sizes of the support sets, where all others are sources.")
    ] = "0,1,2,5,10",
    target_users: Annotated[
        str, typer.Option(metavar="A,B", help="Users of the target, where all others are sources.")
    ] = "5,20,100",
    rounds: Annotated[int, typer.Option(metavar="N", help="Draws of test users and of target users.")] = 10,
    regimes: Annotated[
        str, typer.Option(metavar="A,B", help="What there is little of in the target.")
    ] = "everything,labels",
    jobs: Annotated[int, typer.Option(metavar="N", help="Processes, each on one thread.")] = 2,
    work: Annotated[Path, typer.Option(metavar="DIR", help="Where finished cells are kept.")] = WORK,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where the report goes.")] = RESULTS,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="All numbers; by default in --out.")
    ] = None,
) -> None:
    """Compare all transfer strategies on real ratings. METAREC_DATA names the folder of the sets of --sets.

    Pairs of sets and hostile sources always have 5 shots and 20 target users, hostile ones in the regime labels only.

    Exit codes: 0 done; 2 bad input; 130 interrupted, to be continued with the same command.
    """
    with ending_plainly():
        from benchmarks.common.sets import RatingSet, find_sets
        from benchmarks.transfer.cells import OTHERS, TransferPlan
        from benchmarks.transfer.plan import Request

        if jobs < 1:
            raise InputError(f"--jobs must be >= 1 but got {jobs}")
        request = Request(
            _words(parts),
            _numbers("--shots", shots),
            _numbers("--target-users", target_users),
            rounds,
            _words(regimes),
        )
        folder = os.environ.get(FOLDER)
        if data_paths:
            found = tuple(RatingSet(name, path) for name, path in named_paths(data_paths).items())
        else:
            found = tuple(find_sets(_words(sets), Path(folder) if folder else None, None))
        if len(found) < 2:
            names = ", ".join(rating_set.name for rating_set in found)
            raise InputError(f"--sets or --data must name at least two sets, a target and a source, but got {names}")
        if any(rating_set.name == OTHERS for rating_set in found):
            raise InputError(
                f'--data: a set cannot be called "{OTHERS}", which stands for all others; give another name'
            )
        target = json_file or out / "transfer.json"
        make_folders(work, out, target.absolute().parent)
        run(TransferPlan(found, work, shots=request.all_shots), request, jobs, out, target, sys.argv[1:])


if __name__ == "__main__":
    typer.run(main)
