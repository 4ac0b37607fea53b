"""``python -m benchmarks.engines``: the time and memory of a meta-step by engine, and the agreement of gradients.

In each case (tasks, inner steps, shots, network, order, threads) every contestant takes the same meta-step in turn,
round after round, in one process: the meta-loss and its gradient, dropout off. Also reported are the largest difference
of the gradients, and the time of the matrix products of the batched engine's step alone at the rate of a plain product
in the same process. Peak memory is measured in a separate process. Finished cases are kept: the same command continues
after an interruption.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from functools import partial
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.common.command import ending_plainly, make_folders
from benchmarks.common.folders import RESULTS, ROOT, WORK
from metarec.errors import InputError

__all__ = ["main"]

LIBRARIES = ("torch", "learn2learn", "higher", *(["torchopt"] if find_spec("torchopt") else []), "numpy")
CODE = (
    "metarec/fusion",
    "metarec/meta",
    "metarec/episodes/_batch.py",
    "benchmarks/engines/cases.py",
    "benchmarks/engines/run.py",
)
MEMORY = (("learn2learn", 32), ("higher", 32), ("vmap", 32), ("batched", 32), ("batched", 1024))
"""Contestants and numbers of tasks of the base case for peak memory."""

PEAK = """
import re, sys, torch
from dataclasses import replace
from pathlib import Path
from benchmarks.engines.cases import BASE, make_step
torch.set_num_threads(1)
# VmHWM is the peak of this process; the maximum of getrusage is inherited from the parent process.
def most():
    return int(re.search(r"VmHWM:\\s*(\\d+)", Path("/proc/self/status").read_text())[1])
