"""``python -m benchmarks.warm --data FOLDER``: known users of MovieLens-100K, on the folds of Surprise's table.

Five folds of rows; within each training fold, five inner parts whose ratings are predicted by bases that were fitted
on the other four. On these out-of-fold predictions a :class:`metarec.model.Fusion` with its default settings learns
(four parts) and is weighed (the fifth); then the bases are fitted on the whole training fold, and all predict the
fold's test rows.

What is used besides ratings: genres and release years, age, gender and occupation, which items a user has rated *in the
training fold*, and the time of day and date of a rating, that of a test row too. A random split lets a user's ratings
of the same minute stand on both sides, and ratings of one session are alike: models that know the time profit, here as
in published work. What is left of that without any timestamp is a line of its own in the table. No test row's rating,
and no test row as implicit feedback, reaches a fit: the functions that predict never get them.

Finished predictions of a base are kept: the same command goes on after an interruption.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import typer

from benchmarks.common.command import ending_plainly
from benchmarks.common.folders import RESULTS, WORK
from metarec.errors import InputError

__all__ = ["Outcome", "main", "run"]

UNTIMED = "ridge without timestamps"
MOVIELENS = "0d60e10972f15cba"

PUBLISHED = (
    ("Surprise SVD", 0.934, 0.737),
    ("Surprise SVD++", 0.919, 0.721),
    ("Surprise k-NN baseline", 0.931, 0.733),
    ("Surprise baseline", 0.944, 0.748),
    ("Surprise co-clustering", 0.963, 0.753),
    ("Auto-Surprise, two hours of search", 0.9116, 0.7244),
)


class Outcome(NamedTuple):
    """Per model RMSE and MAE of each fold, in stars; what was chosen in each fold, and the processor's seconds."""

    rmse: dict[str, list[float]]
    mae: dict[str, list[float]]
    folds: list[dict[str, Any]]


def run(
    table: Any,
    bases: Sequence[Any],
    settings: Any,
    config: Any,
    *,
    parts: int,
    seed: int,
    work: Path,
    say: Any,
) -> Outcome:
    """Compute or read the bases' predictions of all folds, and fuse them.

    Args:
        table: of :func:`benchmarks.warm.data.read_table`. bases: of :mod:`benchmarks.warm.bases`; the first one
            stands in for those that have no prediction.
        settings: :class:`benchmarks.warm.fusion.WarmSettings`. config: of the fusion.
        parts: inner parts, at least 3.
        work: where finished predictions are kept. say: called with a line for each step.
    """
    from benchmarks.warm.cells import Plan, compute_fold, splits_of
    from benchmarks.warm.fusion import fuse, make_episodes
    from metarec.model import FusionConfig
    from metarec.ratings import RatingScale

    scale = RatingScale(float(table.ratings.min()), float(table.ratings.max()))
    plan = Plan(table, tuple(bases), parts, seed, work)
    names = [base.name for base in bases]
    outcome = Outcome({}, {}, [])
    for fold in range(5):
        answers, base_seconds = compute_fold(plan, fold, lambda cell, s: say(f"{cell.name}: {s:.1f} s"))
        start = time.process_time()
        splits = splits_of(plan, fold)
        test = splits[-1]
        fallback = answers["test"][0].ratings
        fallback = np.where(np.isfinite(fallback), fallback, table.ratings[test.known].mean())
        predicted = {
            name: (test.asked, np.where(np.isfinite(answer.ratings), answer.ratings, fallback))
            for name, answer in zip(names, answers["test"], strict=True)
        }
        episodes = make_episodes(table, splits, answers, names, scale, settings)
        fused = fuse(episodes, config, seed=seed)
        predicted |= {name: (episodes.test_rows, values) for name, values in fused.predictions.items()}
        untimed = [number for number, base in enumerate(bases) if not base.timed]
        if len(untimed) < len(bases):
            kept = {part: [own[number] for number in untimed] for part, own in answers.items()}
            plain = make_episodes(
                table, splits, kept, [names[number] for number in untimed], scale, settings, timed=False
            )
            alone = FusionConfig(networks={}, stackers=("ridge",))
            ridge = fuse(plain, alone, seed=seed).predictions["ridge"]
            predicted[UNTIMED] = (plain.test_rows, ridge)
        for name, (rows, values) in predicted.items():
            errors = np.clip(values, scale.low, scale.high) - table.ratings[rows]
            outcome.rmse.setdefault(name, []).append(float(np.sqrt(np.mean(errors**2))))
            outcome.mae.setdefault(name, []).append(float(np.mean(np.abs(errors))))
        outcome.folds.append(
            {
                "chosen": fused.settings,
                "bases_processor_s": base_seconds,
                "fusion_processor_s": time.process_time() - start,
            }
        )
        say(f"fold {fold}: " + ", ".join(f"{name} {values[-1]:.4f}" for name, values in outcome.rmse.items()))
    return outcome


