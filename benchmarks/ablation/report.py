"""The table of the ablation, as JSON values and as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.ablation.cells import CROSSED, STACK
from benchmarks.cold.report import describe, p_value, signed, table
from benchmarks.common.statistics import holm, signed_rank, verdict
from metarec.cells import CellResult
from metarec.evaluation.metrics import paired_gains, scores, squared_errors

__all__ = ["compare_parts", "markdown"]

_HOW = """\
Cold users after {shots} ratings, the folds of `benchmarks.cold`. The networks have the default configuration of a
study, without a search, so that rows differ in one part only. `stack` is the convex combination of all stackers;
`stack +` is the same with one network. Models with `{crossed}` are cross-fitted: each member is fitted four times, each
time stopped and tuned on another quarter of train and validation users.

- Gain: how much lower the RMSE is than that of `stack`, in percent; in brackets the 95 % bootstrap interval over users.
- p: Wilcoxon signed-rank test of the users' mean squared errors, two-sided; Holm-corrected over all rows of this
  report.
- Seconds: the fits of all members of one fold on one core, the mean over the folds. The members share the bases.
"""


def compare_parts(found: Mapping[str, Sequence[CellResult]]) -> dict[str, dict[str, Any]]:
    """Set -> the numbers of users and ratings, and of each model: RMSE, seconds, gain on `stack`, interval, p, verdict.

    Args:
        found: set -> the cells of its folds.
    """
    rows = {
        name: pd.concat([cell.frames["rows"] for cell in cells], ignore_index=True) for name, cells in found.items()
    }
    squared = {name: squared_errors(own) for name, own in rows.items()}
    tests = {}
    for name, own in squared.items():
        means = own.div(rows[name].groupby("user", sort=False).size(), axis=0)
        for model in own.columns.drop(STACK):
            tests[name, model] = signed_rank((means[STACK] - means[model]).to_numpy())
    corrected = dict(zip(tests, holm([test.p for test in tests.values()]), strict=True))
    sections = {}
    for name, own in squared.items():
        rmse = {model: one.rmse for model, one in scores(rows[name], 1.0).items()}
        models: dict[str, dict[str, Any]] = {}
        for model in own:
            seconds = float(np.mean([cell.notes["seconds"][model] for cell in found[name]]))
            models[model] = {"rmse": rmse[model], "seconds": seconds}
            if model != STACK:
                (gain,) = paired_gains(own[model].to_numpy(), own[[STACK]]).values()
                p_holm = float(corrected[name, model])
                models[model] |= {
                    "gain": gain.percent,
                    "interval": [gain.low, gain.high],
                    "p_holm": p_holm,
                    "verdict": verdict(gain.percent, tests[name, model], p_holm),
                }
        sections[name] = {"n_users": len(own), "n_ratings": len(rows[name]), "models": models}
    return sections


def markdown(sections: Mapping[str, Mapping[str, Any]], run: Mapping[str, Any], shots: int) -> str:
    """The table of each set.

    Args:
        run: where the numbers come from, see :func:`benchmarks.cold.report.describe`.
    """
    parts = ["# What each part of a fusion is worth", _HOW.format(shots=shots, crossed=CROSSED.strip())]
    for name, section in sections.items():
        parts.append(f"## {name}\n\n{section['n_users']:,} users, {section['n_ratings']:,} ratings.")
        lines = [[f"`{model}`", *_cells(own)] for model, own in section["models"].items()]
        parts.append(table(["model", "RMSE", "gain on `stack` [95 %]", "p (Holm)", "verdict", "seconds"], lines))
    parts += ["## The run", describe(run)]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def _cells(own: Mapping[str, Any]) -> list[str]:
    compared = ["", "", ""]
    if "gain" in own:
        low, high = (signed(end, 2) for end in own["interval"])
        compared = [f"{signed(own['gain'], 2)} % [{low}, {high}]", p_value(own["p_holm"]), own["verdict"]]
    return [f"{own['rmse']:.4f}", *compared, f"{own['seconds']:.1f}"]
