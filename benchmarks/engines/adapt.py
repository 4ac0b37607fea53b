"""``python -m benchmarks.engines.adapt``: the time from a new user's ratings to scores of 1,000 items.

This is the use of a trained model: bases that are fitted on train users fold in a new user; each of the user's ratings
is predicted from the others; a fusion network adapts to them; 1,000 items are predicted from all of them. One user at a
time, then 1,000 users in parts. The bar: a new user with 10 ratings is served in 20 ms, bases included, and adapted to
and predicted for in 2 ms, both at the median on one core.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.common.command import ending_plainly, make_folders
from benchmarks.common.folders import RESULTS, ROOT, WORK
from metarec.errors import InputError

__all__ = ["main"]

LIBRARIES = ("torch", "numpy", "pandas", "scipy", "lenskit", "learn2learn", "higher")
SETS = ("ml_latest_small", "goodbooks_5pct")
FOLDER = "METAREC_DATA"
BARS = {"total": 20.0, "fusion": 2.0}
"""Milliseconds at the median, of one user in the first case: everything, and adapting and predicting."""
MANY = 1000
PART = 25
"""Users that are served together: more do not fit a processor's cache."""
MANY_ROUNDS = 3


def run(
    paths: Sequence[Path], items: int, rounds: int, users: int, many: int, work: Path, arguments: Sequence[str]
) -> dict[str, Any]:
    """The report, as JSON values."""
    import pandas as pd

    from benchmarks.common.machine import describe_run
    from benchmarks.common.terminal import Board
    from benchmarks.engines.adapt_cases import CASES, PARTS, in_parts, one_by_one, prepare
    from metarec.ratings import read_domain, simulate_domains
    from metarec.threads import one_thread

    domains = [read_domain(path) for path in paths] or [simulate_domains()["movies"]]
    start, load = time.perf_counter(), _load()
    sets = []
    with Board() as board, one_thread():
        for domain in domains:
            world = prepare(domain, CASES, items=items, cache=work / "cache", on_progress=board.show)
            board.say(f"{domain.name}: prepared, {time.perf_counter() - start:.0f} s")
            rows = pd.DataFrame(one_by_one(world, CASES, rounds=rounds, limit=users))
            rows["fusion"] = rows["adapt"] + rows["predict"]
            board.say(f"{domain.name}: one user at a time, {time.perf_counter() - start:.0f} s")
            bases = list(world.maker.bases)
            parts = [*bases, *PARTS, "fusion", "total"]
            batched = [case for case in CASES if case.engine == "batched"]
            together = pd.DataFrame(
                {"case": case.name, **in_parts(world, case, users=many, part=PART)}
                for _ in range(MANY_ROUNDS)
                for case in batched
            )
            together["fusion"] = together["adapt"] + together["predict"]
            board.say(f"{domain.name}: {many:,} users, {time.perf_counter() - start:.0f} s")
            sets.append(
                {
                    "name": domain.name,
                    "bases": bases,
                    "users": len(world.users),
                    "items": len(world.users[0][1][CASES[0].items]),
                    "one_user_ms": [_alone(case, rows, parts) for case in CASES],
                    "many_users_s": [
                        {"case": case.name, **_rounded(together[together["case"] == case.name][parts].median())}
                        for case in batched
                    ],
                }
            )
    return {
        "benchmark": "adapt",
        "run": {
            **describe_run("benchmarks.engines.adapt", arguments, LIBRARIES, ROOT),
            "duration_s": time.perf_counter() - start,
            "load": {"before": load, "after": _load()},
        },
        "rounds": rounds,
        "many": many,
        "part": PART,
        "bars_ms": BARS,
        "sets": sets,
    }


def _load() -> float | None:
    """The load average over five minutes, which shows other processes on the machine."""
    return round(os.getloadavg()[1], 1) if hasattr(os, "getloadavg") else None


def _alone(case: Any, rows: Any, parts: Sequence[str]) -> dict[str, Any]:
    """The milliseconds of one user in a case: median and 99th percentile by part, and those of the first call."""
    from dataclasses import asdict

    key = asdict(case)
    own = rows[(rows[list(key)] == list(key.values())).all(axis=1)]
    warm = 1000 * own.loc[own["round"] > 0, list(parts)]
    return {
        "case": case.name,
        **key,
        "calls": len(warm),
        "median": _rounded(warm.median()),
        "p99": _rounded(warm.quantile(0.99)),
        "first": _rounded(1000 * own.loc[own["round"] == 0, list(parts)].iloc[0]),
    }


def _rounded(seconds: Mapping[str, float]) -> dict[str, float]:
    return {str(part): round(float(value), 4) for part, value in seconds.items()}


