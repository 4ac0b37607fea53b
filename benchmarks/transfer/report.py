"""The report of the benchmark of transfer, as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.cold.report import describe, p_value, signed, table
from benchmarks.transfer.bars import FEW_USERS, FIXED, HINDSIGHT, REFERENCES, WANTED, Line
from benchmarks.transfer.statistics import Section
from metarec.fusion.stackers import STACKERS
from metarec.model.contrasts import AVERAGED
from metarec.transfer.competitors import ORACLE, ORACLE_USERS

__all__ = ["markdown"]

_HOW = """\
- A target with a few users; all other sets are its sources. A round is a draw: other target users, another fold of test
  users, and another seed. Test users are the same people in all sets, and in no fit.
- Regime *everything*: bases and fusion are fitted on the few users alone. Regime *labels*: bases are fitted on the
  whole target, and the fusion on the few users.
- RMSE is on the unit scale of the target, over all draws. Gain: how much lower the RMSE is, in percent. A negative gain
  is a loss.
- The unit is the draw. In brackets: the 95 % interval of a hierarchical bootstrap, over draws and, within each draw,
  over its test users, with Student's quantile for the number of draws. p: paired t-test over the draws' gains,
  two-sided, Holm-corrected for each strategy over all its comparisons in this report. **better** takes a corrected p
  below 0.05 and an interval above 0, **worse** an uncorrected p below 0.05. Only what is *better* is bold. The interval
  and p of a mean over targets are of the t-test over the draws' means, uncorrected, for these very targets.
- Five draws use each fold of test users once, the sixth begins with new folds. So with more than five draws a test user
  occurs in several of them, each time with other target users. Draws are still the unit.
- Controls: {controls}.
- The best control is chosen with hindsight: it is the one with the lowest RMSE on these very test users. zero_shot and
  pooled use the sources plainly. stack is the mixture of auto without the sources' models, so what these models add is
  auto against stack. stack-mean is the plain mean of {averaged}, fitted on the few users.
