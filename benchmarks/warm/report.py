"""The comparison on users with known histories, and its report as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.cold.report import describe, p_value, signed, table
from benchmarks.common.statistics import holm, signed_rank, verdict
from benchmarks.warm.sets import WARM_SETS
from metarec.cells import CellResult
from metarec.evaluation.metrics import METAREC, paired_gains, scores, squared_errors

__all__ = ["WarmSection", "compare_warm", "markdown"]

_HOW = """\
- The users' other ratings are known. The test ratings are those of the published split; no base, stacker or network was
  fitted or chosen on one of them. A fifth of the other ratings is for validation, the rest is in five folds.
- Each base is tuned by {tune_bases} trials on the validation ratings of the fold, and metarec searches {trials} trials.
- RMSE and MAE are in the set's own units, the mean over the folds.
- Gain: how much lower metarec's RMSE is over all test ratings, in percent; in brackets the 95 % bootstrap interval over
  users. A negative gain means that metarec is behind.
- p: Wilcoxon signed-rank test of the users' mean squared errors, two-sided; Holm-corrected over all models and sets of
  this report. Verdict: **better** takes a corrected p below 0.05, **worse** an uncorrected one; both take a gain and a
  rank difference of the same sign, otherwise the verdict is **mixed**.
- `stack` is the convex combination of all stackers without networks: what meta-learning adds is the gain on it.
- The models do not use the time of a test rating. In italics: as published by others.
"""


@dataclass(frozen=True)
class WarmSection:
    """The numbers of one set.

    Attributes:
        rmse, mae: model -> one number for each fold, in the set's units.
        comparisons: model -> difference in percent, interval, p, p_holm, effect, verdict.
    """

    rmse: Mapping[str, Sequence[float]]
    mae: Mapping[str, Sequence[float]]
    comparisons: Mapping[str, Mapping[str, Any]]
    n_users: int
    n_ratings: int

    def to_json(self) -> dict[str, Any]:
        """The section as JSON values."""
        models = {
            name: {
                "rmse": float(np.mean(self.rmse[name])),
                "mae": float(np.mean(self.mae[name])),
                "rmse_by_fold": list(self.rmse[name]),
            }
            for name in self.rmse
        }
        counts = {"n_users": self.n_users, "n_ratings": self.n_ratings}
        return {**counts, "models": models, "comparisons": {name: dict(own) for name, own in self.comparisons.items()}}


def compare_warm(found: Mapping[str, Sequence[CellResult]]) -> dict[str, WarmSection]:
    """The sections of all sets, tests corrected over all of them.

    Args:
        found: set -> the cells of its folds.
    """
    folds = {name: [cell.frames["rows"] for cell in cells] for name, cells in found.items()}
    rows = {name: pd.concat(own, ignore_index=True) for name, own in folds.items()}
    squared = {name: squared_errors(own) for name, own in rows.items()}
    tests = {}
    for name, own in squared.items():
        means = own.div(rows[name].groupby("user", sort=False).size(), axis=0)
        for model in own.columns.drop(METAREC):
            tests[name, model] = signed_rank((means[model] - means[METAREC]).to_numpy())
    corrected = dict(zip(tests, holm([test.p for test in tests.values()]), strict=True))
    sections = {}
    for name, own in squared.items():
        gains = paired_gains(own[METAREC].to_numpy(), own.drop(columns=METAREC))
        comparisons = {
            model: {
                "difference": gain.percent,
                "interval": [gain.low, gain.high],
                "p": tests[name, model].p,
                "p_holm": float(corrected[name, model]),
                "effect": tests[name, model].effect,
                "verdict": verdict(gain.percent, tests[name, model], float(corrected[name, model])),
            }
            for model, gain in gains.items()
        }
        by_fold = [scores(one, 1.0) for one in folds[name]]
        sections[name] = WarmSection(
            {model: [one[model].rmse for one in by_fold] for model in own},
            {model: [one[model].values["mae"] for one in by_fold] for model in own},
            comparisons,
            len(own),
            len(rows[name]),
        )
    return sections


def markdown(sections: Mapping[str, WarmSection], run: Mapping[str, Any]) -> str:
    """The table of each set, published lines among them.

    Args:
        run: where the numbers come from, see :func:`benchmarks.cold.report.describe`, with `tune_bases` and `trials`.
    """
    parts = ["# Users with known histories", _HOW.format(**{name: run[name] for name in ("tune_bases", "trials")})]
    for name, section in sections.items():
        of_set = WARM_SETS[name]
        parts.append(f"## {name}")
        parts.append(f"{of_set.about}. {section.n_ratings:,} test ratings of {section.n_users:,} users.")
        parts.append(_models(section, of_set.published))
    parts += ["## The run", describe(run)]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def _models(section: WarmSection, published: Mapping[str, float]) -> str:
    lines = []
    for model, own in section.rmse.items():
        rmse, mae = float(np.mean(own)), float(np.mean(section.mae[model]))
        cells = [f"`{model}`", f"{rmse:.4f}", f"{mae:.4f}"]
        if model in section.comparisons:
            found = section.comparisons[model]
            cells += [_gain(found), p_value(found["p_holm"]), found["verdict"]]
        else:
            cells += ["", "", ""]
        lines.append((rmse, cells))
    lines += [(rmse, [f"*{model}*", f"{rmse:.4f}", "", "", "", ""]) for model, rmse in published.items()]
    header = ["model", "RMSE", "MAE", "metarec's gain [95 %]", "p (Holm)", "verdict"]
    return table(header, [cells for _, cells in sorted(lines, key=lambda line: line[0])])


def _gain(found: Mapping[str, Any]) -> str:
    low, high = (signed(end, 2) for end in found["interval"])
    return f"{signed(found['difference'], 2)} % [{low}, {high}]"
