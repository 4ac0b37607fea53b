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

_REFERENCES = (STACK, STACK + CROSSED)

_HOW = """\
Cold users after {shots} ratings, the folds of `benchmarks.cold`. The networks have the default configuration of a
study, without a search, so that rows differ in one part only. `stack` is the convex combination of all stackers;
`stack +` is the same with one network. Models whose names end with `{crossed}` are cross-fitted: each member is fitted
four times, each time stopped and tuned on another quarter of train and validation users.

- Gain: how much lower the RMSE is, in percent; in brackets the 95 % bootstrap interval over users. The fair opponent of
  a cross-fitted model is `stack{crossed}`, which has learned from the same users.
- p: Wilcoxon signed-rank test of the users' mean squared errors, two-sided; Holm-corrected over all rows of this
  report.
- Seconds: the fits of all members of one fold on one core, the mean over the folds. The members share the bases.
"""


def compare_parts(found: Mapping[str, Sequence[CellResult]]) -> dict[str, dict[str, Any]]:
    """Set -> the numbers of users and ratings, and of each model: RMSE, seconds, and comparisons.

    The comparisons are with `stack`, and for a cross-fitted model also with the cross-fitted one: the gain in percent,
    its interval, the corrected p, and the verdict.

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
        for model in own.columns:
            for reference in _references(model):
                tests[name, model, reference] = signed_rank((means[reference] - means[model]).to_numpy())
    corrected = dict(zip(tests, holm([test.p for test in tests.values()]), strict=True))
    sections = {}
    for name, own in squared.items():
        rmse = {model: one.rmse for model, one in scores(rows[name], 1.0).items()}
        models: dict[str, dict[str, Any]] = {}
        for model in own:
            seconds = float(np.mean([cell.notes["seconds"][model] for cell in found[name]]))
            references = _references(model)
            gains = paired_gains(own[model].to_numpy(), own[references])
            comparisons = {
                reference: {
                    "gain": gains[reference].percent,
                    "interval": [gains[reference].low, gains[reference].high],
                    "p_holm": float(corrected[name, model, reference]),
                    "verdict": verdict(
                        gains[reference].percent,
                        tests[name, model, reference],
                        float(corrected[name, model, reference]),
                    ),
                }
                for reference in references
            }
            models[model] = {"rmse": rmse[model], "seconds": seconds, "comparisons": comparisons}
        sections[name] = {"n_users": len(own), "n_ratings": len(rows[name]), "models": models}
    return sections


def _references(model: str) -> list[str]:
    """The stacks that a model is compared with."""
    of_kind = _REFERENCES if model.endswith(CROSSED) else (STACK,)
    return [reference for reference in of_kind if reference != model]


def markdown(sections: Mapping[str, Mapping[str, Any]], run: Mapping[str, Any], shots: int) -> str:
    """The table of each set.

    Args:
        run: where the numbers come from, see :func:`benchmarks.cold.report.describe`.
    """
    parts = ["# What each part of a fusion is worth", _HOW.format(shots=shots, crossed=CROSSED)]
    for name, section in sections.items():
        parts.append(f"## {name}\n\n{section['n_users']:,} users, {section['n_ratings']:,} ratings.")
        lines = [[f"`{model}`", *_cells(own)] for model, own in section["models"].items()]
        heads = [part for reference in _REFERENCES for part in (f"gain on `{reference}` [95 %]", "p (Holm)", "verdict")]
        parts.append(table(["model", "RMSE", *heads, "seconds"], lines))
    parts += ["## The run", describe(run)]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def _cells(own: Mapping[str, Any]) -> list[str]:
    compared = []
    for reference in _REFERENCES:
        found = own["comparisons"].get(reference)
        if found is None:
            compared += ["", "", ""]
        else:
            low, high = (signed(end, 2) for end in found["interval"])
            gain = f"{signed(found['gain'], 2)} % [{low}, {high}]"
            compared += [gain, p_value(found["p_holm"]), found["verdict"]]
    return [f"{own['rmse']:.4f}", *compared, f"{own['seconds']:.1f}"]
