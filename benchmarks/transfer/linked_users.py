"""``python -m benchmarks.transfer.linked_users``: the gain from a user's ratings in other domains.

Each domain is the target in turn, the others are its sources, and every round is made twice: with users linked and
without. The same models predict the same ratings of the same test users. The bar: after 0 and after 1 ratings in the
target, linked users have smaller errors.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.common.command import ending_plainly, make_folders
from benchmarks.common.folders import RESULTS, ROOT, WORK
from metarec.cli.command import named_paths
from metarec.errors import InputError

__all__ = ["main"]

LIBRARIES = ("torch", "numpy", "pandas", "scipy", "scikit-learn", "lenskit", "lightgbm")
MODELS = ("mean", "best-single", "model_agnostic")
LEVEL = 0.05


def run(
    data: Mapping[str, Path],
    rounds: Sequence[int],
    shots: Sequence[int],
    target_users: int,
    regime: str,
    work: Path,
    arguments: Sequence[str],
) -> dict[str, Any]:
    """The report, as JSON values."""
    from benchmarks.common.machine import describe_run
    from benchmarks.common.terminal import Board
    from benchmarks.transfer.linked_cells import LinkedPlan, measure
    from metarec.episodes import EpisodeSettings
    from metarec.ratings import read_domain, simulate_domains
    from metarec.registry import suggest
    from metarec.threads import one_thread
    from metarec.transfer import TransferSettings
    from metarec.transfer.rounds import REGIMES

    regimes = {name: name for name in REGIMES}
    if regime not in regimes:
        raise InputError(f'unknown --regime "{regime}"; {suggest(regime, list(REGIMES))}')
    start = time.perf_counter()
    domains = {name: read_domain(path, name) for name, path in data.items()} or simulate_domains()
    plan = LinkedPlan(
        domains,
        rounds,
        shots,
        MODELS,
        target_users,
        regimes[regime],
        EpisodeSettings(),
        TransferSettings(),
        work / "cache",
    )
    with Board() as board, one_thread():
        table = measure(plan, lambda line: board.say(f"{line}, {time.perf_counter() - start:.0f} s"))
    return {
        "benchmark": "linked_users",
        "run": {
            **describe_run("benchmarks.transfer.linked_users", arguments, LIBRARIES, ROOT),
            "duration_s": round(time.perf_counter() - start, 1),
        },
        "regime": regime,
        "rounds": list(rounds),
        "target_users": target_users,
        "domains": {name: {"users": own.num_users, "ratings": len(own.ratings)} for name, own in domains.items()},
        "rows": summarise(table),
    }


def summarise(table: Any) -> list[dict[str, Any]]:
    """A line for each number of shots, target (and all of them), model, and choice of users.

    The users are all test users, and those with ratings elsewhere. RMSE pools their query rows. p is of the two-sided
    Wilcoxon signed-rank test over the users' mean squared errors; a test user of several targets counts once in each.
    """
    from benchmarks.common.statistics import signed_rank

    lines = []
    for whose, chosen in (("all", table), ("with a history elsewhere", table[table["elsewhere"] > 0])):
        for target in [*dict.fromkeys(table["target"]), "all"]:
            own = chosen if target == "all" else chosen[chosen["target"] == target]
            for (shots, model), rows in own.groupby(["shots", "model"], sort=False):
                unlinked, linked = (
                    float((rows[name].sum() / rows["ratings"].sum()) ** 0.5) for name in ("unlinked", "linked")
                )
                test = signed_rank(((rows["unlinked"] - rows["linked"]) / rows["ratings"]).to_numpy())
                gain = 100 * (1 - linked / unlinked)
                lines.append(
                    {
                        "users": whose,
                        "target": target,
                        "shots": int(shots),
                        "model": model,
                        "n_users": len(rows),
                        "n_ratings": int(rows["ratings"].sum()),
                        "unlinked_unit_rmse": round(unlinked, 5),
                        "linked_unit_rmse": round(linked, 5),
                        "gain_percent": round(gain, 3),
                        "p": float(f"{test.p:.3g}"),
                        "effect": round(test.effect, 3),
                        "verdict": _verdict(gain, test.p, test.effect),
                    }
                )
    return lines


def _verdict(gain: float, p: float, effect: float) -> str:
    """A verdict needs the pooled error and the users' ranks to agree."""
    if p >= LEVEL:
        return "no difference"
    if gain * effect <= 0:
        return "mixed"
    return "better" if gain > 0 else "worse"


def _markdown(report: Mapping[str, Any]) -> str:
    lines = [
        "# The gain from a user's ratings in other domains",
        "",
        f'Regime "{report["regime"]}", {report["target_users"]} users of the target, rounds '
        f"{', '.join(map(str, report['rounds']))}. Every round is made with users linked and without; RMSE on the unit",
        "scale, of the same ratings of the same test users. A gain above 0: linked is better. p: Wilcoxon's test over",
        "users, uncorrected; a verdict needs it and the RMSE to point the same way.",
    ]
    for whose in dict.fromkeys(row["users"] for row in report["rows"]):
        lines += [
            "",
            f"## Test users: {whose}",
            "",
            "| target | shots | model | users | unlinked | linked | gain | p | verdict |",
            "|---|---|---|---|---|---|---|---|---|",
        ]
        lines += [
            f"| {row['target']} | {row['shots']} | {row['model']} | {row['n_users']} | {row['unlinked_unit_rmse']:.4f} "
            f"| {row['linked_unit_rmse']:.4f} | {row['gain_percent']:+.2f} % | {row['p']:.2g} | {row['verdict']} |"
            for row in report["rows"]
            if row["users"] == whose
        ]
    described = {key: report["run"][key] for key in ("command", "date", "commit", "versions", "machine", "duration_s")}
    lines += ["", "```json", json.dumps(described, indent=1), "```", ""]
    return "\n".join(lines)


def _numbers(option: str, text: str) -> list[int]:
    """Numbers from the command line, such as 0,1,2."""
    try:
        found = [int(part) for part in text.split(",")]
    except ValueError:
        found = []
    if not found or min(found) < 0:
        raise InputError(f"{option} must be whole numbers >= 0, separated by commas, but got {text!r}")
    return sorted(set(found))


def main(
    data: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=PATH", help="A domain's ratings, twice at least; by default the simulated world."),
    ] = None,
    rounds: Annotated[str, typer.Option(help="Which rounds, separated by commas.")] = "0,1,2",
    shots: Annotated[str, typer.Option(help="Support ratings of a test user in the target.")] = "0,1",
    target_users: Annotated[int, typer.Option(help="The number of target users.")] = 100,
    regime: Annotated[str, typer.Option(help="What is scarce in the target: labels or everything.")] = "labels",
    work: Annotated[Path, typer.Option(metavar="DIR", help="Where predictions are kept.")] = WORK,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where the report goes.")] = RESULTS,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="All numbers; by default in --out.")
    ] = None,
) -> None:
    """Measure the gain from a user's ratings in other domains.

    Exit codes: 0 done; 2 bad input; 130 interrupted, to be continued with the same command.
    """
    with ending_plainly():
        domains = {name: Path(path) for name, path in named_paths(data or []).items()}
        numbers = _numbers("--rounds", rounds), _numbers("--shots", shots)
        make_folders(work, out, *([json_file.absolute().parent] if json_file else []))
        report = run(domains, *numbers, target_users, regime, work, sys.argv[1:])
        (json_file or out / "linked_users.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
        text = _markdown(report)
        (out / "linked_users.md").write_text(text, encoding="utf-8")
        print(text)


if __name__ == "__main__":
    typer.run(main)
