"""The report of the benchmark of transfer, as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.cold.report import describe, p_value, signed, table
from benchmarks.common.statistics import Comparison
from benchmarks.transfer.bars import FEW_USERS, FIXED, HINDSIGHT, REFERENCES, WANTED, Line
from benchmarks.transfer.statistics import Section

__all__ = ["markdown"]

_HOW = """\
- A target with a few users; all other sets are its sources. Test users are one fold of the users in each round, the
  same people in all sets, and in no fit. All rounds are pooled.
- Regime *everything*: bases and fusion are fitted on the few users alone. Regime *labels*: bases are fitted on the
  whole target, and the fusion on the few users.
- RMSE is on the unit scale of the target. Gain: how much lower the RMSE is, in percent; in brackets the 95 % bootstrap
  interval over test users. A negative gain is a loss.
- p: Wilcoxon signed-rank, two-sided, over test users, Holm-corrected for each strategy over all its comparisons in
  this report. **better** takes a corrected p below 0.05, **worse** an uncorrected one; both take a gain and a rank
  difference of the same sign.
- Controls, which have no source: {controls}. The best control is the one with the lowest RMSE on these very test users.
- Oracle: what the same models learn from all train users of the target.
"""


def markdown(report: Mapping[str, Any], lines: Mapping[Line, Section]) -> str:
    """The bars, and the table of each regime and number of target users.

    Args:
        report: as in the JSON file: `run`, and optionally `few_users`, `auto`, `ledger`, `pairs`,
            `hostile`; `controls`: the competitors that need no source.
        lines: the sections of the leave-one-out part.
    """
    controls = report["controls"]
    parts = ["# Transfer between domains", _HOW.format(controls=", ".join(controls)), "## Bars"]
    if report["few_users"]:
        parts += _few_users(report["few_users"])
    if report["auto"]:
        parts.append(_auto(report["auto"]))
    if report["ledger"]:
        parts.append(_ledger(report["ledger"]))
    if report["hostile"]:
        parts.append(_hostile(report["hostile"]))
    if report["pairs"]:
        parts.append(_pairs(report["pairs"]))
    for regime, users in dict.fromkeys((line.regime, line.users) for line in lines):
        own = {line: section for line, section in lines.items() if (line.regime, line.users) == (regime, users)}
        parts += [f"## {regime}, {users} target users", _errors(own, controls), _verdicts(own)]
    return "\n\n".join(part.strip() for part in [*parts, "## The run", describe(report["run"])]) + "\n"


def _few_users(found: Mapping[str, Any]) -> list[str]:
    parts = [
        f"### At most {FEW_USERS} target users\n\nAll shots and numbers of users together; the gain over scratch "
        f"(wanted: {WANTED['gain_over_scratch']:g} %), in brackets that over the best control, bold where it is "
        "significantly better than every control."
    ]
    regimes = list(dict.fromkeys(regime for own in found.values() for regime in own["regimes"]))
    for regime in regimes:
        own = {contender: entry["regimes"].get(regime, {}) for contender, entry in found.items()}
        targets = list(dict.fromkeys(target for entry in own.values() for target in entry))
        rows = [
            [target, *(_gains(entry.get(target), contender) for contender, entry in own.items())] for target in targets
        ]
        counts = [f"{entry['better_than_all'].get(regime, 0)} of {len(targets)}" for entry in found.values()]
        rows.append(["better than every control", *counts])
        parts.append(table([f"regime {regime}", *own], rows))
    parts.append("\n".join(_worst(contender, entry["worst"]) for contender, entry in found.items()))
    return parts


def _gains(entry: Mapping[str, Any] | None, contender: str) -> str:
    if entry is None:
        return "–"
    text = f"{signed(entry['over_scratch'], 1)} % ({signed(entry['over_best_control'], 2)} %)"
    text = f"**{text}**" if entry["better_than_all"] else text
    return f"{text} {entry['strategy']}" if contender == HINDSIGHT else text


def _worst(contender: str, worst: Mapping[str, Any]) -> str:
    kept = "kept" if worst["percent"] >= -WANTED["deficit"] else "MISSED"
    return (
        f"- {contender}: the lowest gain over the best control is {signed(worst['percent'], 2)} % "
        f"(at least −{WANTED['deficit']:g} % wanted: {kept}), on {_line(worst)}"
    )


def _auto(found: Mapping[str, Any]) -> str:
    kept = "kept" if found["regret"] < WANTED["regret"] else "MISSED"
    lines = [
        "### auto",
        "",
        f"- significantly worse (uncorrected) than the best of {', '.join(REFERENCES)} on {len(found['worse'])} of "
        f"{found['lines']} lines" + (":" if found["worse"] else ""),
        *(
            f"  - {_line(one)}: {signed(one['percent'], 2)} % against {one['opponent']}, p {p_value(one['p'])}"
            for one in found["worse"]
        ),
        f"- regret against the best strategy with hindsight: {signed(found['regret'], 2)} % on average (less than "
        f"{WANTED['regret']:g} % wanted: {kept}), at most {signed(found['worst_regret']['percent'], 2)} % on "
        f"{_line(found['worst_regret'])}",
    ]
    return "\n".join(lines)


def _ledger(found: Mapping[str, Any]) -> str:
    rho = found["rank_correlation"]
    order = "no order to compare" if rho is None else f"rank correlation {signed(rho, 2)}"
    thirds = "; ".join(f"{signed(one['predicted'], 2)} % → {signed(one['realised'], 2)} %" for one in found["thirds"])
    return (
        f"- its ledger, {found['rounds']} rounds, sources used in {found['transferred']}: predicted gain "
        f"{signed(found['mean_predicted'], 2)} %, realised {signed(found['mean_realised'], 2)} % over the best of "
        f"{', '.join(REFERENCES)}; {order}; thirds by prediction: {thirds}"
    )


def _hostile(found: Sequence[Mapping[str, Any]]) -> str:
    declined, rounds = (sum(one[name] for one in found) for name in ("declined", "rounds"))
    rows = [
        [
            one["target"],
            one["source"],
            f"{one['declined']} of {one['rounds']}",
            "–" if one["share"] is None else f"{one['share']:.2f}",
            f"{signed(one['regret'], 2)} %",
            f"{signed(one['regret_of_zero_shot'], 2)} %",
        ]
        for one in found
    ]
    heads = ["target", "the only source", "declined", "share taken over", "regret", "regret of zero_shot"]
    return (
        f"### A hostile source\n\nauto declined in {declined} of {rounds} rounds. Regret is against the best of "
        f"{', '.join(REFERENCES)}.\n\n{table(heads, rows)}"
    )


def _pairs(found: Mapping[str, Any]) -> str:
    rows = [
        [regime, part, *(_correlation(own[gained]) for gained in ("over_plain", "over_scratch"))]
        for regime, entry in found.items()
        for part, own in entry["correlations"].items()
    ]
    heads = ["regime", "similarity", "gain over the best of mean, best-single", "gain over scratch"]
    return (
        "### Does similarity predict the gain from a source?\n\nSpearman's rank correlation over ordered pairs of "
        f"sets, of the similarity and the gain of model_agnostic.\n\n{table(heads, rows)}"
    )


def _correlation(entry: Mapping[str, Any]) -> str:
    if entry["rho"] is None:
        return "–"
    return f"{signed(entry['rho'], 2)} (p {p_value(entry['p'])}, {entry['pairs']} pairs)"


def _errors(own: Mapping[Line, Section], controls: Sequence[str]) -> str:
    tuned = [name for name in controls if name not in REFERENCES]
    first = next(iter(own.values()))
    others = [name for name in first.rmse if name not in controls]
    rows = []
    for line, section in own.items():
        lowest = min(section.rmse[name] for name in section.rmse if name != "oracle")
        best = section.best_of(tuned) if tuned else None
        stacker = ["–"] if best is None else [f"{_rmse(section.rmse[best], lowest)} {best}"]
        rows.append(
            [
                line.target,
                str(line.shots),
                f"{section.n_users:,}",
                *(_rmse(section.rmse[name], lowest) for name in REFERENCES),
                *stacker,
                *(_rmse(section.rmse[name], lowest) for name in others),
            ]
        )
    return table(["target", "shots", "test users", *REFERENCES, "best stacker", *others], rows)


def _verdicts(own: Mapping[Line, Section]) -> str:
    rows = []
    for line, section in own.items():
        if not section.strategies:
            continue
        fixed = [_against(section, name) if name in section.strategies else "–" for name in FIXED]
        best = section.best_strategy
        rows.append([line.target, str(line.shots), section.best_control, f"{best}: {_against(section, best)}", *fixed])
    heads = ["target", "shots", "best control", HINDSIGHT, *FIXED]
    note = "Gain over the best control [95 %], p (Holm); of the controls, better than / worse than / of how many."
    return f"{note}\n\n{table(heads, rows)}"


def _against(section: Section, name: str) -> str:
    over, words = section.over_best(name), section.verdicts(name)
    text = f"{_gain(over)}, p {p_value(over.p_holm)}; {words.count('better')}/{words.count('worse')}/{len(words)}"
    return f"**{text}**" if section.beats_all(name) else text


def _gain(against: Comparison) -> str:
    assert against.interval is not None
    low, high = against.interval
    return f"{signed(against.difference, 2)} % [{signed(low, 2)}, {signed(high, 2)}]"


def _rmse(value: float, lowest: float) -> str:
    return f"**{value:.4f}**" if value == lowest else f"{value:.4f}"


def _line(line: Mapping[str, Any]) -> str:
    return f"{line['target']}, {line['regime']}, {line['users']} target users, {line['shots']} shots"