- Oracle: it {oracle}.
"""

_LEFT_OUT = "- Not computed here: {names}.\n"


def markdown(report: Mapping[str, Any], lines: Mapping[Line, Section]) -> str:
    """The bars, and the table of each regime and number of target users.

    Args:
        report: as in the JSON file: `run`, and optionally `few_users`, `auto`, `ledger`, `pairs`,
            `hostile`; `controls`: what strategies are compared with; `left_out`: competitors without numbers.
        lines: the sections of the leave-one-out part.
    """
    controls = report["controls"]
    how = _HOW.format(controls=", ".join(controls), averaged=", ".join(AVERAGED["rating"]), oracle=ORACLE_USERS)
    if report["left_out"]:
        how += _LEFT_OUT.format(names=", ".join(report["left_out"]))
    parts = ["# Transfer between domains", how, "## Bars"]
    if report["few_users"]:
        parts += [_few_users(contender, found) for contender, found in report["few_users"].items()]
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


def _few_users(contender: str, found: Mapping[str, Any]) -> str:
    named = " The strategy of each target is chosen with hindsight, too." if contender == HINDSIGHT else ""
    head = (
        f"### {contender}, at most {FEW_USERS} target users\n\nThe gain over all shots and numbers of users together "
        f"(wanted over scratch: {WANTED['gain_over_scratch']:g} %).{named}"
    )
    rows = []
    for regime, targets in found["regimes"].items():
        for target, entry in targets.items():
            gains = [_gain(entry[over]) for over in ("over_scratch", "over_stack", "over_best_control")]
            gains[-1] += f" {entry['best_control']}"
            rows.append([regime, target, *([entry["strategy"]] if named else []), *gains, _yes(entry)])
        means = [_mean(found["mean"][regime][over]) for over in ("over_scratch", "over_stack", "over_best_control")]
        rows.append([regime, f"mean of {len(targets)} targets", *([""] if named else []), *means, ""])
        better = found["better"][regime]
        counts = [f"{better[over]} of {len(targets)}" for over in ("over_scratch", "over_stack", "over_best_control")]
        counts.append(f"{better['over_all_controls']} of {len(targets)}")
        rows.append([regime, "better on", *([""] if named else []), *counts])
    over = ["over scratch", "over stack", "over the best control", "better than every control"]
    heads = ["regime", "target", *(["strategy"] if named else []), *over]
    worst = found["worst"]
    kept = "kept" if worst["percent"] >= -WANTED["deficit"] else "MISSED"
    end = (
        f"The lowest gain of {contender} over the best control is {signed(worst['percent'], 2)} % "
        f"(at least −{WANTED['deficit']:g} % wanted: {kept}), on {_line(worst)}."
    )
    return f"{head}\n\n{table(heads, rows)}\n\n{end}"


def _mean(found: Mapping[str, Any]) -> str:
    text = f"{signed(found['difference'], 2)} %"
    if found["interval"] is None:
        return text
    low, high = found["interval"]
    return f"{text} [{signed(low, 2)}, {signed(high, 2)}], p {p_value(found['p'])}"


def _yes(entry: Mapping[str, Any]) -> str:
    return "yes" if entry["better_than_all"] else "no"


def _auto(found: Mapping[str, Any]) -> str:
    kept = "kept" if found["regret"] < WANTED["regret"] else "MISSED"
    behind = ", ".join(f"{control} {count}" for control, count in found["behind"].items())
    lines = [
        "### auto, line by line",
        "",
        f"- significantly worse (uncorrected) than the best control on {len(found['worse'])} of {found['lines']} lines"
        + (":" if found["worse"] else ""),
        *(
            f"  - {_line(one)}: {signed(one['percent'], 2)} % against {one['opponent']}, p {p_value(one['p'])}"
            for one in found["worse"]
        ),
        f"- of {found['lines']} lines, on how many each control has a lower RMSE than auto: {behind}",
        f"- regret against the best strategy or control with hindsight: {signed(found['regret'], 2)} % on average "
        f"(less than {WANTED['regret']:g} % wanted: {kept}), at most {signed(found['worst_regret']['percent'], 2)} % "
        f"on {_line(found['worst_regret'])}",
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
    shown = [name for name in controls if name not in STACKERS.names() or name in REFERENCES]
    tuned = [name for name in controls if name not in shown]
    others = [name for name in next(iter(own.values())).rmse if name not in controls]
    rows = []
    for line, section in own.items():
        lowest = min(section.rmse[name] for name in section.rmse if name != ORACLE)
        best = section.best_of(tuned) if tuned else None
        rows.append(
            [
                line.target,
                str(line.shots),
                str(section.n_draws),
                f"{section.n_users:,}",
                *(_rmse(section.rmse[name], lowest) for name in shown),
                "–" if best is None else f"{_rmse(section.rmse[best], lowest)} {best}",
                *(_rmse(section.rmse[name], lowest) for name in others),
            ]
        )
    heads = ["target", "shots", "draws", "test users", *shown, "best other stacker", *others]
    return f"RMSE; * the lowest of its line, without the oracle.\n\n{table(heads, rows)}"


def _verdicts(own: Mapping[Line, Section]) -> str:
    rows = []
    for line, section in own.items():
        if not section.strategies:
            continue
        fixed = [_against(section, name) if name in section.strategies else "–" for name in FIXED]
        best = section.best_strategy
        rows.append([line.target, str(line.shots), section.best_control, f"{best}: {_against(section, best)}", *fixed])
    heads = ["target", "shots", "best control (hindsight)", HINDSIGHT, *FIXED]
    note = "Gain over the best control [95 %], p (Holm); of the controls, better than / worse than / of how many."
    return f"{note}\n\n{table(heads, rows)}"


def _against(section: Section, name: str) -> str:
    over, words = section.over_best(name), section.verdicts(name)
    p = "" if over.p_holm is None else f", p {p_value(over.p_holm)}"
    return f"{_gain(over._asdict())}{p}; {words.count('better')}/{words.count('worse')}/{len(words)}"


def _gain(against: Mapping[str, Any]) -> str:
    """A gain with its interval, bold if it is better; `against`: the values of an :class:`Against`."""
    text = f"{signed(against['difference'], 2)} %"
    if against["interval"] is None:
        return f"{text} (one draw)"
    low, high = against["interval"]
    text += f" [{signed(low, 2)}, {signed(high, 2)}]"
    return f"**{text}**" if against["verdict"] == "better" else text


def _rmse(value: float, lowest: float) -> str:
    return f"{value:.4f}\\*" if value == lowest else f"{value:.4f}"


def _line(line: Mapping[str, Any]) -> str:
    return f"{line['target']}, {line['regime']}, {line['users']} target users, {line['shots']} shots"
