"""The description of a study's run: what was searched, what won, by how much, what mattered, and what it cost."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from metarec.evaluation.metrics import METAREC
from metarec.evaluation.segments import FEW_USERS, MEASURES
from metarec.ratings import Domain
from metarec.report.findings import REPEAT, Findings, data_of
from metarec.study.results import microseconds
from metarec.study.spec import StudySpec
from metarec.tracking import TAG_LENGTH, markdown_table

__all__ = ["duration", "segment_lines", "short", "story", "study_description", "verdicts"]

MORE = "The rest is in `report.html`, among the artifacts."

MOST_DOMAINS = 12
"""So many lines has the table of data at most."""


def study_description(spec: StudySpec, domains: Mapping[str, Domain], name: str) -> str:
    """The run's description while the search runs."""
    transfer = None if spec.transfer is None else spec.transfer.model_dump()
    searched = _searched(name, spec.description, spec.target or "", data_of(domains), transfer, REPEAT)
    return f"{searched}\n\nEach child run is one trial of the search."


def story(findings: Findings) -> str:
    """The run's description when the study has ended, as long as the store allows; `report.html` has all of it."""
    parts = [
        _searched(
            findings["study"],
            findings["description"],
            findings["target"],
            findings["data"],
            findings["transfer"],
            findings["repeat"],
        ),
        _won(findings),
        _gains(findings["tables"][0]),
        _mattered(findings["importances"]),
        _cost(findings["cost"]),
        _strategies(findings["strategies"]),
        _front(findings["front"]),
        _segments(findings["segments"]),
        _engines(findings["engines"]),
        *(_scores(table) for table in findings["tables"][1:]),
    ]
    return _fitting([part for part in parts if part])


def _fitting(parts: Sequence[str]) -> str:
    """The parts that the store takes, whole."""
    told = ""
    left_out = False
    for part in parts:
        if len(told) + len(part) + len(MORE) + 4 > TAG_LENGTH:
            left_out = True
            continue
        told += f"{part}\n\n"
    return told + MORE if left_out else told.rstrip()


def _searched(
    name: str,
    description: str,
    target: str,
    data: Sequence[Mapping[str, Any]],
    transfer: Mapping[str, Any] | None,
    repeat: str,
) -> str:
    columns = ["domain", "users", "items", "ratings", "scale"]
    table = markdown_table(columns, [[line[column] for column in columns] for line in data[:MOST_DOMAINS]])
    more = f"\n\nand {len(data) - MOST_DOMAINS} more domains" if len(data) > MOST_DOMAINS else ""
    known = ""
    if transfer is not None:
        known = (
            f" {transfer['target_users']} users of it are known ({transfer['regime']}); strategies are compared on its "
            "validation users, whom nobody has who knows only those."
        )
    return (
        f"**{name}** {description}\n\n### What was searched\n\n{table}{more}\n\nTarget: {target}.{known} The whole "
        f"spec is `study.yaml` among the artifacts. To repeat it: `{repeat}`"
    )


def _won(findings: Findings) -> str:
    best = findings["best"]
    params = ", ".join(f"{name} {short(value)}" for name, value in best["params"].items())
    text = f"### What won\n\nBest: trial {best['number']} ({params}), validation RMSE {best['value']:.5f} (unit scale)."
    if findings["transfer"] is not None:
        return text
    shares = ", ".join(f"{weight:.2f} {name}" for name, weight in findings["members"].items() if weight >= 0.005)
    use = f"To use it: `{findings['use']}`."
    return f"{text} metarec is the combination of {shares}, weighed on validation users. {use}"


def verdicts(table: Mapping[str, Any]) -> list[str]:
    """In a line each: whom metarec is better than, whom worse, and where no difference is significant."""
    said = {
        "better": "metarec is better than",
        "worse": "metarec is worse than",
        "no significant difference": "there is no significant difference to",
    }
    lines = []
    for verdict, text in said.items():
        names = [row["model"] for row in table["models"] if row["gain"] and row["gain"]["verdict"] == verdict]
        if names:
            lines.append(f"{text} {', '.join(names)}")
    return lines


def _gains(table: Mapping[str, Any]) -> str:
    told = "; ".join(verdicts(table)) or "there is no other model to compare with"
    return (
        f"### By how much, and is it significant?\n\n{_scores(table)}\n\nBy the paired bootstrap over users: "
        f"{told}. Each interval by itself holds in 95 % of samples of users; none is corrected for being one of many."
    )


