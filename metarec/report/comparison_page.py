"""The report of a comparison: one self-contained HTML page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from metarec.compare.cells import StrategyResult
from metarec.compare.plan import AUTO
from metarec.compare.summary import Comparison, Line, Setting, best_of
from metarec.ratings import Domain
from metarec.report.description import Table
from metarec.report.html import html_page
from metarec.transfer.competitors import ORACLE, ORACLE_USERS

__all__ = ["comparison_page", "reasons_text"]

PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{{ c.name }}: report</title>
{{ style }}
</head>
<body>
<h1>{{ c.name }}</h1>
{% for sentence in c.verdicts() + c.sentences() %}<p><b>{{ sentence }}</b></p>
{% endfor %}

<h2>Strategies</h2>
{% for setting, t in tables %}{{ table(setting, t) }}
{% endfor %}
<p>{{ measure.label }} on {{ c.plan.target }}{{ ", scale " ~ c.scale if c.scale }}, mean over
{{ c.plan.seeds }} draw{{ "s" if c.plan.seeds > 1 }} of target users. A star marks the best of a column. The gain is
over scratch, which learns from the target's few users alone, as the baselines do.
{% if c.plan.seeds > 1 %}Its 95 % interval is over draws of users and, within each draw, over its test users. None is
corrected for multiple comparisons.{% else %}With one draw there are no intervals and no test.{% endif %}</p>
{% if oracle %}<p>The oracle {{ oracle }}; it does not count as the best.</p>{% endif %}
{{ pictures("gain_over_scratch") }}

<h2>Data</h2>
{{ table("domains", data) }}
{{ pictures("similarity") }}

{% if chosen %}<h2>Choices of auto, with reasons</h2>
{% for round, value, sentences in chosen %}<h3>{{ round }}: {{ measure.label }} {{ "%.4f"|format(value) }}</h3>
<p>{{ sentences|join(" ") }}</p>
{% endfor %}{% endif %}
</body>
</html>
"""


def comparison_page(
    comparison: Comparison, domains: Mapping[str, Domain], pictures: Sequence[Mapping[str, str]], folder: Path
) -> str:
    """The page; `pictures`: the files in `folder`, with titles and captions."""
    plan = comparison.plan
    rows = [
        [name, d.num_users, d.num_items, len(d.ratings), "" if d.scale is None else str(d.scale)]
        for name, d in domains.items()
    ]
    chosen = [one for one in comparison.results if one.cell.strategy == AUTO]
    return html_page(
        PAGE,
        pictures,
        folder,
        c=comparison,
        measure=plan.measure,
        tables=[(str(setting), _table(comparison, setting)) for setting in comparison.settings()],
        data=Table(["domain", "users", "items", plan.measure.data, "scale"], rows),
        oracle=ORACLE_USERS if ORACLE in plan.strategies else "",
        chosen=[(one.cell.round, one.scores.values[plan.measure.key], _sentences(one)) for one in chosen],
    )


def _table(comparison: Comparison, setting: Setting) -> Table:
    """Strategies by numbers of shots, the best over all of them first."""
    columns = {shots: comparison.lines_of(setting, shots) for shots in comparison.plan.shots}
    best = {shots: best_of(column, comparison.plan.measure) for shots, column in columns.items()}
    rows = []
    for line in sorted(comparison.lines_of(setting, None), key=_order):
        cells = []
        for shots, column in columns.items():
            own = next(one for one in column if one.strategy == line.strategy)
            cells.append(f"{own.value:.4f}{'*' if best[shots] == line.strategy else ''}")
        gain, verdict = ("", "") if line.gain is None else (str(line.gain), line.gain.verdict)
        rows.append([line.strategy, *cells, gain, verdict])
    return Table(["strategy", *(f"{shots} shots" for shots in columns), "gain over scratch, all shots", "it is"], rows)


def _order(line: Line) -> float:
    return 0.0 if line.gain is None else -line.gain.percent


def _sentences(result: StrategyResult) -> list[str]:
    return list(reasons_text(result.reasons)) or ["It gives no reasons."]


def reasons_text(reasons: Mapping[str, Any]) -> Iterator[str]:
    """What :class:`~metarec.transfer.strategies.auto.AutoModel` chose and why, in sentences.

    >>> for sentence in reasons_text({"transfers": False, "instead": {"ridge": 1.0}, "untouched_gain": -0.2}):
    ...     print(sentence)
    It transfers nothing; its weights: ridge 1.00.
    Without a step to the domain, the sources' models lose 20.0 % over the bases' mean.
    """
    weights = reasons.get("shares") or reasons.get("instead") or {}
    named = ", ".join(f"{name.replace('_', ' ')} {weight:.2f}" for name, weight in weights.items() if weight >= 0.005)
    if reasons.get("transfers"):
        yield f"{reasons['share']:.0%} of the weight is on the sources' models; all weights: {named}."
        yield (
            f"It expects {reasons['predicted_gain']:+.2f} % over the simplest alternative, and "
            f"{reasons['transferred_gain']:+.2f} % over the mixture without the sources' models "
            f"(with probability {reasons['confidence']:.2f} above 0)."
        )
    elif named:
        yield f"It transfers nothing; its weights: {named}."
    if "untouched_gain" in reasons:
        gain = 100 * reasons["untouched_gain"]
        change = "gain" if gain >= 0 else "lose"
        yield f"Without a step to the domain, the sources' models {change} {abs(gain):.1f} % over the bases' mean."
    for name, source in reasons.get("sources", {}).items():
        gains = source["gains_from_the_others"]
        others = f"; as a target it gains {', '.join(f'{gain:+.2f} %' for gain in gains)}" if gains else ""
        yield f"Similarity to {name}: {source['similarity']:.2f}{others}."
