"""The plan of a comparison: its cells, and the rounds that they are computed in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from metarec.episodes import EpisodeSettings
from metarec.episodes.ranking import RankingSettings
from metarec.errors import InputError, check_name
from metarec.evaluation.measures import Measure, measure_of
from metarec.ratings import Domain
from metarec.registry import suggest
from metarec.transfer import RankingRounds, Rounds, TransferRounds, TransferSettings, competitors
from metarec.transfer.competitors import check_competitors
from metarec.transfer.rounds import REGIMES, Regime

__all__ = ["AUTO", "SCRATCH", "CellKey", "ComparisonPlan", "RoundKey", "World"]

AUTO = "auto"
"""The strategy that mixes transferred models with stackers of the few users."""

SCRATCH = "scratch"
"""The strategy that all gains are measured against; every plan has it."""

MOST_SHOTS = 200


class World(NamedTuple):
    """The rounds of one size and number, which share their base recommenders."""

    regime: Regime
    target_users: int
    seed: int


class RoundKey(NamedTuple):
    """One round: all strategies see the same data in it."""

    world: World
    shots: int

    def __str__(self) -> str:
        regime, users, seed = self.world
        ending = "" if regime == "everything" else f", {regime}"
        return f"{self.shots} shots, {users} users, seed {seed}{ending}"


class CellKey(NamedTuple):
    """One strategy in one round."""

    strategy: str
    round: RoundKey

    def __str__(self) -> str:
        return f"{self.strategy}, {self.round}"

    def facts(self) -> dict[str, Any]:
        """Its parts by name, as JSON values."""
        (regime, users, seed), shots = self.round
        return {"strategy": self.strategy, "shots": shots, "target_users": users, "seed": seed, "regime": regime}

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> CellKey:
        """The inverse of `facts`."""
        world = World(facts["regime"], facts["target_users"], facts["seed"])
        return cls(facts["strategy"], RoundKey(world, facts["shots"]))


@dataclass(frozen=True)
class ComparisonPlan:
    """Every strategy for every number of shots and of target users, in rounds 0, 1, …

    Args:
        target: the domain that has few users.
        strategies: names, see :func:`~metarec.transfer.competitors`; ``scratch`` is put first if it is missing.
        shots, target_users: numbers, each in increasing order and once.
        seeds: how many rounds of each kind, each with other target users. The first five test different users.
        regimes: what is scarce in the target.
        fusion: how networks are made and trained, and for which task. episodes: how episodes are cut; `shots` replaces
            its own number. ranking: how lists are made.
        bases: name -> options; None takes all built-in ones that have something to learn from in every domain.
        link_users: whether users with the same id in several domains are one person, see :class:`TransferRounds`.

    Raises:
        InputError: an unknown name, or a number that nothing can be computed for.
    """

    target: str
    strategies: Sequence[str] = field(default_factory=competitors)
    shots: Sequence[int] = (0, 1, 2, 5, 10)
    target_users: Sequence[int] = (5, 20, 100)
    seeds: int = 3
    regimes: Sequence[Regime] = ("everything",)
    fusion: TransferSettings = field(default_factory=TransferSettings)
    episodes: EpisodeSettings = field(default_factory=EpisodeSettings)
    bases: Mapping[str, Mapping[str, Any]] | None = None
    link_users: bool = False
    ranking: RankingSettings = field(default_factory=RankingSettings)

    def __post_init__(self) -> None:
        check_competitors(list(self.strategies), self.fusion.task)
        if self.link_users and self.fusion.task == "ranking":
            raise InputError("--link-users converts ratings between domains, which lists do not have; leave it out")
        for regime in self.regimes:
            if regime not in REGIMES:
                raise InputError(f'--regime: unknown regime "{regime}"; {suggest(regime, [*REGIMES, "both"])}')
        if not (self.shots and self.target_users and self.regimes):
            raise InputError("a comparison needs at least one number of shots, of target users, and one regime")
        for count in self.shots:
            if not 0 <= count <= MOST_SHOTS:
                raise InputError(f"--shots must be numbers in 0..{MOST_SHOTS} but got {count}; leave it out")
        for count in self.target_users:
            if count < 2:
                raise InputError(f"--target-users must be numbers >= 2 but got {count}; leave it out")
        if self.seeds < 1:
            raise InputError(f"--seeds must be >= 1 but got {self.seeds}; ask for at least one round")
        first = () if SCRATCH in self.strategies else (SCRATCH,)
        object.__setattr__(self, "strategies", (*first, *self.strategies))
        object.__setattr__(self, "shots", tuple(sorted(set(self.shots))))
        object.__setattr__(self, "target_users", tuple(sorted(set(self.target_users))))
        object.__setattr__(self, "regimes", tuple(dict.fromkeys(self.regimes)))

    @property
    def measure(self) -> Measure:
        """The measure of the task."""
        return measure_of(self.fusion.task)

    def worlds(self) -> list[World]:
        """In the order of the work."""
        return [
            World(regime, users, seed)
            for regime in self.regimes
            for users in self.target_users
            for seed in range(self.seeds)
        ]

    def cells(self) -> list[CellKey]:
        """In the order of the work: the rounds of one world together, each with all its strategies."""
        rounds = [RoundKey(world, shots) for world in self.worlds() for shots in self.shots]
        return [CellKey(strategy, key) for key in rounds for strategy in self.strategies]

    def make_rounds(self, domains: Mapping[str, Domain], cache: Path | None = None, jobs: int = 1) -> Rounds:
        """The maker of the rounds of one world. It keeps what it has made, so each world gets its own."""
        if self.fusion.task == "ranking":
            return RankingRounds(
                domains,
                self.shots,
                self.episodes,
                ranking=self.ranking,
                bases=self.bases,
                cache=cache,
                jobs=jobs,
            )
        return TransferRounds(
            domains,
            self.shots,
            self.episodes,
            bases=self.bases,
            link_users=self.link_users,
            cache=cache,
            jobs=jobs,
        )

    def check(self, domains: Mapping[str, Domain]) -> None:
        """Check that these domains allow these rounds.

        Raises:
            InputError: a domain that is not there, or too few users for a round.
        """
        check_name("the name of a domain", *domains)
        if self.target not in domains:
            raise InputError(f'--target "{self.target}" is not one of the domains; {suggest(self.target, domains)}')
        if len(domains) < 2:
            raise InputError(f"--data must name a source beside the target {self.target}; add one")
        only_events = [name for name, domain in domains.items() if domain.feedback == "implicit"]
        if self.fusion.task == "rating" and only_events and self.target not in only_events:
            raise InputError(
                f'domain "{only_events[0]}" has only events, and a rated target needs sources with ratings; leave it '
                "out, or use --task ranking, which reads ratings as events"
            )
        rounds = self.make_rounds(domains)
        for regime, users, seed in self.worlds():
            try:
                rounds.check(self.target, target_users=users, regime=regime, number=seed)
            except InputError as error:
                raise InputError(f"--target-users {users}: {error}; give smaller numbers, or more ratings") from None
