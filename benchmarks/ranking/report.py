"""The comparison of lists, corrected over all sets and shots, and its report as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.cold.report import describe, p_value, signed, table
from benchmarks.common.statistics import holm, signed_rank, verdict
from benchmarks.ranking.sets import RANKING_SETS
from metarec.cells import CellResult
from metarec.episodes import MIN_USERS
from metarec.evaluation.metrics import METAREC
from metarec.evaluation.ranking import NDCG, RANKING_METRICS, paired_ndcg_gains
from metarec.model.contrasts import CONTRASTS, STACK

__all__ = ["RankingSection", "compare_lists", "markdown"]

BEST_SINGLE = "best-single"

_SPLITS = {
    "users": """\
- Every user with enough events is a test user in exactly one fold. No base, ranker or network was fitted on a test
  user.
""",
    "time": """\
- The events of a set are cut in time: 80 % are before the cut. No base, ranker or network was fitted or chosen on an
  event of the cut or after it. A base is not fitted on a user that it ranks for.
- Warm users have events before the cut, cold users do not. Both have at least one new item after their history.
  A set with fewer than {least} test users of one kind has no table of it.
""",
}

_HOW = """\
- The metrics are over the whole catalogue, without the user's own events. A relevant item that no base proposes is
  missed. They are means over users, and over {seeds} training seeds of metarec.
- Gain: how much higher metarec's nDCG@10 is, in percent; in brackets the 95 % bootstrap interval over users.
- p: Wilcoxon signed-rank test, two-sided, over users; Holm-corrected over all opponents, sets and shots of this report.
- Verdict: **better** takes a corrected p below 0.05, **worse** an uncorrected one; both take a gain and a rank
  difference of the same sign, otherwise the verdict is **mixed**.
- `best-single` is the base with the highest nDCG@10 on validation users. {bases} The
  best opponent is the ranker or combination without networks with the highest nDCG@10 on these test users, in
  hindsight.
