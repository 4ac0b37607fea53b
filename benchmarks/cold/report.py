"""The report of the benchmark on cold users, as Markdown. Being behind is written as plainly as being ahead."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.common.statistics import Comparison, Section
from metarec.evaluation.metrics import METAREC
from metarec.model.contrasts import NO_INNER_LOOP, STACK

__all__ = ["Sections", "describe", "duration", "markdown", "p_value", "sections_json", "signed", "table"]

Sections = Mapping[tuple[str, int], Section]
"""(set, shots) -> the numbers."""

REFERENCES = (STACK, NO_INNER_LOOP, "best-single", "mean")

_HOW = """\
- Every user with enough ratings is a test user in exactly one fold, never seen by any base, stacker or network that
  predicts them. All numbers are over all folds together.
- RMSE and MAE are in the set's own units. metarec's are means over {seeds} training seeds (± standard deviation).
- Gain: how much lower metarec's RMSE is, in percent; in brackets the 95 % bootstrap interval over users. A negative
  gain means that metarec is behind. In paired comparisons a user's squared error is the mean over the seeds.
- p: Wilcoxon signed-rank, two-sided, over users; Holm-corrected over all models, sets and shots of this report.
- Verdict: **better** takes a corrected p below 0.05, **worse** an uncorrected one; both take a gain and a rank
  difference of the same sign, otherwise the verdict is **mixed**.
- `stack` is the convex combination of all stackers without networks; what meta-learning adds is the gain on it.
  `no-inner-loop` is metarec with networks that are trained without inner steps; what the inner loop adds is the gain on
  it. `stack-mean` is the plain mean of ridge, fwls and gbm, and `network` the best trial's network alone.
