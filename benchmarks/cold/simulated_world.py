"""``python -m benchmarks.cold.simulated_world``: fusion against an oracle, in worlds where the truth is given.

In the simulated world each user's ratings follow a mixture of signals, and the mixture decides which base recommender
predicts this user best. The benchmark answers two questions. How much of the distance from the best single base to an
oracle does metarec cover? The oracle knows the best base of every test user. Do the weights of the networks rank the
bases of each user in their true order?
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.common.command import ending_plainly
from metarec.errors import InputError
from metarec.model.contrasts import STACK

__all__ = ["main"]


def run(seeds: int, users: int, folds: int, shots: int) -> dict[str, Any]:
    """One entry for each world: errors on the unit scale over all test users of all folds, and rank correlations."""
    from benchmarks.cold.baselines import baseline_predictions
    from benchmarks.cold.models import propose, weights_of
    from benchmarks.cold.oracle import judge, summary
    from metarec.bases import BASES
    from metarec.episodes import EpisodeSettings, cross_validate
    from metarec.ratings import simulate_world
    from metarec.threads import one_thread

    worlds = []
    # The world is a factorisation. This base is its true model and the best one of nearly everybody, so that no choice
    # among the bases would be left.
    bases: dict[str, dict[str, Any]] = {name: {} for name in BASES.names() if name != "bayesian-mf"}
    for seed in range(seeds):
        domain = simulate_world(seed, num_users=users).domains["movies"]
        cross = cross_validate(domain, EpisodeSettings(), bases, shots=(shots,), folds=folds, seed=seed)
        parts = []
        for fold in range(folds):
            episodes = cross.episodes(fold, shots)
            with one_thread():
                baselines, _ = baseline_predictions(episodes, seed)
                fusion = propose(episodes, seed).fusion
                metarec = fusion.predict(episodes.test)[episodes.test.batch.query.mask.numpy()]
            parts.append(judge(episodes.test, baselines, metarec, weights_of(fusion, episodes)))
        worlds.append({"seed": seed, **summary(parts, list(baselines))})
    return {"benchmark": "simulated_world", "users": users, "folds": folds, "shots": shots, "worlds": worlds}


def _described() -> dict[str, Any]:
    from benchmarks.cold.cells import LIBRARIES, ROOT
    from benchmarks.common.machine import describe_run

    return describe_run("benchmarks.cold.simulated_world", sys.argv[1:], LIBRARIES, ROOT)


def _describe(report: dict[str, Any]) -> str:
    lines = [
        "| world | best-single | oracle | metarec | gap closed | by stack | by fwls | by ridge | rank correlation "
        "| of one ranking for everybody | personal part [95 %] |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for world in report["worlds"]:
        low, high = world["rank_interval"]
        closed = " | ".join(f"{100 * world['gap_closed_by'][name]:.0f} %" for name in (STACK, "fwls", "ridge"))
        lines.append(
            f"| {world['seed']} | {world['best_single']:.4f} | {world['oracle']:.4f} | {world['metarec']:.4f} "
            f"| {100 * world['gap_closed']:.0f} % | {closed} | {world['rank_correlation']:.2f} "
            f"| {world['rank_correlation_for_all']:.2f} | {world['rank_personal']:+.2f} [{low:+.2f}, {high:+.2f}] |"
        )
    return "\n".join(lines)


def main(
    json_file: Annotated[Path | None, typer.Option("--json", help="Where to write all numbers.")] = None,
    seeds: Annotated[int, typer.Option(help="How many worlds.")] = 3,
    users: Annotated[int, typer.Option(help="Users of each.")] = 300,
    folds: Annotated[int, typer.Option(help="Folds of users.")] = 5,
    shots: Annotated[int, typer.Option(help="Ratings that a test user has given.")] = 10,
) -> None:
    """Fusion against an oracle that knows the best base of every user."""
    with ending_plainly(after_interruption=""):
        for name, value, least in (("--seeds", seeds, 1), ("--users", users, 50), ("--shots", shots, 1)):
            if value < least:
                raise InputError(f"{name} must be >= {least} but got {value}")
        if json_file and not json_file.absolute().parent.is_dir():
            raise InputError(f"--json {json_file}: cannot be written there; name a file in a folder that exists")
        report = {**run(seeds, users, folds, shots), "run": _described()}
    if json_file:
        json_file.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(_describe(report))


if __name__ == "__main__":
    typer.run(main)