def _scores(table: Mapping[str, Any]) -> str:
    rows = [
        [
            row["model"],
            row["rmse"],
            row["mae"],
            *((row["gain"]["text"], row["gain"]["verdict"]) if row["gain"] else "  "),
        ]
        for row in table["models"]
    ]
    title = f"Test: {table['domain']} ({table['scale']}), {table['n_users']} users, {table['n_ratings']} ratings"
    head = ["model", "RMSE", "MAE", f"{METAREC} gains (95 %)", f"{METAREC} is"]
    return f"**{title}**\n\n{markdown_table(head, rows)}"


def _mattered(found: Mapping[str, Any]) -> str:
    if found["reason"]:
        return f"### What mattered\n\n{found['reason'][:1].upper()}{found['reason'][1:]}."
    shares = ", ".join(f"{name} {share:.0%}" for name, share in found["shares"].items())
    return (
        f"### What mattered\n\nShares of the variance of the error (fANOVA, {found['trials']} trials: a rough guess): "
        f"{shares}."
    )


def _cost(cost: Mapping[str, Any]) -> str:
    trials = ", ".join(f"{number} {state}" for state, number in cost["trials"].items())
    return (
        f"### What it cost\n\n{duration(cost['wall_s'])} from the first trial's start to the last one's end "
        f"({cost['workers']} at a time); trials: {trials}; {cost['trial_s']:.1f} s a trial."
    )


def _strategies(lines: Sequence[Mapping[str, Any]]) -> str:
    if not lines:
        return ""
    head = ["strategy", "trials", "best trial", "its validation RMSE (unit scale)"]
    return "### Strategies\n\n" + markdown_table(head, [list(line.values()) for line in lines])


def _front(lines: Sequence[Mapping[str, Any]]) -> str:
    if not lines:
        return ""
    rows = [[line["trial"], f"{line['error']:.5f}", microseconds(line["seconds"])] for line in lines]
    return "### Pareto front\n\n" + markdown_table(["trial", "validation RMSE (unit scale)", "a prediction"], rows)


def segment_lines(segments: Iterable[Mapping[str, Any]]) -> list[list[str]]:
    """A line for each segment: what it is, users and ratings, RMSE of metarec and of the other, and the gain."""
    return [
        [
            f"{line['measure'].replace('_', ' ')}: {line['segment']} ({_plain(line['low'])} to {_plain(line['high'])})",
            f"{line['n_users']}{' ⚠' if line['few'] else ''}",
            str(line["n_ratings"]),
            f"{line['rmse']:.4f}",
            f"{line['reference_rmse']:.4f}",
            f"{line['gain']:+.2f} % [{line['gain_low']:+.2f}, {line['gain_high']:+.2f}]",
        ]
        for line in segments
    ]


def _plain(value: float) -> str:
    """Three digits, and no exponent."""
    return np.format_float_positional(value, precision=3, fractional=False, trim="-")


def _segments(segments: Sequence[Mapping[str, Any]]) -> str:
    if not segments:
        return ""
    head = ["segment (thirds)", "users", "ratings", "RMSE", segments[0]["reference"], "gain [95 %]"]
    few = any(line["few"] for line in segments)
    warning = f" ⚠: fewer than {FEW_USERS} users, too few to tell." if few else ""
    units = "; ".join(
        f"{name.replace('_', ' ')}: {measure.unit}"
        for name, measure in MEASURES.items()
        if any(line["measure"] == name for line in segments)
    )
    return f"### Whom it helps\n\n{markdown_table(head, segment_lines(segments))}\n\n{units}.{warning}"


def _engines(checks: Sequence[Mapping[str, Any]]) -> str:
    if not checks:
        return ""
    rows = [
        [
            check["engine"],
            f"{check['milliseconds']:.0f} ms" if check["milliseconds"] else check["problem"],
            "reference" if check["difference"] is None else f"{check['difference']:.1e}",
        ]
        for check in checks
    ]
    return "### Engines\n\n" + markdown_table(["engine", "one meta-step", "gradient difference"], rows)


def duration(seconds: float) -> str:
    """A time, to be read.

    >>> duration(42.4), duration(754.0), duration(9000.0)
    ('42 s', '12 min 34 s', '2 h 30 min')
    """
    if not seconds < 60:
        if not seconds < 3600:
            return (
                f"{seconds // 3600:.0f} h {seconds % 3600 // 60:.0f} min" if seconds == seconds else "an unknown time"
            )
        return f"{seconds // 60:.0f} min {seconds % 60:.0f} s"
    return f"{seconds:.0f} s"


def short(value: object) -> str:
    """A parameter's value, to be read."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)