def _markdown(report: Mapping[str, Any]) -> str:
    bars, many = report["bars_ms"], report["many"]
    lines = [
        "# From a user's ratings to scores of 1,000 items",
        "",
        "A new user with 10 ratings, on one core: the bases fold the user in (each of the 10 ratings is predicted from",
        "the other 9, each item from all 10), features are made, the network adapts, the items are predicted.",
        "Milliseconds, median and in brackets the 99th percentile. Fusion is adapting and predicting. `rated most` are",
        "the items with the most ratings, for which the bases have the most to compute; `drawn` is any of them.",
        "It is one network: a study's model has the networks of up to three trials, and stackers besides.",
    ]
    for one in report["sets"]:
        first = one["one_user_ms"][0]
        verdict = ", ".join(
            f"{part} {first['median'][part]:.1f} ms of {bar:g}" + ("" if first["median"][part] < bar else " (MISSED)")
            for part, bar in bars.items()
        )
        lines += [
            "",
            f"## {one['name']}: {one['items']:,} items, {one['users']} users",
            "",
            f"The bar, for the first case: {verdict}.",
            "",
            "| case | total | bases | features | adapt | predict | fusion | the first call's fusion |",
            "|---|---|---|---|---|---|---|---|",
        ]
        for case in one["one_user_ms"]:
            median, p99 = case["median"], case["p99"]
            lines.append(
                f"| {case['case']} | {median['total']:.1f} [{p99['total']:.1f}] "
                f"| {sum(median[base] for base in one['bases']):.1f} | {median['features']:.1f} "
                f"| {median['adapt']:.2f} | {median['predict']:.2f} | {median['fusion']:.2f} [{p99['fusion']:.2f}] "
                f"| {case['first']['fusion']:.1f} |"
            )
        parts = ", ".join(f"{base} {first['median'][base]:.2f}" for base in one["bases"])
        lines += [
            "",
            f"The bases of the first case: {parts}.",
            "",
            f"| {many:,} users, {PART} at a time | seconds | ms a user | bases | features | adapt | predict |",
            "|---|---|---|---|---|---|---|",
        ]
        for case in one["many_users_s"]:
            per_user = {part: 1000 * value / many for part, value in case.items() if part != "case"}
            lines.append(
                f"| {case['case']} | {case['total']:.2f} | {per_user['total']:.2f} "
                f"| {sum(per_user[base] for base in one['bases']):.2f} | {per_user['features']:.2f} "
                f"| {per_user['adapt']:.2f} | {per_user['predict']:.2f} |"
            )
    described = {key: report["run"][key] for key in ("command", "date", "commit", "versions", "machine", "load")}
    lines += ["", "```json", json.dumps(described, indent=1), "```", ""]
    return "\n".join(lines)


def _sets(paths: Sequence[Path]) -> list[Path]:
    """The given paths, else the default sets in the folder of sets, else none."""
    folder = os.environ.get(FOLDER)
    chosen = list(paths) or ([Path(folder) / name for name in SETS] if folder else [])
    for path in chosen:
        if not path.exists():
            raise InputError(f"{path}: there are no ratings; give another --data, or name a folder of sets in {FOLDER}")
    return chosen


def main(
    data: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="PATH",
            help=f"Ratings; by default two of the sets in {FOLDER}, or the simulated movies where it is not set.",
        ),
    ] = None,
    items: Annotated[int, typer.Option(help="The number of items that are scored for a user.")] = 1000,
    rounds: Annotated[int, typer.Option(help="How often each user is served in each case.")] = 5,
    users: Annotated[int, typer.Option(help="How many users are served one at a time, at most.")] = 100,
    many: Annotated[int, typer.Option(help="How many users are served in parts.")] = MANY,
    work: Annotated[Path, typer.Option(metavar="DIR", help="Where predictions for training are kept.")] = WORK,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where the report goes.")] = RESULTS,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="All numbers; by default in --out.")
    ] = None,
) -> None:
    """How long it takes to serve a new user, bases included.

    Exit codes: 0 done; 2 bad input; 130 interrupted.
    """
    with ending_plainly(after_interruption=""):
        for name, value in (("--items", items), ("--rounds", rounds), ("--users", users), ("--many", many)):
            if value < 1:
                raise InputError(f"{name} must be >= 1 but got {value}")
        make_folders(work, out, *([json_file.absolute().parent] if json_file else []))
        report = run(_sets(data or []), items, rounds, users, many, work, sys.argv[1:])
        (json_file or out / "adapt.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
        text = _markdown(report)
        (out / "adapt.md").write_text(text, encoding="utf-8")
        print(text)


if __name__ == "__main__":
    typer.run(main)
