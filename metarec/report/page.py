"""The report of a study: one self-contained HTML page, made from the findings and pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from metarec.evaluation.segments import FEW_USERS, MEASURES
from metarec.model.contrasts import AVERAGED
from metarec.report import description
from metarec.report.findings import Findings, measure_in
from metarec.report.html import html_page

__all__ = ["report_page"]

PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{{ f.study }}: report</title>
{{ style }}
</head>
<body>
<h1>{{ f.study }}</h1>
<p>{{ f.description }} <span class="quiet">Finished {{ f.finished }}.</span></p>
<p><b>{{ headline(f.tables[0], measure) }}</b></p>

<h2>Data</h2>
<table><tr><th>domain</th><th class="n">users</th><th class="n">items</th><th class="n">{{ measure.data }}</th>
<th>scale</th><th>fingerprint</th></tr>
{% for d in f.data %}<tr><td>{{ d.domain }}</td><td class="n">{{ d.users }}</td><td class="n">{{ d["items"] }}</td>
<td class="n">{{ d.ratings }}</td><td>{{ d.scale }}</td><td><code>{{ d.fingerprint[:12] }}</code></td></tr>
{% endfor %}</table>
<p>Target: <b>{{ f.target }}</b>. Network: {{ f.network }}; engine: {{ f.engine }}.
{% if f.transfer %}The target has {{ f.transfer.target_users }} train users ({{ f.transfer.regime }}).{% endif %}</p>
<p>To repeat it, with the file <code>study.yaml</code> of the study's run: <code>{{ f.repeat }}</code></p>
<details><summary>the whole spec</summary><pre>{{ f.spec }}</pre></details>

<h2>Result</h2>
<p>Trial {{ f.best.number }}, with a validation {{ measure.label }} of {{ "%.5f"|format(f.best.value) }}
{{- " on the " ~ measure.unit if measure.unit }}:
{% for name, value in f.best.params.items() %}{{ name }} <b>{{ short(value) }}</b>
{{- ", " if not loop.last }}{% endfor %}.</p>
{% if not f.transfer %}<p>metarec is a combination, weighted on validation users: {{ members_text(f.members) }}.</p>
{% if f.use %}<p>To use it: <code>{{ f.use }}</code></p>{% endif %}{% endif %}

<h2>Comparison with other models</h2>
{% for t in f.tables %}
<table><caption>{{ t.domain }}{{ " (source)" if t.domain != f.target }}{{ ", scale " ~ t.scale if t.scale }}:
n = {{ t.n_users }} test users{{ ", %d ratings"|format(t.n_ratings) if t.n_ratings }}</caption>
<tr><th>model</th>{% for label in columns_of(t, measure.reported).values() %}<th class="n">{{ label }}</th>{% endfor %}
<th class="n">metarec's gain in {{ measure.label }} [95 %]</th><th>metarec is</th></tr>
{% for m in t.models %}<tr{% if not m.gain %} class="ours"{% endif %}><td>{{ m.model }}</td>
{% for name in columns_of(t, measure.reported) %}<td class="n">{{ "%.4f"|format(m[name]) }}</td>{% endfor %}

<td class="n">{{ m.gain.text if m.gain }}</td><td>{{ m.gain.verdict if m.gain }}</td></tr>
{% endfor %}</table>
{% if t.adds %}<p><b>{{ t.adds }}</b></p>{% endif %}
<p>On {{ t.domain }}: {{ verdicts(t)|join("; ") or "there is no other model to compare with" }}.</p>
{% endfor %}
{% if not f.transfer %}<dl><dt>network, stack, stack-mean, no-inner-loop</dt>
<dd>The best trial's network alone; the same combination without networks; the plain mean of
{{ averaged|join(", ") }}; and the same combination of networks that are trained without inner steps.</dd>
</dl>{% endif %}
<p class="quiet">Intervals: paired bootstrap over users, 2000 resamples. Each 95 % interval holds by itself; none
is corrected for multiple comparisons.</p>
{{ pictures("test_", "gains_") }}

<h2>Segments of users</h2>
{% if f.segments %}
<table><tr><th>segment (thirds of test users)</th><th class="n">users</th>
{% if "n_ratings" in f.segments[0] %}<th class="n">ratings</th>{% endif %}
<th class="n">{{ measure.label }} of metarec</th><th class="n">of {{ f.segments[0].reference }}</th>
<th class="n">gain [95 %]</th>
{% if largest(f.segments[0]) %}<th>largest weights</th>{% endif %}</tr>
{% for line, s in segment_lines(f.segments, measure)|zip(f.segments) %}<tr><td>{{ line[0] }}</td>
{%- for cell in line[1:] %}

<td class="n">{{ cell }}</td>{% endfor %}{% if largest(s) %}<td>{{ largest(s) }}</td>{% endif %}</tr>
{% endfor %}</table>
<dl>{% for name, m in measures.items() if name in f.segments|map(attribute="measure") %}
<dt>{{ name.replace("_", " ") }}</dt>
<dd>{{ m.meaning }} ({{ m.unit }})</dd>{% endfor %}</dl>
<p class="quiet">Segments depend on users' support {{ measure.data }}, and on the time of the first query, alone.
⚠ marks fewer than {{ few }} users, which are too few for a conclusion. One in twenty of the
{{ f.segments|length }} intervals of 95 % misses by chance.
{% if largest(f.segments[0]) %}The largest weights are mean weights in the best trial's network.{% endif %}</p>
{% else %}<p>The support {{ measure.data }} do not divide these users into segments.</p>{% endif %}
{{ pictures("segments", "weights", "calibration") }}

<h2>Search and parameter importance</h2>
{{ table("Base recommenders, tuned one by one on validation users", tuned_table(f)) }}
{% if f.importances.reason %}<p>Parameter importance is not available: {{ f.importances.reason }}.</p>
{% else %}<p>Shares of the variance of the error (fANOVA, {{ f.importances.trials }} complete trials: a rough guess):
{% for name, share in f.importances.shares.items() %}{{ name }} <b>{{ "%.0f"|format(100 * share) }}&nbsp;%</b>
{{- ", " if not loop.last }}{% endfor %}.</p>{% endif %}
{{ table("Strategies", strategies_table(f)) }}{{ table("Pareto front", front_table(f)) }}
{{ pictures("search", "learning", "strategies", "importances", "slices", "parallel", "pareto") }}
<p class="quiet">An interactive version is <code>search.html</code> among the artifacts of the study's run.</p>

<h2>Cost</h2>
<p>{{ duration(f.cost.wall_s) }} from the first trial's start to the last one's end, {{ f.cost.workers }} at a time;
{% for state, number in f.cost.trials.items() %}{{ number }} {{ state }}{{ ", " if not loop.last }}{% endfor %};
{{ "%.1f"|format(f.cost.trial_s) }} s a trial.</p>
{{ table("Engines, on the first meta-steps of the best trial", engines_table(f)) }}

<h2>Evaluation protocol</h2>
<ul>
{% if warm %}<li>Ratings are split into train, validation and test; users have ratings in all of them. No test rating
reaches a base's fit, a feature's statistics, a search or an early stop.</li>
<li>A network learns from predictions of bases that were fitted without the predicted ratings. Support ratings are
predicted each from the user's other ones.</li>
{% else %}<li>Users are split into train, validation and test. No test user's {{ measure.data }} reach a base's fit, a
feature's statistics, a search or an early stop.</li>
<li>A network learns from predictions of bases that were fitted without that user. Support
{{ measure.data }} are predicted each from the other ones.</li>
{% endif %}
<li>Trials are compared, and the best is chosen, on validation {{ "ratings" if warm else "users" }}: their errors are
too low for the chosen trial. The chosen model is scored once on the test users, and every model on the same query
{{ measure.data }}.</li>
<li>No prediction depends on the query {{ measure.data }} of test users.</li>
{% if measure.task == "ranking" %}<li>Metrics are over the whole catalogue without the
support items: a relevant item that no base proposed counts as missed.</li>{% endif %}
</ul>
</body>
</html>
"""


def report_page(findings: Findings, folder: Path) -> str:
    """The page.

    Args:
        findings: with ``pictures``, the fields of each :class:`~metarec.report.pictures.Picture`.
        folder: of the pictures' files; a missing picture is left out.
    """
    texts = {name: getattr(description, name) for name in description.__all__}
    return html_page(
        PAGE,
        findings["pictures"],
        folder,
        f=findings,
        measure=measure_in(findings),
        warm=findings.get("protocol") == "warm",
        averaged=AVERAGED[measure_in(findings).task],
        largest=_largest_weights,
        measures={name: one.of(measure_in(findings).data) for name, one in MEASURES.items()},
        few=FEW_USERS,
        **texts,
    )


def _largest_weights(segment: dict[str, Any]) -> str:
    """The two bases with the largest mean weight in a segment."""
    weights = {name.removeprefix("weight/"): value for name, value in segment.items() if name.startswith("weight/")}
    best = sorted(weights, key=lambda base: -weights[base])[:2]
    return ", ".join(f"{base} {weights[base]:.0%}" for base in best)
