"""The bars of the benchmark: the gain of transfer, the regret of `auto`, and its answer to hostile sources."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

from benchmarks.transfer.statistics import Against, Errors, MeanGain, Section, gain
from metarec.model.contrasts import STACK

__all__ = [
    "AUTO",
    "FEW_USERS",
    "FIXED",
    "HINDSIGHT",
    "PLAIN_SOURCES",
    "REFERENCES",
    "SCRATCH",
    "WANTED",
    "Condition",
    "FinishedCell",
    "Line",
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
"""Strategies that are fixed before any result."""

HINDSIGHT = "best with hindsight"
REFERENCES = (SCRATCH, "mean", "best-single")
"""Simple alternatives without sources. Where sources are hostile, and in the ledger, `auto` is compared with them."""

PLAIN_SOURCES = ("zero_shot", "pooled")
"""Controls that use the sources plainly."""

FEW_USERS = 20
"""The most target users that count as few."""

WANTED = {"gain_over_scratch": 5.0, "deficit": 0.3, "regret": 1.0}
"""In percent of RMSE: at least, at most, less than."""

THIRDS = 3


class Line(NamedTuple):
    """One line of the tables: a target under one condition, over all draws."""

    regime: str
    users: int
    shots: int
    target: str


class Condition(NamedTuple):
    """A target with few users, for all their numbers and all shots."""

    regime: str
    target: str


class FinishedCell(NamedTuple):
    """A finished cell: its key, its frames `squared` and `absolute`, its notes."""

    key: Mapping[str, Any]
    frames: Mapping[str, pd.DataFrame]
    notes: Mapping[str, Any]

    @property
    def rmse(self) -> dict[str, float]:
        """Competitor -> RMSE on the unit scale."""
        return self.errors_of([self]).rmse()

    @staticmethod
    def errors_of(cells: Sequence[FinishedCell]) -> Errors:
        """The errors of several cells; their rounds are the draws."""
        return Errors.of((cell.key["round"], cell.frames) for cell in cells)

    @property
    def auto(self) -> Mapping[str, Any]:
        """The reasons of `auto`; empty where it did not compete or has none."""
        found: Mapping[str, Any] = self.notes["reasons"].get(AUTO, {})
        return found


def lines_of(cells: Sequence[FinishedCell]) -> dict[Line, Errors]:
    """The errors of each line from those of its rounds."""
    groups: dict[Line, list[FinishedCell]] = {}
    for cell in cells:
        line = Line(*(cell.key[name] for name in Line._fields))
        groups.setdefault(line, []).append(cell)
    order = list(dict.fromkeys(cell.key["target"] for cell in cells))
    lines = sorted(groups, key=lambda line: (line.regime, line.users, order.index(line.target), line.shots))
    return {line: FinishedCell.errors_of(groups[line]) for line in lines}


def pooled_few(cells: Sequence[FinishedCell]) -> dict[Condition, Errors]:
    """The errors with few users for each target and regime, over all numbers of shots and of target users."""
    groups: dict[Condition, list[FinishedCell]] = {}
    for cell in cells:
        if cell.key["users"] <= FEW_USERS:
            condition = Condition(*(cell.key[name] for name in Condition._fields))
            groups.setdefault(condition, []).append(cell)
    return {condition: FinishedCell.errors_of(own) for condition, own in groups.items()}


def few_users_bar(lines: Mapping[Line, Section], pooled: Mapping[Condition, Section]) -> dict[str, Any]:
    """The gains of transfer with few users.

    Returns:
        contender (one of :data:`FIXED`, or :data:`HINDSIGHT`, which takes the best strategy of each target and line)
        -> "regimes": regime -> target -> its gains over scratch, over stack and over the best control with hindsight
        (see :class:`~benchmarks.transfer.statistics.Against`), and whether it is significantly better than every
        control; "mean": regime -> the means of these gains over the targets; "better": regime -> on how many targets
        it is better than each of these; "worst": the line with the lowest gain over the best control, in percent (below
        0: a deficit).
    """
    few = {line: section for line, section in lines.items() if line.users <= FEW_USERS and section.strategies}
    found: dict[str, Any] = {}
    for contender in (*FIXED, HINDSIGHT):
        regimes: dict[str, dict[str, Any]] = {}
        gains_of: dict[str, dict[str, list[Against]]] = {}
        for condition, section in pooled.items():
            name = _named(contender, section)
            if name is not None:
                over = {
                    "over_scratch": section.against[name][SCRATCH],
                    "over_stack": section.against[name][STACK],
                    "over_best_control": section.over_best(name),
                }
                for control, own in over.items():
                    gains_of.setdefault(condition.regime, {}).setdefault(control, []).append(own)
                regimes.setdefault(condition.regime, {})[condition.target] = {
                    "strategy": name,
                    "best_control": section.best_control,
                    **{control: own._asdict() for control, own in over.items()},
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
            "mean": {
                regime: {control: MeanGain.of(several)._asdict() for control, several in own.items()}
                for regime, own in gains_of.items()
            },
            "better": {regime: _count_better(list(targets.values())) for regime, targets in regimes.items()},
            "worst": {"percent": gains[worst], **worst._asdict()},
        }
    return found


def _count_better(entries: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    found = {
        over: sum(one[over]["verdict"] == "better" for one in entries)
        for over in ("over_scratch", "over_stack", "over_best_control")
    }
    return {**found, "over_all_controls": sum(one["better_than_all"] for one in entries)}


def auto_bar(lines: Mapping[Line, Section]) -> dict[str, Any] | None:
    """How often `auto` is significantly worse than the best control, and its regret.

    Returns:
        "lines": how many; "worse": those on which it is worse than the best control; "behind": control -> on how many
        lines the control's RMSE is lower; "regret": the mean excess of its RMSE over the best strategy or control with
        hindsight, in percent; "worst_regret". None where `auto` does not compete.
    """
    own = {line: section for line, section in lines.items() if AUTO in section.strategies}
    if not own:
        return None
    worse, regrets = [], {}
    for line, section in own.items():
        against = section.over_best(AUTO)
        if against.verdict == "worse":
            opponent = section.best_control
            worse.append({**line._asdict(), "opponent": opponent, "percent": against.difference, "p": against.p})
        regrets[line] = _regret(section.rmse, [*section.strategies, *section.controls])
    worst = max(regrets, key=lambda line: regrets[line])
    return {
        "lines": len(own),
        "worse": worse,
        "behind": {
            control: sum(section.rmse[control] < section.rmse[AUTO] for section in own.values())
            for control in next(iter(own.values())).controls
        },
        "regret": float(np.mean(list(regrets.values()))),
        "worst_regret": {"percent": regrets[worst], **worst._asdict()},
    }


def ledger(cells: Sequence[FinishedCell]) -> dict[str, Any] | None:
    """The gains that `auto` predicted, in percent of RMSE, and its gains over the best of :data:`REFERENCES`.

    Returns:
        "rounds": how many, "transferred": in how many of them it learned from sources, "rank_correlation" (Spearman;
        None if undefined), "mean_predicted", "mean_realised", and "thirds": the same means of the rounds
        with the lowest, middle and highest predictions. None where it predicted nothing.
    """
    predicting = [cell for cell in cells if cell.auto.get("predicted_gain") is not None]
    if not predicting:
        return None
    predicted = np.array([float(cell.auto["predicted_gain"]) for cell in predicting])
    realised = np.array([gain(cell.rmse, AUTO, REFERENCES) for cell in predicting])
    order = np.argsort(predicted, kind="stable")
    return {
        "rounds": len(predicting),
        "transferred": sum(bool(cell.auto.get("transfers")) for cell in predicting),
        "rank_correlation": _rank_correlation(predicted, realised),
        "mean_predicted": float(predicted.mean()),
        "mean_realised": float(realised.mean()),
        "thirds": [
            {"predicted": float(predicted[part].mean()), "realised": float(realised[part].mean()), "rounds": len(part)}
            for part in np.array_split(order, THIRDS)
            if len(part)
        ],
    }


def hostile_bar(cells: Sequence[FinishedCell]) -> list[dict[str, Any]]:
    """How often `auto` declined each hostile source, the transferred share, and its regret.

    Regret: the excess of the RMSE over all rounds over the best of :data:`REFERENCES`, in percent; also that of
    `zero_shot`.
    """
    groups: dict[tuple[str, str], list[FinishedCell]] = {}
    for cell in cells:
        if AUTO in cell.frames["squared"]:
            groups.setdefault((cell.key["source"], cell.key["target"]), []).append(cell)
    found = []
    for (source, target), own in groups.items():
        rmse = FinishedCell.errors_of(own).rmse()
        reported = [cell.auto for cell in own if "transfers" in cell.auto]
        shares = [float(reasons["share"]) for reasons in reported if reasons.get("share") is not None]
        found.append(
            {
                "source": source,
                "target": target,
                "rounds": len(own),
                "declined": sum(not reasons["transfers"] for reasons in reported),
                "share": float(np.mean(shares)) if shares else None,
                "regret": _regret(rmse, REFERENCES),
                "regret_of_zero_shot": _regret(rmse, REFERENCES, "zero_shot"),
            }
        )
    return found


def pairs_bar(cells: Sequence[FinishedCell]) -> dict[str, Any]:
    """The correlation of similarity and gain over pairs of domains.

    Returns:
        regime -> "pairs": for each ordered pair the means over rounds of the similarity, of its parts, and of the gain
        of `model_agnostic` over scratch and over the best of mean and best-single, in percent; "correlations": of the
        score and of each part with each gain, over all pairs: Spearman's rho, its p, and how many pairs have the part.
    """
    rows = pd.DataFrame(
        {
            **{name: cell.key[name] for name in ("regime", "source", "target")},
            "score": cell.notes["similarity"]["score"],
            **cell.notes["similarity"]["parts"],
            "over_scratch": gain(cell.rmse, MODEL_AGNOSTIC, [SCRATCH]),
            "over_plain": gain(cell.rmse, MODEL_AGNOSTIC, ["mean", "best-single"]),
        }
        for cell in cells
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
    """Spearman's; None for fewer than three values or constant ones."""
    if len(a) < 3 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return None
    return float(spearmanr(a, b).statistic)


def _regret(rmse: Mapping[str, float], others: Sequence[str], ours: str = AUTO) -> float:
    return 100 * (rmse[ours] / min(rmse[name] for name in others) - 1)


def _named(contender: str, section: Section) -> str | None:
    """The strategy of a contender in this section; None where it does not compete."""
    if contender == HINDSIGHT:
        return section.best_strategy if section.strategies else None
    return contender if contender in section.strategies else None
