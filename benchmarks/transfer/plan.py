"""Which cells the benchmark of transfer consists of, and what bases must have said before they are computed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from benchmarks.transfer.cells import LEAVE_ONE_OUT, OTHERS, PAIRS, PARTS, SHOTS, sources_of
from benchmarks.transfer.hostile import HOSTILE, largest_other
from metarec.cells import Cell
from metarec.errors import InputError
from metarec.ratings import Domain
from metarec.transfer.rounds import FOLDS, REGIMES, Regime

__all__ = ["FEW", "Asked", "Need", "cells_of", "needs_of"]

FEW = (5, 20)
"""Of pairs of domains and of hostile sources: shots, and known users of the target."""


@dataclass(frozen=True)
class Asked:
    """What is asked for. Raises InputError where that cannot be."""

    parts: tuple[str, ...] = PARTS
    shots: tuple[int, ...] = SHOTS
    target_users: tuple[int, ...] = (5, 20, 100)
    rounds: int = 3
    regimes: tuple[str, ...] = REGIMES

    def __post_init__(self) -> None:
        for option, values, known in (
            ("--parts", self.parts, PARTS),
            ("--shots", self.shots, SHOTS),
            ("--regimes", self.regimes, REGIMES),
        ):
            if not values or len(set(values)) < len(values) or not set(values) <= set(known):
                raise InputError(f"{option} must be different ones of {_listed(known)} but got {_listed(values)}")
        users = self.target_users
        if not users or len(set(users)) < len(users) or min(users) < 2:
            raise InputError(f"--target-users must be different numbers >= 2 but got {_listed(users)}")
        # Test users of more rounds than there are folds would no longer be different people.
        if not 1 <= self.rounds <= FOLDS:
            raise InputError(f"--rounds must be in 1..{FOLDS} but got {self.rounds}")


def cells_of(asked: Asked, domains: Mapping[str, Domain], facts: Mapping[str, Mapping[str, Any]]) -> list[Cell]:
    """All cells that are asked for.

    Args:
        domains: the group. facts: part -> what its cells depend on besides their keys.
    """
    cells = []
    for part in asked.parts:
        if part == LEAVE_ONE_OUT:
            targets = [(target, OTHERS) for target in domains]
            regimes, shots, users = asked.regimes, asked.shots, asked.target_users
        else:
            (shots, users) = ((number,) for number in FEW)
            if part == PAIRS:
                targets = [(target, source) for source in domains for target in domains if target != source]
                regimes = asked.regimes
            else:
                largest = {target: largest_other(domains, target) for target in domains}
                targets = [(target, f"{source}-{kind}") for kind in HOSTILE for target, source in largest.items()]
                regimes = tuple(regime for regime in asked.regimes if regime == "labels")
        cells += [
            Cell(
                {
                    "part": part,
                    "target": target,
                    "source": source,
                    "regime": regime,
                    "shots": k,
                    "users": count,
                    "round": number,
                },
                facts[part],
            )
            for number in range(asked.rounds)
            for regime in regimes
            for k in shots
            for target, source in targets
            for count in users
        ]
    return cells


class Need(NamedTuple):
    """A domain of which the bases must have said what a round needs; the arguments of `TransferRounds.prepare`."""

    name: str
    target_users: int
    regime: Regime
    number: int


def needs_of(cells: Iterable[Cell], names: Sequence[str]) -> list[Need]:
    """What these cells need, each once, and what may be too much to ask for first; `names` are those of the group."""
    keys = [cell.key for cell in cells]
    needs = (
        Need(name, key["users"], key["regime"], key["round"])
        for key in keys
        for name in (key["target"], *sources_of(key, names))
    )
    return sorted(dict.fromkeys(needs), key=lambda need: -need.target_users)


def _listed(values: Sequence[Any]) -> str:
    return ",".join(map(str, values)) or "none"
