"""What the benchmark of transfer is to answer in a few numbers: does it pay, can `auto` be trusted, does it say no."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

from benchmarks.transfer.statistics import Errors, Section, gain

__all__ = [
    "AUTO",
    "FEW_USERS",
    "FIXED",
    "HINDSIGHT",
    "REFERENCES",
    "SCRATCH",
    "WANTED",
    "Condition",
    "Line",
    "Outcome",
    "auto_bar",
    "few_users_bar",
    "hostile_bar",
    "ledger",
    "lines_of",
    "pairs_bar",
    "pooled_few",
]

SCRATCH, AUTO, MODEL_AGNOSTIC = "scratch", "auto", "model_agnostic"
FIXED = (AUTO, MODEL_AGNOSTIC)
"""Strategies that stand for a choice that was made before any result."""

HINDSIGHT = "best with hindsight"
REFERENCES = (SCRATCH, "mean", "best-single")
"""What `auto` must never be worse than: what it could have done instead of learning from sources."""

FEW_USERS = 20
"""Up to here the target has few users."""

WANTED = {"gain_over_scratch": 5.0, "deficit": 0.3, "regret": 1.0}
"""In percent of RMSE: at least, at most, less than."""

THIRDS = 3


class Line(NamedTuple):
    """One line of the tables: a target under one condition, all rounds together."""

    regime: str
    users: int
    shots: int
    target: str


class Condition(NamedTuple):
    """A target with few users, whatever their number and that of the shots."""

    regime: str
    target: str


class Outcome(NamedTuple):
    """A finished cell: its key, its frames `squared` and `absolute`, its notes."""

    key: Mapping[str, Any]
    frames: Mapping[str, pd.DataFrame]
    notes: Mapping[str, Any]

    @property
    def rmse(self) -> dict[str, float]:
        """Competitor -> RMSE on the unit scale."""
        return Errors.of([self.frames]).rmse()

    @property
    def auto(self) -> Mapping[str, Any]:
        """What `auto` chose and why; empty where it did not compete or does not say."""
        found: Mapping[str, Any] = self.notes["reasons"].get(AUTO, {})
        return found


def lines_of(outcomes: Sequence[Outcome]) -> dict[Line, Errors]:
    """The errors of each line from those of its rounds."""
    groups: dict[Line, list[Mapping[str, pd.DataFrame]]] = {}
    for outcome in outcomes:
        line = Line(*(outcome.key[name] for name in Line._fields))
        groups.setdefault(line, []).append(outcome.frames)
    order = list(dict.fromkeys(outcome.key["target"] for outcome in outcomes))
    lines = sorted(groups, key=lambda line: (line.regime, line.users, order.index(line.target), line.shots))
    return {line: Errors.of(groups[line]) for line in lines}


def pooled_few(outcomes: Sequence[Outcome]) -> dict[Condition, Errors]:
    """Of each target and regime the errors with few users, all numbers of shots and of known users together."""
    groups: dict[Condition, list[Mapping[str, pd.DataFrame]]] = {}
    for outcome in outcomes:
        if outcome.key["users"] <= FEW_USERS:
            condition = Condition(*(outcome.key[name] for name in Condition._fields))
            groups.setdefault(condition, []).append(outcome.frames)
    return {condition: Errors.of(frames) for condition, frames in groups.items()}


def few_users_bar(lines: Mapping[Line, Section], pooled: Mapping[Condition, Section]) -> dict[str, Any]:
    """Whether transfer pays where there are few users.

    Returns:
        contender (:data:`HINDSIGHT`, which takes the best strategy of each target and line, or one of :data:`FIXED`)
        -> "regimes": regime -> target -> its gains and whether it is significantly better than every control;
        "better_than_all": regime -> on how many targets it is; "worst": the line with the lowest gain over the best
        control, in percent (below 0: a deficit).
    """
    few = {line: section for line, section in lines.items() if line.users <= FEW_USERS and section.strategies}
    found: dict[str, Any] = {}
    for contender in (HINDSIGHT, *FIXED):
        regimes: dict[str, dict[str, Any]] = {}
        for condition, section in pooled.items():
            name = _named(contender, section)
            if name is not None:
                regimes.setdefault(condition.regime, {})[condition.target] = {
                    "strategy": name,
                    "over_scratch": section.against[name][SCRATCH].difference,
                    "over_best_control": section.over_best(name).difference,
                    "best_control": section.best_control,
                    "better_than_all": section.beats_all(name),
                }
        if not regimes:
            continue
        gains = {
            line: section.over_best(name).difference
            for line, section in few.items()
            if (name := _named(contender, section)) is not None
        }
        worst = min(gains, key=lambda line: gains[line])
        found[contender] = {
            "regimes": regimes,
            "better_than_all": {
                regime: sum(one["better_than_all"] for one in targets.values()) for regime, targets in regimes.items()
            },
            "worst": {"percent": gains[worst], **worst._asdict()},
        }
    return found


def auto_bar(lines: Mapping[Line, Section], others: Sequence[str]) -> dict[str, Any] | None:
    """How often `auto` is significantly worse than what it could have done instead, and its regret.

    Args:
        others: strategies and controls among which the best one with hindsight is sought.

    Returns:
        "lines": how many; "worse": those on which it is worse than the best of :data:`REFERENCES`; "regret": the mean
        of how much higher its RMSE is than that of the best of `others`, in percent (below 0 where it is lower);
        "worst_regret". None where `auto` does not compete.
    """
    own = {line: section for line, section in lines.items() if AUTO in section.strategies}
    if not own:
        return None
    worse, regrets = [], {}
    for line, section in own.items():
        opponent = section.best_of(REFERENCES)
        against = section.against[AUTO][opponent]
        if against.verdict == "worse":
            worse.append({**line._asdict(), "opponent": opponent, "percent": against.difference, "p": against.p})
        regrets[line] = _regret(section.rmse, [name for name in others if name in section.rmse])
    worst = max(regrets, key=lambda line: regrets[line])
    return {
        "lines": len(own),
        "worse": worse,
        "regret": float(np.mean(list(regrets.values()))),
        "worst_regret": {"percent": regrets[worst], **worst._asdict()},
    }


def ledger(outcomes: Sequence[Outcome]) -> dict[str, Any] | None:
    """What `auto` predicted to gain, in percent of RMSE, against what it gained over the best of :data:`REFERENCES`.

    Returns:
        "rounds": how many, "transferred": in how many of them it learned from sources, "rank_correlation" (Spearman;
        None where there is no order), "mean_predicted", "mean_realised", and "thirds": the same means of the rounds
        with the lowest, middle and highest predictions. None where it predicted nothing.
    """
    known = [outcome for outcome in outcomes if outcome.auto.get("predicted_gain") is not None]
    if not known:
        return None
    predicted = np.array([float(outcome.auto["predicted_gain"]) for outcome in known])
    realised = np.array([gain(outcome.rmse, AUTO, REFERENCES) for outcome in known])
    order = np.argsort(predicted, kind="stable")
    return {
        "rounds": len(known),
        "transferred": sum(bool(outcome.auto.get("transfers")) for outcome in known),
        "rank_correlation": _rank_correlation(predicted, realised),
        "mean_predicted": float(predicted.mean()),
        "mean_realised": float(realised.mean()),
        "thirds": [
            {"predicted": float(predicted[part].mean()), "realised": float(realised[part].mean()), "rounds": len(part)}
            for part in np.array_split(order, THIRDS)
            if len(part)
        ],
    }


def hostile_bar(outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    """Of each hostile source and target: how often `auto` declined, how much it took over, and its regret.

    Regret: how much higher the RMSE over all rounds is than that of the best of :data:`REFERENCES`, in percent; beside
    it that of who believes the source, `zero_shot`.
    """
    groups: dict[tuple[str, str], list[Outcome]] = {}
    for outcome in outcomes:
        if AUTO in outcome.frames["squared"]:
            groups.setdefault((outcome.key["source"], outcome.key["target"]), []).append(outcome)
    found = []
    for (source, target), own in groups.items():
        rmse = Errors.of([outcome.frames for outcome in own]).rmse()
        told = [outcome.auto for outcome in own if "transfers" in outcome.auto]
        shares = [float(reasons["share"]) for reasons in told if reasons.get("share") is not None]
        found.append(
            {
                "source": source,
                "target": target,
                "rounds": len(own),
                "declined": sum(not reasons["transfers"] for reasons in told),
                "share": float(np.mean(shares)) if shares else None,
                "regret": _regret(rmse, REFERENCES),
                "regret_of_zero_shot": _regret(rmse, REFERENCES, "zero_shot"),
            }
        )
    return found


def pairs_bar(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Whether similar domains gain more from each other.

    Returns:
        regime -> "pairs": of each ordered pair the means over rounds of the similarity, of its parts, and of the gain
        of `model_agnostic` over scratch and over the best of mean and best-single, in percent; "correlations": of the
        score and of each part with each gain, over all pairs: Spearman's rho, its p, and how many pairs have the part.
    """
    rows = pd.DataFrame(
        {
            **{name: outcome.key[name] for name in ("regime", "source", "target")},
            "score": outcome.notes["similarity"]["score"],
            **outcome.notes["similarity"]["parts"],
            "over_scratch": gain(outcome.rmse, MODEL_AGNOSTIC, [SCRATCH]),
            "over_plain": gain(outcome.rmse, MODEL_AGNOSTIC, ["mean", "best-single"]),
        }
        for outcome in outcomes
    )
    found = {}
    for regime, own in rows.groupby("regime", sort=False):
        pairs = own.drop(columns="regime").groupby(["source", "target"], sort=False).mean().reset_index()
        parts = [name for name in pairs.columns.drop(["source", "target", "over_scratch", "over_plain"])]
        found[str(regime)] = {
            "pairs": [
                {name: value for name, value in row.items() if not pd.isna(value)} for row in pairs.to_dict("records")
            ],
            "correlations": {
                part: {
                    gained: _correlated(pairs[[part, gained]].dropna(), part, gained)
                    for gained in ("over_scratch", "over_plain")
                }
                for part in parts
            },
        }
    return found


def _correlated(pairs: pd.DataFrame, part: str, gained: str) -> dict[str, Any]:
    rho = _rank_correlation(pairs[part].to_numpy(), pairs[gained].to_numpy())
    p = None if rho is None else float(spearmanr(pairs[part], pairs[gained]).pvalue)
    return {"rho": rho, "p": p, "pairs": len(pairs)}


def _rank_correlation(a: np.ndarray, b: np.ndarray) -> float | None:
    """Spearman's; None with fewer than three, or where one of them is constant."""
    if len(a) < 3 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return None
    return float(spearmanr(a, b).statistic)


def _regret(rmse: Mapping[str, float], others: Sequence[str], ours: str = AUTO) -> float:
    return 100 * (rmse[ours] / min(rmse[name] for name in others) - 1)


def _named(contender: str, section: Section) -> str | None:
    """The strategy that a contender stands for here; None where it does not compete."""
    if contender == HINDSIGHT:
        return section.best_strategy if section.strategies else None
    return contender if contender in section.strategies else None
