"""The report of a study: one self-contained HTML page, made from the findings and pictures."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

from jinja2 import Environment

from metarec.errors import printable
from metarec.evaluation.segments import FEW_USERS, MEASURES
from metarec.model.contrasts import AVERAGED
from metarec.report import description
from metarec.report.findings import Findings, measure_in

__all__ = ["report_page"]

PAGE = """{% macro table(caption, t) %}{% if t.rows %}<table><caption>{{ caption }}</caption><tr>
{% for cell in t.head %}<th{% if not loop.first %} class="n"{% endif %}>{{ cell }}</th>{% endfor %}</tr>
{% for row in t.rows %}<tr>{% for cell in row %}
<td{% if not loop.first %} class="n"{% endif %}>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}</table>{% endif %}{% endmacro %}
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{{ f.study }}: report</title>
<style>
body { font: 15px/1.5 system-ui, sans-serif; color: #2b2f36; max-width: 860px; margin: 2em auto; padding: 0 1em }
h1 { font-size: 1.7em; margin-bottom: 0.2em } h2 { margin-top: 2em; border-bottom: 2px solid #0072b2 }
table { border-collapse: collapse; margin: 1em 0; font-size: 14px } caption { text-align: left; font-weight: bold }
th, td { padding: 3px 12px 3px 0; border-bottom: 1px solid #e6e8eb; text-align: left; vertical-align: top }
td.n { white-space: nowrap } td.n, th.n { text-align: right; font-variant-numeric: tabular-nums }
tr.ours { font-weight: bold }
code, pre { background: #f4f5f7; padding: 1px 4px; border-radius: 3px; font-size: 13px }
pre { padding: 10px; white-space: pre-wrap; overflow-wrap: anywhere }
figure { margin: 1.5em 0 } figure img { width: 100%; max-width: 800px; height: auto } figcaption { color: #60656e }
.quiet { color: #60656e } dt { font-weight: bold }
@media print {
  body { margin: 0; max-width: none; font-size: 11px } h2 { break-after: avoid }
  figure, tr { break-inside: avoid } details { display: none } figure img { max-width: 17cm }
}
</style>
</head>
<body>
<h1>{{ f.study }}</h1>
<p>{{ f.description }} <span class="quiet">Finished {{ f.finished }}.</span></p>

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
<li>Users are split into train, validation and test. No test user's {{ measure.data }} reach a base's fit, a feature's
statistics, a search or an early stop.</li>
<li>A network learns from predictions of bases that were fitted without that user. Support
{{ measure.data }} are predicted each from the other ones.</li>
<li>Trials are compared, and the best is chosen, on validation users: their errors are too low for the chosen trial. The
chosen model is scored once on the test users, and every model on the same query {{ measure.data }}.</li>
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
    environment = Environment(autoescape=True, trim_blocks=True, finalize=_shown)
    environment.filters["zip"] = zip
    shown = environment.from_string(
        '{% for p in chosen %}<figure><img alt="{{ p.title }}" src="data:image/png;base64,{{ p.data }}">'
        "<figcaption>{{ p.title }}. {{ p.caption }}</figcaption></figure>\n{% endfor %}"
    )

    def pictures(*starts: str) -> Any:
        from markupsafe import Markup

        chosen = [
            {**one, "data": base64.b64encode((folder / one["file"]).read_bytes()).decode()}
            for one in findings["pictures"]
            if one["file"].startswith(starts) and _is_picture(folder, one["file"])
        ]
        # The inner template has escaped the text already.
        return Markup(shown.render(chosen=chosen))

    texts = {name: getattr(description, name) for name in description.__all__}
    page = environment.from_string(PAGE)
    return page.render(
        f=findings,
        measure=measure_in(findings),
        averaged=AVERAGED[measure_in(findings).task],
        pictures=pictures,
        largest=_largest_weights,
        measures={name: one.of(measure_in(findings).data) for name, one in MEASURES.items()},
        few=FEW_USERS,
        **texts,
    )


def _is_picture(folder: Path, file: str) -> bool:
    """Whether a file of this name is in the folder itself. A page has no files of elsewhere, also not by a link."""
    path = folder / file
    return path.parent == folder and path.is_file() and not path.is_symlink()


def _shown(value: object) -> object:
    """What the page shows of a value: text without control characters; the template escapes HTML."""
    return printable(value, keep="\n") if isinstance(value, str) and not hasattr(value, "__html__") else value


def _largest_weights(segment: dict[str, Any]) -> str:
    """The two bases with the largest mean weight in a segment."""
    weights = {name.removeprefix("weight/"): value for name, value in segment.items() if name.startswith("weight/")}
    best = sorted(weights, key=lambda base: -weights[base])[:2]
    return ", ".join(f"{base} {weights[base]:.0%}" for base in best)
