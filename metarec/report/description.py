"""The Markdown description of a study's run: data, result, comparison, parameter importance, cost and details."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from metarec.evaluation.measures import Measure
from metarec.evaluation.metrics import METAREC
from metarec.evaluation.segments import FEW_USERS, MEASURES, reference_of
from metarec.model.contrasts import NETWORK_ALONE, NO_INNER_LOOP
from metarec.ratings import Domain
from metarec.report.findings import REPEAT, Findings, measure_in
from metarec.study.data import data_of
from metarec.study.results import microseconds
from metarec.study.spec import StudySpec
from metarec.tracking import TAG_LENGTH, markdown_code, markdown_table, markdown_text

__all__ = [
    "FILE",
    "Table",
    "columns_of",
    "duration",
    "engines_table",
    "final_description",
    "fitting",
    "front_table",
    "headline",
    "members_text",
    "running_description",
    "segment_lines",
    "settings_text",
    "short",
    "strategies_table",
    "tuned_table",
    "verdicts",
]


class Table(NamedTuple):
    """The head and the rows of a table, in Markdown or HTML."""

    head: Sequence[str]
    rows: Sequence[Sequence[object]]


FILE = "All tables and pictures are in `report.html`, among the artifacts."

MORE = "The rest is in `report.html`, among the artifacts."

MOST_DOMAINS = 12
"""The table of data has at most this many lines."""


def running_description(spec: StudySpec, domains: Mapping[str, Domain], name: str) -> str:
    """The description while the search runs."""
    transfer = None if spec.transfer is None else spec.transfer.model_dump()
    study = {"study": name, "description": spec.description, "target": spec.target or "", "repeat": REPEAT}
    study["task"] = spec.measure.task
    data = _data({**study, "data": data_of(domains), "transfer": transfer})
    return f"{data}\n\nEach child run is one trial of the search."


def final_description(findings: Findings) -> str:
    """The description of a finished study, cut to the length that the store allows; `report.html` has everything."""
    measure = measure_in(findings)
    parts = [
        f"{markdown_text(headline(findings['tables'][0], measure))} {FILE}",
        _data(findings),
        _result(findings),
        _comparison(findings["tables"][0], measure),
        _importance(findings["importances"]),
        _cost(findings["cost"]),
        _section("Base recommenders", tuned_table(findings)),
        _section("Strategies", strategies_table(findings)),
        _section("Pareto front", front_table(findings)),
        _segments(findings["segments"], measure),
        _section("Engines", engines_table(findings)),
        *(_scores(table, measure) for table in findings["tables"][1:]),
    ]
    return fitting([part for part in parts if part])


def fitting(parts: Sequence[str]) -> str:
    """The parts that fit the store's limit, each of them whole."""
    text = ""
    left_out = False
    for part in parts:
        if len(text) + len(part) + len(MORE) + 4 > TAG_LENGTH:
            left_out = True
            continue
        text += f"{part}\n\n"
    return text + MORE if left_out else text.rstrip()


def _data(findings: Mapping[str, Any]) -> str:
    columns = ["domain", "users", "items", "ratings", "scale"]
    data, transfer = findings["data"], findings["transfer"]
    head = ["domain", "users", "items", measure_in(findings).data, "scale"]
    table = markdown_table(head, [[line[column] for column in columns] for line in data[:MOST_DOMAINS]])
    more = f"\n\nand {len(data) - MOST_DOMAINS} more domains" if len(data) > MOST_DOMAINS else ""
    users = ""
    if transfer is not None:
        users = (
            f" It has {transfer['target_users']} train users ({transfer['regime']}); strategies are compared on its "
            "validation users, which are not available in an application with so few users."
        )
    return (
        f"**{markdown_text(findings['study'])}** {markdown_text(findings['description'])}\n\n"
        f"### Data\n\n{table}{more}\n\n"
        f"Target: {markdown_text(findings['target'])}.{users} The whole spec is `study.yaml` among the artifacts. "
        f"To repeat it: {markdown_code(findings['repeat'])}"
    )