- `stack` is the same combination without networks: what meta-learning adds is the gain on it.
"""


@dataclass(frozen=True)
class RankingSection:
    """The numbers of one set after one number of shots.

    Attributes:
        models: model -> metric -> mean over users. coverage: model -> share of the catalogue in the lists.
        comparisons: opponent -> difference in percent, interval, p, p_holm, effect, verdict.
        opponents: rankers and combinations without networks. proposed: share of relevant items among the candidates.
    """

    models: Mapping[str, Mapping[str, float]]
    coverage: Mapping[str, float]
    comparisons: Mapping[str, Mapping[str, Any]]
    opponents: Sequence[str]
    n_users: int
    proposed: float

    @property
    def best_opponent(self) -> str:
        """The opponent with the highest nDCG@10 on the test users."""
        return max(self.opponents, key=lambda name: (self.models[name][NDCG], name))

    def to_json(self) -> dict[str, Any]:
        """The section as JSON values."""
        return {
            "n_users": self.n_users,
            "proposed": self.proposed,
            "best_opponent": self.best_opponent,
            "models": {name: {**values, "coverage": self.coverage[name]} for name, values in self.models.items()},
            "comparisons": {name: dict(own) for name, own in self.comparisons.items()},
        }


def compare_lists(found: Mapping[tuple[str, int], Sequence[CellResult]]) -> dict[tuple[str, int], RankingSection]:
    """The sections of all cells, tests corrected over all of them.

    Args:
        found: (set, shots) -> the cells of all folds and seeds.
    """
    tables = {key: _by_user(cells) for key, cells in found.items()}
    tests = {
        (key, name): signed_rank((own[METAREC] - own[name]).to_numpy())
        for key, own in ((key, metrics[NDCG]) for key, metrics in tables.items())
        for name in own.columns.drop(METAREC)
    }
    corrected = dict(zip(tests, holm([test.p for test in tests.values()]), strict=True))
    sections = {}
    for key, metrics in tables.items():
        own = metrics[NDCG]
        gains = paired_ndcg_gains(own[METAREC].to_numpy(), own.drop(columns=METAREC))
        comparisons = {}
        for name, gain in gains.items():
            test, p_holm = tests[key, name], float(corrected[key, name])
            comparisons[name] = {
                "difference": gain.percent,
                "interval": [gain.low, gain.high],
                "p": test.p,
                "p_holm": p_holm,
                "effect": test.effect,
                "verdict": verdict(gain.percent, test, p_holm),
            }
        cells = found[key]
        bases = cells[0].notes["bases"]
        networks = {METAREC, *CONTRASTS} - {STACK, "stack-mean"}
        sections[key] = RankingSection(
            {name: {metric: float(values[name].mean()) for metric, values in metrics.items()} for name in own},
            {name: float(np.mean([cell.notes["coverage"][name] for cell in cells])) for name in own},
            comparisons,
            [name for name in own if name not in networks and name not in bases],
            len(own),
            float(np.mean([cell.notes["proposed"] for cell in cells])),
        )
    return sections


def markdown(sections: Mapping[tuple[str, int], RankingSection], run: Mapping[str, Any]) -> str:
    """A summary over sets and shots, and the table of each.

    Args:
        sections: by the set, with the part of the users after a space where there are several, and the shots.
        run: where the numbers come from, see :func:`benchmarks.cold.report.describe`, with `seeds`, `tune_bases` and
            `split`.
    """
    title = "# Lists for cold users" if run["split"] == "users" else "# Lists after a cut in time"
    values = {"seeds": run["seeds"], "bases": _bases(run["tune_bases"]), "least": MIN_USERS}
    how = (_SPLITS[run["split"]] + _HOW).format(**values)
    parts = [title, how, "## Summary", _summary(sections)]
    for (name, shots), section in sections.items():
        of_set = RANKING_SETS[name.partition(" ")[0]]
        chosen = " (defaults of the bases were chosen on its validation users)" if of_set.chosen_on else ""
        parts.append(f"## {name}, {shots} events{chosen}")
        parts.append(
            f"{section.n_users:,} users; the bases propose {100 * section.proposed:.0f} % of what is relevant."
        )
        parts.append(_models(section))
    parts += ["## The run", describe(run)]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def _bases(trials: int) -> str:
    """How the settings of the bases were chosen."""
    if not trials:
        return "The bases have their default settings."
    return f"The settings of each base are the best of {trials} trials on validation users, the defaults among them."


def _summary(sections: Mapping[tuple[str, int], RankingSection]) -> str:
    rows = []
    for (name, shots), section in sections.items():
        best = section.best_opponent
        rows.append(
            [
                name,
                str(shots),
                f"{section.n_users:,}",
                f"{section.models[METAREC][NDCG]:.4f}",
                *(_gain(section, opponent) for opponent in (BEST_SINGLE, STACK)),
                best,
                _gain(section, best),
            ]
        )
    heads = ["set", "events", "users", "metarec's nDCG@10", "gain on best-single", "gain on stack", "best opponent"]
    return table([*heads, "gain on it"], rows)


def _models(section: RankingSection) -> str:
    rows = []
    for name, values in sorted(section.models.items(), key=lambda pair: -pair[1][NDCG]):
        own = section.comparisons.get(name)
        compared = ["", "", ""]
        if own is not None:
            compared = [_gain(section, name), p_value(own["p"]), p_value(own["p_holm"])]
        metrics = [f"{values[metric]:.4f}" for metric in RANKING_METRICS]
        rows.append([name, *metrics, f"{section.coverage[name]:.3f}", *compared])
    heads = ["model", *(metric.label for metric in RANKING_METRICS.values()), "coverage"]
    return table([*heads, "metarec's gain [95 %]", "p", "p (Holm)"], rows)


def _gain(section: RankingSection, opponent: str) -> str:
    own = section.comparisons[opponent]
    low, high = own["interval"]
    outcome = f"**{own['verdict']}**" if own["verdict"] in ("better", "worse") else own["verdict"]
    return f"{signed(own['difference'], 2)} % [{signed(low, 2)}, {signed(high, 2)}] {outcome}"


def _by_user(cells: Sequence[CellResult]) -> dict[str, pd.DataFrame]:
    """Metric -> a row for each user, a column for each model: the mean over the seeds."""
    rows = pd.concat([cell.frames["users"] for cell in cells], ignore_index=True)
    pivot = rows.pivot_table(index="user", columns="model", values=list(RANKING_METRICS), aggfunc="mean")
    # A model that some fold lacks is left out.
    return {metric: pivot[metric].dropna(axis=1) for metric in RANKING_METRICS}
