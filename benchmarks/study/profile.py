"""``python -m benchmarks.study.profile``: where the time of a whole study goes.

The real command, ``python -m metarec.study``, runs in its own process and in a new folder, so that nothing is cached.
A clock measures the functions that it calls (see ``benchmarks/study/clock.py``), and each moment from the start of the
process to its end belongs to one row of the table. Meta-steps and base recommenders are the work itself; all else is
outside. With --against, another checkout runs in turn with this one, for a before and after.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from benchmarks.common.command import ending_plainly
from benchmarks.common.folders import ROOT
from metarec.errors import InputError

if TYPE_CHECKING:
    from benchmarks.study.shares import Profile

__all__ = ["main"]

FAILED = 1
LIBRARIES = ("torch", "mlflow", "optuna", "matplotlib", "lightgbm", "lenskit")


class StudyFailed(RuntimeError):
    """The study itself ended with an error; the message is its last line."""


def run(study: Sequence[str], repeats: int, checkouts: dict[str, Path], arguments: Sequence[str]) -> dict[str, Any]:
    """Run the study `repeats` times in each checkout, in turn: the report.

    Args:
        study: the arguments of ``python -m metarec.study``.
        checkouts: name -> a folder of the repository.
        arguments: those of this command, for the report.

    Raises:
        StudyFailed: a study did not end well.
    """
    from benchmarks.common.machine import describe_run
    from benchmarks.common.terminal import Board
    from benchmarks.study.shares import typical

    profiles: dict[str, list[Profile]] = {name: [] for name in checkouts}
    plain: dict[str, list[float]] = {name: [] for name in checkouts}
    tables = set()
    with Board() as board:
        for number in range(repeats):
            for name, root in checkouts.items():
                profile, table = profile_study(study, root)
                profiles[name].append(profile)
                plain[name].append(_without_clock(study, root))
                tables.add(table)
                board.say(f"round {number}, {name}: {profile.wall:.1f} s, {plain[name][-1]:.1f} s without the clock")
    described = {
        name: describe_run("benchmarks.study.profile", shown(arguments), LIBRARIES, root)
        for name, root in checkouts.items()
    }
    return {
        "benchmark": "study_profile",
        "run": described["now"],
        "study": shown(study),
        "tables_identical": len(tables) == 1,
        "checkouts": {
            name: {
                "commit": described[name]["commit"],
                "typical": typical(profiles[name]).to_json(),
                "rounds": [profile.summary() for profile in profiles[name]],
                "without_clock_s": plain[name],
            }
            for name in checkouts
        },
    }


def profile_study(study: Sequence[str], root: Path) -> tuple[Profile, str]:
    """One study in this checkout: its profile, and its table of test scores as JSON.

    Raises:
        StudyFailed: it did not end well.
    """
    from benchmarks.study.clock import environment, read_timelines
    from benchmarks.study.shares import profile_of

    with tempfile.TemporaryDirectory(prefix="metarec-profile-") as folder:
        clock, result = Path(folder) / "clock", Path(folder) / "result.json"
        started = time.perf_counter()
        command = [*study, "--out", f"{folder}/runs", "--json", str(result)]
        process, ended = _run_study(command, root, environment(clock, root))
        timelines, cpu = read_timelines(clock)
        table = json.dumps(json.loads(result.read_text(encoding="utf-8"))["test"], sort_keys=True)
    return profile_of(timelines, process, started, ended, cpu), table


def _without_clock(study: Sequence[str], root: Path) -> float:
    """Seconds of the same study without the clock."""
    with tempfile.TemporaryDirectory(prefix="metarec-profile-") as folder:
        started = time.perf_counter()
        _, ended = _run_study([*study, "--out", f"{folder}/runs"], root, {**os.environ, "PYTHONPATH": str(root)})
    return ended - started


def _run_study(arguments: Sequence[str], root: Path, environment: dict[str, str]) -> tuple[int, float]:
    """The id of the study's process, and the moment of its end."""
    process = subprocess.Popen(
        [sys.executable, "-m", "metarec.study", *arguments],
        cwd=root,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    with ThreadPoolExecutor(1) as reader:
        # The pipe is closed when the last of its child processes has ended, which is later than its own end.
        errors = reader.submit(process.stderr.read)
        code = process.wait()
        ended = time.perf_counter()
    if code:
        raise StudyFailed(f"the study ended with exit code {code}: {errors.result().strip().split(chr(10))[-1]}")
    return process.pid, ended


def shown(arguments: Sequence[str]) -> list[str]:
    """The arguments for a report, with the folder of the ratings replaced by the name of its variable."""
    data = os.environ.get("METAREC_DATA")
    return [argument.replace(data, "$METAREC_DATA") if data else argument for argument in arguments]


def markdown(report: dict[str, Any]) -> str:
    """The report to read: a table of where the time went, checkout beside checkout."""
    checkouts = report["checkouts"]
    labels = list(dict.fromkeys(label for own in checkouts.values() for label in own["typical"]["rows"]))
    lines = [
        "# Where the time of a study goes",
        "",
        f"`python -m metarec.study {' '.join(report['study'])}`, from the start of the process to its end, on a new",
        "folder. Each moment is counted once, by what the main process does; where that waits for the processes that",
        "fit the bases, by whether one of them fits or predicts. In brackets the CPU seconds of all processes and",
        "threads: where they are less than the wall time of work that never waits, others wanted the same cores. Of",
        "several rounds the one of median length is shown, so the rows add up to the whole.",
        "",
        f"| | {' | '.join(checkouts)} |",
        "|---|" + "---|" * len(checkouts),
    ]
    for label in labels:
        cells = [_cell(own["typical"]["rows"].get(label), own["typical"]["wall_s"]) for own in checkouts.values()]
        lines.append(f"| {label} | {' | '.join(cells)} |")
    for what, key in (
        ("**outside of meta-steps and bases**", "outside_s"),
        ("**the same, validation passes counted as inside**", "outside_but_validation_s"),
        ("**whole**", "wall_s"),
    ):
        cells = [_whole(own["typical"][key], own["typical"]["wall_s"]) for own in checkouts.values()]
        lines.append(f"| {what} | {' | '.join(cells)} |")
    used = " | ".join(f"{own['typical']['cpu_s']:.1f} s" for own in checkouts.values())
    lines.append(f"| CPU of all processes and threads | {used} |")
    lines += ["", "| round by round | whole, s | outside, % | without the clock, s |", "|---|---|---|---|"]
    for name, own in checkouts.items():
        whole = ", ".join(f"{one['wall_s']:.1f}" for one in own["rounds"])
        outside = ", ".join(f"{100 * one['outside_s'] / one['wall_s']:.0f}" for one in own["rounds"])
        plain = ", ".join(f"{seconds:.1f}" for seconds in own["without_clock_s"])
        lines.append(f"| {name} | {whole} | {outside} | {plain} |")
    same = "the same in every round" if report["tables_identical"] else "**not the same** in every round"
    lines += ["", f"The tables of test scores are {same}, to the last digit.", ""]
    described = {key: report["run"][key] for key in ("command", "date", "versions", "machine")}
    described["commits"] = {name: own["commit"] for name, own in checkouts.items()}
    lines += ["```json", json.dumps(described, indent=1), "```", ""]
    return "\n".join(lines)


def _cell(row: dict[str, float] | None, wall: float) -> str:
    if row is None:
        return ""
    return f"{row['wall_s']:.2f} s, {100 * row['wall_s'] / wall:.1f} % [{row['cpu_s']:.2f}]"


def _whole(seconds: float, wall: float) -> str:
    return f"**{seconds:.2f} s, {100 * seconds / wall:.1f} %**"


def main(
    data: Annotated[list[str], typer.Option(metavar="NAME=PATH", help="Ratings of a domain; may be repeated.")],
    spec: Annotated[str, typer.Option(help="The study's spec.")] = "quickstart",
    trials: Annotated[int, typer.Option(metavar="N", help="Trials of the study.")] = 10,
    repeats: Annotated[int, typer.Option(metavar="N", help="How often it is run.")] = 3,
    against: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Another checkout, run in turn, such as the commit before.")
    ] = None,
    json_file: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write all numbers here.")] = None,
) -> None:
    """Profile a whole study.

    Exit codes: 0 done; 1 the study failed; 2 bad input; 130 interrupted.
    """
    with ending_plainly(after_interruption=""):
        for name, value in (("--trials", trials), ("--repeats", repeats)):
            if value < 1:
                raise InputError(f"{name} must be >= 1 but got {value}")
        if json_file and not json_file.absolute().parent.is_dir():
            raise InputError(f"--json {json_file}: cannot be written there; name a file in a folder that exists")
        if against and not (against / "benchmarks" / "study" / "clock.py").is_file():
            raise InputError(
                f"--against {against}: has no benchmarks/study/clock.py; name a checkout with this command"
            )
        study = [spec, *(part for entry in data for part in ("--data", entry)), "--trials", str(trials)]
        checkouts = {"before": against.resolve()} if against else {}
        try:
            report = run(study, repeats, {**checkouts, "now": ROOT}, sys.argv[1:])
        except StudyFailed as error:
            typer.echo(f"error: {error}", err=True)
            raise typer.Exit(FAILED) from None
    if json_file:
        json_file.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(markdown(report))


if __name__ == "__main__":
    typer.run(main)