make_step(sys.argv[1], replace(BASE, tasks=2))()
step = make_step(sys.argv[1], replace(BASE, tasks=int(sys.argv[2])))
Path("/proc/self/clear_refs").write_text("5")
before = most()
step()
print(before, most())
"""
"""The script of a separate process: prints KiB before a step, and the peak in it."""


def run(rounds: int, seconds: float, work: Path, out: Path, target: Path, arguments: Sequence[str]) -> None:
    """Measure the cases that are missing, and write the report."""

    from benchmarks.common.machine import describe_run
    from benchmarks.common.terminal import Board
    from benchmarks.engines.cases import CASES
    from metarec.cells import Cell, CellStore, run_cells
    from metarec.files import code_facts

    root = ROOT
    store = CellStore(work)
    facts = {
        **code_facts(CODE, LIBRARIES, root),
        "rounds": rounds,
        "seconds": seconds,
    }
    cells = {case: Cell({"benchmark": "engines", "case": case.name}, facts) for case in CASES}
    cells_of_memory = {
        (name, tasks): Cell({"benchmark": "engines", "memory": name, "tasks": tasks}, facts) for name, tasks in MEMORY
    }
    start = time.perf_counter()
    with Board() as board:
        expected: dict[str, float] = {}
        for case, cell in cells.items():
            if not store.finished(cell):
                run_cells([cell], partial(_case, case, rounds, seconds, expected), store)
                board.say(f"{case.name}  {store.load(cell).seconds:.0f} s")  # type: ignore[union-attr]
            if not expected:
                expected = _medians(store.load(cell).frames["times"])  # type: ignore[union-attr]
        for (name, tasks), cell in cells_of_memory.items():
            if not store.finished(cell):
                run_cells([cell], partial(_memory, name, tasks, root), store)
                board.say(f"memory of {name}, {tasks} tasks")
    found = [(case, store.load(cell)) for case, cell in cells.items()]
    memory = {key: store.load(cell) for key, cell in cells_of_memory.items()}
    described = {
        **describe_run("benchmarks.engines", arguments, LIBRARIES, root),
        "duration_s": time.perf_counter() - start,
        "rounds": rounds,
    }
    report = _report(found, memory, described)
    target.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    text = _markdown(report)
    (out / "engines.md").write_text(text, encoding="utf-8")
    from benchmarks.engines.picture import costs_picture

    costs_picture(report["cases"]).savefig(out / "engines.png")
    print(text)


def _case(case: Any, rounds: int, seconds: float, expected: Mapping[str, float], _: Any) -> Any:
    import pandas as pd

    from benchmarks.engines.cases import flops_of, gemm_rate, measure
    from metarec.cells import CellResult

    times = pd.DataFrame(measure(case, rounds=rounds, seconds=seconds, expected=expected))
    return CellResult({"times": times}, {"flops": flops_of(case), "gemm_flops": gemm_rate(case.threads)})


def _memory(name: str, tasks: int, root: Path, _: Any) -> Any:
    from metarec.cells import CellResult

    command = [sys.executable, "-c", PEAK, name, str(tasks)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=root)
    before, after = (int(part) for part in done.stdout.split()[-2:])
    return CellResult({}, {"before_mib": before / 1024, "peak_mib": after / 1024})


def _medians(times: Any) -> dict[str, float]:
    medians: dict[str, float] = times.groupby("contestant", sort=False)["seconds"].median().to_dict()
    return medians


def _report(found: Sequence[Any], memory: Mapping[Any, Any], described: Mapping[str, Any]) -> dict[str, Any]:
    from dataclasses import asdict

    cases = []
    for case, result in found:
        rows = result.frames["times"].groupby("contestant", sort=False)
        medians = rows["seconds"].median()
        cases.append(
            {
                "name": case.name,
                **asdict(case),
                "flops": result.notes["flops"],
                "gemm_flops_per_s": result.notes["gemm_flops"],
                "products_s": result.notes["flops"] / result.notes["gemm_flops"],
                "contestants": {
                    name: {
                        "median_s": float(medians[name]),
                        "low_s": float(own["seconds"].min()),
                        "high_s": float(own["seconds"].max()),
                        "rounds": len(own),
                        "steps_per_s": 1 / float(medians[name]),
                        "gradient_difference": float(own["difference"].iloc[0]),
                    }
                    for name, own in rows
                },
            }
        )
    peaks = [{"contestant": name, "tasks": tasks, **result.notes} for (name, tasks), result in memory.items()]
    growth = [row for key in ("tasks", "steps") for row in _growth(cases, key)]
    return {"benchmark": "engines", "run": dict(described), "cases": cases, "growth": growth, "memory": peaks}


def _growth(cases: Sequence[Mapping[str, Any]], key: str) -> list[dict[str, Any]]:
    """How the time of `batched` grows along one axis through the base case, from each size to the next."""
    from dataclasses import asdict

    from benchmarks.engines.cases import BASE

    base = {name: value for name, value in asdict(BASE).items() if name != key}
    along = sorted(
        (case for case in cases if all(case[name] == value for name, value in base.items())), key=lambda case: case[key]
    )
    return [
        {
            "of": key,
            "from": before[key],
            "to": after[key],
            "times_as_large": after[key] / before[key],
            "times_as_long": after["contestants"]["batched"]["median_s"] / before["contestants"]["batched"]["median_s"],
        }
        for before, after in pairwise(along)
    ]


def _markdown(report: Mapping[str, Any]) -> str:
    names = list(dict.fromkeys(name for case in report["cases"] for name in case["contestants"]))
    lines = [
        "# The cost of a meta-step",
        "",
        "Milliseconds for the meta-loss and its gradient, dropout off: medians, interleaved, in brackets the fastest",
        "and the slowest. The base case is the attention network with 128 and 64 hidden units, 5 bases with 16",
        "features, 32 tasks with 10 support and 10 query rows, 5 inner steps, second order, 1 thread; the other cases",
        "differ from it as named. Products: the time of the matrix products of `batched` alone at the rate",
        "of a plain product of matrices. Apart: the largest difference of any entry of `batched`'s gradient from",
        "learn2learn's, relative to the largest entry.",
        "",
        f"| case | {' | '.join(names)} | products | apart | × learn2learn | × higher | × products |",
        "|---|" + "---|" * (len(names) + 5),
    ]
    for case in report["cases"]:
        own = case["contestants"]
        ours = own["batched"]["median_s"]
        ratios = [f"{own[name]['median_s'] / ours:.1f}" if name in own else "" for name in ("learn2learn", "higher")]
        cells = [_time(own.get(name)) for name in names]
        lines.append(
            f"| {case['name'].replace('.', ', ')} | {' | '.join(cells)} | {1000 * case['products_s']:.1f} "
            f"| {own['batched']['gradient_difference']:.0e} | {' | '.join(ratios)} | {ours / case['products_s']:.1f} |"
        )
    lines += [
        "",
        "How many times slower than `batched` the two libraries are, and how many times the products' time `batched`",
        "takes, stand in the last columns. What would have needed more than 40 s for a step is left out.",
        "",
        "How the time of `batched` grows:",
        "",
        "| of | from | to | times as large | times as long |",
        "|---|---|---|---|---|",
        *(
            f"| {row['of']} | {row['from']:,} | {row['to']:,} | {row['times_as_large']:.1f} "
            f"| {row['times_as_long']:.1f} |"
            for row in report["growth"]
        ),
        "",
        "| peak memory | tasks | MiB that the step needs | MiB of the whole process |",
        "|---|---|---|---|",
    ]
    lines += [
        f"| {row['contestant']} | {row['tasks']:,} | {row['peak_mib'] - row['before_mib']:.0f} "
        f"| {row['peak_mib']:.0f} |"
        for row in report["memory"]
    ]
    described = {key: report["run"][key] for key in ("command", "date", "commit", "versions", "machine")}
    lines += ["", "```json", json.dumps(described, indent=1), "```", ""]
    return "\n".join(lines)


def _time(row: Mapping[str, float] | None) -> str:
    if row is None:
        return ""
    return f"{1000 * row['median_s']:,.1f} [{1000 * row['low_s']:,.1f}, {1000 * row['high_s']:,.1f}]"


def main(
    rounds: Annotated[int, typer.Option(help="Meta-steps of each contestant in a case, if they are not slow.")] = 15,
    seconds: Annotated[float, typer.Option(help="About how long a case may take.")] = 60.0,
    work: Annotated[Path, typer.Option(metavar="DIR", help="Where finished cases are kept.")] = WORK,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where the report goes.")] = RESULTS,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="All numbers; by default in --out.")
    ] = None,
) -> None:
    """Compare the engines: time, memory, and the gradients themselves.

    Exit codes: 0 done; 2 bad input; 130 interrupted, to be continued with the same command.
    """
    with ending_plainly():
        if rounds < 3 or not seconds > 0:
            raise InputError(f"--rounds must be >= 3 and --seconds > 0 but got {rounds} and {seconds}")
        make_folders(work, out, *([json_file.absolute().parent] if json_file else []))
        run(rounds, seconds, work, out, json_file or out / "engines.json", sys.argv[1:])


if __name__ == "__main__":
    typer.run(main)