def _result(findings: Findings) -> str:
    best = findings["best"]
    params = ", ".join(f"{markdown_text(name)} {markdown_text(short(value))}" for name, value in best["params"].items())
    value = measure_in(findings).validation_text(best["value"])
    text = f"### Result\n\nBest: trial {best['number']} ({params}), {value}."
    if findings["transfer"] is not None:
        return text
    weights = markdown_text(members_text(findings["members"]))
    return f"{text} metarec is the combination of {weights}, weighted on validation users." + (
        f" To use it: {markdown_code(findings['use'])}." if findings["use"] else ""
    )


def members_text(members: Mapping[str, float]) -> str:
    """The members of a fusion with their weights; those below 0.005 are left out."""
    return ", ".join(f"{weight:.2f} {name}" for name, weight in members.items() if weight >= 0.005)


def headline(table: Mapping[str, Any], measure: Measure) -> str:
    """The verdict of a table of findings: metarec against the best other model and the best base, and what it adds.

    Its own parts and variants, such as the best network alone, are no opponents.
    """
    key = next(iter(columns_of(table, measure.metrics)))
    ours = next(row[key] for row in table["models"] if row["model"] == METAREC)
    text = f"{METAREC} has {measure.label} {ours:.4f} on {table['domain']}"
    others = [row for row in table["models"] if row["gain"] and row["model"] not in (NETWORK_ALONE, NO_INNER_LOOP)]
    reference = reference_of([row["model"] for row in others])
    named = {row["model"]: row["gain"] for row in others if row in others[:1] or row["model"] == reference}
    parts = [f"{gain['text']} against {name} ({gain['verdict']})" for name, gain in named.items()]
    return " ".join([": ".join([text, ", ".join(parts)] if parts else [text]) + ".", table.get("adds", "")]).rstrip()


def verdicts(table: Mapping[str, Any]) -> list[str]:
    """One line each for the models that metarec is better than, worse than, and not significantly different from."""
    texts = {
        "better": "metarec is better than",
        "worse": "metarec is worse than",
        "no significant difference": "there is no significant difference to",
    }
    lines = []
    for verdict, text in texts.items():
        names = [row["model"] for row in table["models"] if row["gain"] and row["gain"]["verdict"] == verdict]
        if names:
            lines.append(f"{text} {', '.join(names)}")
    return lines


def _comparison(table: Mapping[str, Any], measure: Measure) -> str:
    lines = "; ".join(map(markdown_text, verdicts(table))) or "there is no other model to compare with"
    return (
        f"### Comparison with other models\n\n{_scores(table, measure)}\n\n{markdown_text(table.get('adds', ''))}\n\n"
        f"Paired bootstrap over users: {lines}. "
        "Each 95 % interval holds by itself; none is corrected for multiple comparisons."
    )


def columns_of(table: Mapping[str, Any], metrics: Mapping[str, str]) -> dict[str, str]:
    """Of some metrics with their labels, those that a table of findings has; an older study may lack some."""
    return {name: label for name, label in metrics.items() if name in table["models"][0]}


def _scores(table: Mapping[str, Any], measure: Measure) -> str:
    columns = columns_of(table, measure.metrics)
    rows = [
        [
            row["model"],
            *(row[name] for name in columns),
            *((row["gain"]["text"], row["gain"]["verdict"]) if row["gain"] else "  "),
        ]
        for row in table["models"]
    ]
    domain = markdown_text(table["domain"])
    scale = f" ({table['scale']})" if table["scale"] else ""
    ratings = "" if table["n_ratings"] is None else f", {table['n_ratings']} ratings"
    title = f"Test: {domain}{scale}, {table['n_users']} users{ratings}"
    head = ["model", *columns.values(), f"{METAREC} gains (95 %)", f"{METAREC} is"]
    return f"**{title}**\n\n{markdown_table(head, rows)}"


def _importance(found: Mapping[str, Any]) -> str:
    text = f"{found['reason'][:1].upper()}{found['reason'][1:]}."
    if not found["reason"]:
        shares = ", ".join(f"{markdown_text(name)} {share:.0%}" for name, share in found["shares"].items())
        text = f"Shares of the variance of the error (fANOVA, {found['trials']} trials: a rough guess): {shares}."
    return f"### Parameter importance\n\n{text}"


def _cost(cost: Mapping[str, Any]) -> str:
    trials = ", ".join(f"{number} {state}" for state, number in cost["trials"].items())
    return (
        f"### Cost\n\n{duration(cost['wall_s'])} from the first trial's start to the last one's end "
        f"({cost['workers']} at a time); trials: {trials}; {cost['trial_s']:.1f} s a trial."
    )


