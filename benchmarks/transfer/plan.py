"""The cells of the benchmark of transfer, and the base predictions that they need."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from benchmarks.transfer.cells import LEAVE_ONE_OUT, OTHERS, PAIRS, PARTS, SHOTS, sources_of
from benchmarks.transfer.hostile import HOSTILE, largest_other
from metarec.cells import Cell
from metarec.errors import InputError
from metarec.ratings import Domain
from metarec.transfer.rounds import REGIMES, Regime

__all__ = ["FEW", "Need", "Request", "cells_of", "needs_of"]

FEW = (5, 20)
"""For pairs of domains and hostile sources: shots, and users of the target."""


@dataclass(frozen=True)
class Request:
    """The requested parts of the benchmark. Raises InputError for wrong values."""

    parts: tuple[str, ...] = PARTS
    shots: tuple[int, ...] = SHOTS
    target_users: tuple[int, ...] = (5, 20, 100)
    rounds: int = 10
    regimes: tuple[str, ...] = REGIMES

    def __post_init__(self) -> None:
        for option, values, allowed in (
            ("--parts", self.parts, PARTS),
            ("--shots", self.shots, SHOTS),
            ("--regimes", self.regimes, REGIMES),
        ):
            if not values or len(set(values)) < len(values) or not set(values) <= set(allowed):
                raise InputError(f"{option} must be different ones of {_listed(allowed)} but got {_listed(values)}")
        users = self.target_users
        if not users or len(set(users)) < len(users) or min(users) < 2:
            raise InputError(f"--target-users must be different numbers >= 2 but got {_listed(users)}")
        if self.rounds < 1:
            raise InputError(f"--rounds must be >= 1 but got {self.rounds}")

    @property
    def all_shots(self) -> tuple[int, ...]:
        """The numbers of shots of all parts, in increasing order."""
        few = () if self.parts == (LEAVE_ONE_OUT,) else FEW[:1]
        return tuple(sorted({*self.shots, *few}))


def cells_of(request: Request, domains: Mapping[str, Domain], facts: Mapping[str, Mapping[str, Any]]) -> list[Cell]:
    """All requested cells.

    Args:
        domains: the group. facts: part -> what its cells depend on besides their keys.
    """
    cells = []
    for part in request.parts:
        if part == LEAVE_ONE_OUT:
            targets = [(target, OTHERS) for target in domains]
            regimes, shots, users = request.regimes, request.shots, request.target_users
        else:
            (shots, users) = ((number,) for number in FEW)
            if part == PAIRS:
                targets = [(target, source) for source in domains for target in domains if target != source]
                regimes = request.regimes
            else:
                largest = {target: largest_other(domains, target) for target in domains}
                targets = [(target, f"{source}-{kind}") for kind in HOSTILE for target, source in largest.items()]
                regimes = tuple(regime for regime in request.regimes if regime == "labels")
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
            for number in range(request.rounds)
            for regime in regimes
            for k in shots
            for target, source in targets
            for count in users
        ]
    return cells


class Need(NamedTuple):
    """The base predictions of one domain for a round: the arguments of `TransferRounds.prepare`."""

    name: str
    target_users: int
    regime: Regime
    number: int


def needs_of(cells: Iterable[Cell], names: Sequence[str]) -> list[Need]:
    """The needs of these cells, each once, with the most target users first; `names` are those of the group."""
    keys = [cell.key for cell in cells]
    needs = (
        Need(name, key["users"], key["regime"], key["round"])
        for key in keys
        for name in (key["target"], *sources_of(key, names))
    )
    return sorted(dict.fromkeys(needs), key=lambda need: -need.target_users)


def _listed(values: Sequence[Any]) -> str:
    return ",".join(map(str, values)) or "none"