- The best baseline is the one with the lowest RMSE on these test users: the hardest opponent, chosen with hindsight.
- nDCG@10 is LensKit's, over the user's query items, with the rating as gain; its tests are made in the same way.
"""


def sections_json(sections: Sections) -> dict[str, dict[str, Any]]:
    """set -> shots -> all numbers."""
    result: dict[str, dict[str, Any]] = {}
    for (name, shots), section in sections.items():
        result.setdefault(name, {})[str(shots)] = section.to_json()
    return result


def markdown(sections: Sections, run: Mapping[str, Any], scales: Mapping[str, str]) -> str:
    """A summary over sets and shots, and the table of each.

    Args:
        run: where the numbers come from: `command`, `date`, `commit`, `versions`, `machine`, `duration_s`, `seeds`.
        scales: set -> its rating scale in words.
    """
    parts = ["# Cold users", _HOW.format(seeds=run["seeds"]), "## Summary", _count(sections), _summary(sections)]
    for name in dict.fromkeys(name for name, _ in sections):
        parts.append(f"## {name} ({scales[name]})")
        parts += [_whole(shots, section) for (own, shots), section in sections.items() if own == name]
    parts += ["## The run", describe(run)]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def _count(sections: Sections) -> str:
    """How often metarec is better and worse than its hardest opponent, in one sentence."""
    verdicts = [section.rmse[section.best_baseline].verdict for section in sections.values()]
    ahead = [section.rmse[section.best_baseline].difference > 0 for section in sections.values()]
    return f"{_adds(sections, 'meta-learning', STACK)}{_adds(sections, 'the inner loop', NO_INNER_LOOP)}" + (
        f"Against the best baseline of each of the {len(verdicts)} lines below, metarec's RMSE is lower in "
        f"{sum(ahead)} and not lower in {len(ahead) - sum(ahead)}; the verdict is better in "
        f"{verdicts.count('better')}, worse in {verdicts.count('worse')}, mixed in {verdicts.count('mixed')}, "
        f"no difference in {verdicts.count('no difference')}."
    )


def _adds(sections: Sections, what: str, opponent: str) -> str:
    """What something adds, in one sentence; nothing where the opponent is not there."""
    found = [section.rmse[opponent] for section in sections.values() if opponent in section.rmse]
    if not found:
        return ""
    gains = [one.difference for one in found]
    verdicts = [one.verdict for one in found]
    return (
        f"What {what} adds: metarec's gain on {opponent} is {signed(min(gains), 2)} to {signed(max(gains), 2)} %, "
        f"{signed(sum(gains) / len(gains), 2)} % on average over the {len(found)} lines below. Verdicts: better in "
        f"{verdicts.count('better')}, worse in {verdicts.count('worse')}.\n\n"
    )


def _summary(sections: Sections) -> str:
    heads = ["set", "shots", "users", "metarec", "best baseline", "its RMSE", "gain [95 %]", "p (Holm)", "verdict"]
    heads += [f"gain on {name}" for name in REFERENCES] + ["nDCG@10 − best baseline's", "verdict"]
    lines = []
    for (name, shots), section in sections.items():
        best = section.best_baseline
        against, ranking = section.rmse[best], section.by_ndcg[best]
        ours = section.scores[METAREC]
        lines.append(
            [
                name,
                str(shots),
                f"{ours.n_users:,}",
                f"{ours.rmse:.4f}",
                best,
                f"{section.scores[best].rmse:.4f}",
                _gain(against),
                p_value(against.p_holm),
                _bold(against.verdict),
                *(
                    f"{_gain(section.rmse[other])} {_bold(section.rmse[other].verdict)}"
                    if other in section.rmse
                    else "–"
                    for other in REFERENCES
                ),
                signed(ranking.difference, 4),
                _bold(ranking.verdict),
            ]
        )
    return table(heads, lines)


def _whole(shots: int, section: Section) -> str:
    ours, spread = section.scores[METAREC], section.spread
    lines = []
    for name, row in sorted(section.scores.items(), key=lambda pair: pair[1].rmse):
        against, ranking = section.rmse.get(name), section.by_ndcg.get(name)
        own = name == METAREC
        label = f"**{name}**" if own else f"{name} (alone)" if name in section.bases else name
        lines.append(
            [
                label,
                f"{row.rmse:.4f}" + (f" ± {spread['rmse']:.4f}" if own else ""),
                f"{row.values['mae']:.4f}" + (f" ± {spread['mae']:.4f}" if own else ""),
                f"{row.values['unit_rmse']:.4f}",
                f"{section.ndcg[name]:.4f}",
                *_columns(against, 2, "%"),
                *_columns(ranking, 4),
            ]
        )
    heads = ["model", "RMSE", "MAE", "unit RMSE", "nDCG@10", "metarec's gain [95 %]", "p", "p (Holm)", "verdict"]
    heads += ["metarec's nDCG@10 − its", "p", "p (Holm)", "verdict"]
    title = f"### {shots} shots: {ours.n_users:,} users, {ours.n_ratings:,} ratings"
    note = ""
    if section.n_ranked < ours.n_users:
        note = f"\n\n{ours.n_users - section.n_ranked:,} users gave only the lowest rating and have no nDCG."
    return f"{title}\n\n{table(heads, lines)}{note}"


def _columns(against: Comparison | None, digits: int, unit: str = "") -> list[str]:
    if against is None:
        return ["", "", "", ""]
    shown = _gain(against) if unit else signed(against.difference, digits)
    return [shown, p_value(against.p), p_value(against.p_holm), against.verdict]


def describe(run: Mapping[str, Any]) -> str:
    """Where the numbers come from, as a list."""
    machine = run["machine"]
    memory = f", {machine['memory_gib']} GiB" if machine["memory_gib"] else ""
    return "\n".join(
        [
            f"- `{run['command']}`",
            f"- {run['date']}, commit {run['commit']}",
            f"- this command took {duration(run['duration_s'])}; all cells together {duration(run['cells_s'])}",
            f"- {machine['cpu']}, {machine['cores']} cores{memory}, {machine['system']}",
            "- " + ", ".join(f"{name} {number}" for name, number in run["versions"].items()),
        ]
    )


def _gain(against: Comparison) -> str:
    assert against.interval is not None
    low, high = against.interval
    return f"{signed(against.difference, 2)} % [{signed(low, 2)}, {signed(high, 2)}]"


def signed(value: float, digits: int) -> str:
    """A number with its sign; a minus is as wide as a plus."""
    return f"{value:+.{digits}f}".replace("-", "−")


def p_value(value: float) -> str:
    """A p value, the small ones by their order of magnitude."""
    return f"{value:.1e}" if value < 0.001 else f"{value:.3f}"


def _bold(verdict: str) -> str:
    return f"**{verdict}**" if verdict in ("better", "worse", "mixed") else verdict


def duration(seconds: float) -> str:
    """Seconds, minutes or hours."""
    minutes = round(seconds / 60)
    return f"{seconds:.0f} s" if seconds < 90 else f"{minutes} min" if minutes < 90 else f"{seconds / 3600:.1f} h"


def table(heads: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    rows = [heads, ["---"] * len(heads), *lines]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)