def tuned_table(findings: Findings) -> Table:
    """The bases whose settings were tuned on validation users."""
    label = measure_in(findings).trial_label
    # Findings of an earlier version have no such key.
    rows = [
        [name, own["trials"], f"{own['default']:.5f}", f"{own['value']:.5f}", settings_text(own["options"])]
        for name, own in findings.get("bases", {}).items()
    ]
    return Table(["base", "trials", f"validation {label} of the defaults", "tuned", "settings"], rows)


def settings_text(options: Mapping[str, Any]) -> str:
    """The settings of a base in a line."""
    return ", ".join(f"{name} {short(value)}" for name, value in options.items())


def strategies_table(findings: Findings) -> Table:
    """The strategies of a study of transfer."""
    rows = [[one["strategy"], one["trials"], one["best"], f"{one['value']:.5f}"] for one in findings["strategies"]]
    return Table(["strategy", "trials", "best trial", f"its {measure_in(findings).validation_label}"], rows)


def front_table(findings: Findings) -> Table:
    """The Pareto front of a study with two objectives."""
    measure = measure_in(findings)
    rows = [
        [one["trial"], f"{measure.shown(one['error']):.5f}", microseconds(one["seconds"])] for one in findings["front"]
    ]
    return Table(["trial", measure.validation_label, "a prediction"], rows)


def engines_table(findings: Findings) -> Table:
    """The comparison of the engines."""
    rows = [
        [
            check["engine"],
            f"{check['milliseconds']:.0f} ms" if check["milliseconds"] else check["problem"],
            "reference" if check["difference"] is None else f"{check['difference']:.1e}",
        ]
        for check in findings["engines"]
    ]
    return Table(["engine", "one meta-step", "largest gradient difference"], rows)


def segment_lines(segments: Iterable[Mapping[str, Any]], measure: Measure) -> list[list[str]]:
    """For each segment its name, users, ratings (not in ranking), metric of metarec and of the reference, and gain."""
    return [
        [
            f"{line['measure'].replace('_', ' ')}: {line['segment']} ({_plain(line['low'])} to {_plain(line['high'])})",
            f"{line['n_users']}{' ⚠' if line['few'] else ''}",
            *([str(line["n_ratings"])] if "n_ratings" in line else []),
            f"{line[measure.key]:.4f}",
            f"{line[f'reference_{measure.key}']:.4f}",
            f"{line['gain']:+.2f} % [{line['gain_low']:+.2f}, {line['gain_high']:+.2f}]",
        ]
        for line in segments
    ]


def _plain(value: float) -> str:
    """Three digits, and no exponent."""
    return np.format_float_positional(value, precision=3, fractional=False, trim="-")


def _segments(segments: Sequence[Mapping[str, Any]], measure: Measure) -> str:
    if not segments:
        return ""
    counts = ["users", *(["ratings"] if "n_ratings" in segments[0] else [])]
    head = ["segment (thirds)", *counts, measure.label, segments[0]["reference"], "gain [95 %]"]
    few = any(line["few"] for line in segments)
    warning = f" ⚠: fewer than {FEW_USERS} users, too few for a conclusion." if few else ""
    units = "; ".join(
        f"{name.replace('_', ' ')}: {of_users.of(measure.data).unit}"
        for name, of_users in MEASURES.items()
        if any(line["measure"] == name for line in segments)
    )
    return f"{_section('Segments of users', Table(head, segment_lines(segments, measure)))}\n\n{units}.{warning}"


def _section(title: str, table: Table) -> str:
    """A table below its title; nothing for a table without rows."""
    return f"### {title}\n\n{markdown_table(*table)}" if table.rows else ""


def duration(seconds: float) -> str:
    """A time for people to read.

    >>> duration(42.4), duration(754.0), duration(9000.0)
    ('42 s', '12 min 34 s', '2 h 30 min')
    """
    if seconds != seconds:
        return "an unknown time"
    if seconds < 60:
        return f"{seconds:.0f} s"
    if seconds < 3600:
        return f"{seconds // 60:.0f} min {seconds % 60:.0f} s"
    return f"{seconds // 3600:.0f} h {seconds % 3600 // 60:.0f} min"


def short(value: object) -> str:
    """A parameter's value for people to read."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)