def markdown(outcome: Outcome, about: Mapping[str, str], described: Mapping[str, Any], published: bool) -> str:
    """The report: a table of all models, published lines among them, and where the numbers come from."""
    lines = [
        "# MovieLens-100K, known users" if published else "# Known users (not MovieLens-100K as published)",
        "",
        "Five folds of rows, as in Surprise's published table. RMSE of each fold; means over folds; in stars.",
        "",
        "| model | 1 | 2 | 3 | 4 | 5 | RMSE | MAE |",
        "|---|---|---|---|---|---|---|---|",
    ]
    rows = [
        (float(np.mean(values)), float(np.mean(outcome.mae[name])), [name, *(f"{value:.4f}" for value in values)])
        for name, values in outcome.rmse.items()
    ]
    if published:
        rows += [(rmse, mae, [f"*{name}*", *[""] * 5]) for name, rmse, mae in PUBLISHED]
    lines += [f"| {' | '.join(cells)} | {rmse:.4f} | {mae:.4f} |" for rmse, mae, cells in sorted(rows)]
    lines += ["", "In italics: as published. Bases:", ""]
    lines += [f"- {name}: {text}" for name, text in about.items()]
    lines += ["", "What was chosen on the validation rows of each fold:", ""]
    lines += [
        f"- fold {number}: metarec has the weights {fold['chosen']['metarec']}"
        for number, fold in enumerate(outcome.folds, start=1)
    ]
    run_facts = {key: described[key] for key in ("command", "date", "commit", "versions", "machine", "settings")}
    total = sum(fold["bases_processor_s"] + fold["fusion_processor_s"] for fold in outcome.folds)
    lines += ["", f"Processor time of all parts, one core: {total / 60:.1f} minutes.", "", "```json"]
    lines += [json.dumps(run_facts, indent=1, default=str), "```", ""]
    return "\n".join(lines)


def main(
    data: Annotated[Path, typer.Option(help="Folder of the atomic files of MovieLens-100K (NAME/NAME.inter, ...).")],
    work: Annotated[Path, typer.Option(help="Where finished predictions are kept.")] = WORK,
    out: Annotated[Path, typer.Option(help="Where the report goes.")] = RESULTS,
    json_file: Annotated[Path | None, typer.Option("--json", help="The numbers as JSON.")] = None,
) -> None:
    """MovieLens-100K, known users, on the folds of Surprise's published table."""
    with ending_plainly():
        _report(data, work, out, json_file or out / "warm_ml100k.json", sys.argv[1:])


def _report(data: Path, work: Path, out: Path, target: Path, arguments: Sequence[str]) -> None:
    from benchmarks.common.machine import describe_run
    from benchmarks.warm.bases import WARM_BASES
    from benchmarks.warm.cells import LIBRARIES, ROOT
    from benchmarks.warm.data import read_table
    from benchmarks.warm.fusion import WarmSettings
    from metarec.model import FusionConfig
    from metarec.threads import one_thread

    start = time.perf_counter()
    table = read_table(data)
    settings, config = WarmSettings(), FusionConfig()
    parts, seed = 5, 0
    for folder in (work, out, target.parent):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"{folder} cannot be made: {error.strerror}") from None
    with one_thread():
        outcome = run(table, WARM_BASES, settings, config, parts=parts, seed=seed, work=work, say=typer.echo)
    described = {
        # Where the folders lie is nobody's business but this machine's.
        **describe_run("benchmarks.warm", [Path(argument).name for argument in arguments], LIBRARIES, ROOT),
        "duration_s": time.perf_counter() - start,
        "settings": {
            "inner_parts": parts,
            "seed": seed,
            "episodes": settings._asdict(),
            "fusion": config.model_dump(mode="json"),
            "bases": {base.name: {**base.settings} for base in WARM_BASES},
        },
    }
    published = table.digest == MOVIELENS
    about = {base.name: base.about for base in WARM_BASES}
    (out / "warm_ml100k.md").write_text(markdown(outcome, about, described, published), encoding="utf-8")
    content = {
        "benchmark": "warm_ml100k",
        "run": described,
        "data": {"ratings": len(table.ratings), "digest": table.digest, "as_published": published},
        "models": {
            name: {
                "rmse": values,
                "mae": outcome.mae[name],
                "mean_rmse": float(np.mean(values)),
                "mean_mae": float(np.mean(outcome.mae[name])),
            }
            for name, values in outcome.rmse.items()
        },
        "folds": outcome.folds,
    }
    target.write_text(json.dumps(content, indent=1, default=str) + "\n", encoding="utf-8")
    typer.echo(f"report: {out / 'warm_ml100k.md'}, {target}")


if __name__ == "__main__":
    typer.run(main)
