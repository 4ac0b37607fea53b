"""Serves users as a trained model does, from ratings to scores of items, and times every part."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np

from metarec.bases import BASES, applicable_bases
from metarec.episodes import (
    DomainEpisodes,
    EpisodeSettings,
    History,
    TaskMaker,
    assign_roles,
    build_episodes,
)
from metarec.meta import MetaLearner, MetaLearningTrainer, Shape
from metarec.ratings import Domain
from metarec.study.networks import network_config
from metarec.study.spec import StudySpec

__all__ = ["CASES", "PARTS", "Case", "Clock", "World", "in_parts", "one_by_one", "prepare"]

SHOTS = 10
EPOCHS = 3
"""Few, because training does not change the time of a prediction."""


@dataclass(frozen=True)
class Case:
    """A network, its inner steps, its engine, and the items that are scored.

    `items` are those "rated most", for which a base has the most to compute, or "drawn" from all train items.
    """

    network: str = "gated"
    steps: int = 1
    engine: str = "batched"
    items: str = "rated most"

    @property
    def name(self) -> str:
        """In words."""
        return f"{self.network}, {self.steps} step{'s' * (self.steps != 1)}, {self.engine}, items {self.items}"

    @property
    def training(self) -> Case:
        """The case whose trained network this case uses."""
        return Case(self.network, self.steps)


CASES: tuple[Case, ...] = (
    Case(),
    Case(items="drawn"),
    Case(steps=5),
    Case("attention"),
    Case("attention", steps=5),
    *(Case(network, steps, engine) for engine in ("learn2learn", "higher") for network in ("gated", "attention")
      for steps in (1, 5)),
)  # fmt: skip
"""The first is the default of a study."""

PARTS = ("features", "adapt", "predict")
"""The timed parts, besides the bases."""


class Clock:
    """Seconds by part."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def add(self, part: str, seconds: float) -> None:
        """Count seconds for a part."""
        self.seconds[part] = self.seconds.get(part, 0.0) + seconds

    def timed(self, part: str, call: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap a function so that the time of its calls counts for a part."""

        def run(*arguments: Any) -> Any:
            start = time.perf_counter()
            result = call(*arguments)
            self.add(part, time.perf_counter() - start)
            return result

        return run

    def take(self) -> dict[str, float]:
        """Return the seconds so far and reset the clock."""
        taken, self.seconds = self.seconds, {}
        return taken


@dataclass(frozen=True)
class World:
    """One set of ratings, ready to serve.

    Attributes:
        maker: makes the tasks of new users; its bases run on `clock`.
        learners: by case, its network meta-learned.
        users: new users, who are in no fit: the history of each, and the items to score by `Case.items`.
    """

    name: str
    maker: TaskMaker
    clock: Clock
    learners: Mapping[Case, MetaLearner]
    users: Sequence[tuple[History, Mapping[str, np.ndarray]]]


def prepare(
    domain: Domain,
    cases: Sequence[Case],
    *,
    items: int,
    seed: int = 0,
    cache: Path | None = None,
    on_progress: Callable[[int, int, str], None] | None = None,
) -> World:
    """Build the episodes of a domain, meta-learn the networks, and fit the bases on all train users.

    Args:
        items: how many are scored; fewer where the domain has fewer.
    """
    settings = EpisodeSettings(shots=SHOTS)
    domains = {domain.name: domain}
    bases: dict[str, dict[str, Any]] = {name: {} for name in applicable_bases(BASES.names(), [domain])}
    built = build_episodes(
        domains, domain.name, settings, bases, seed=seed, cache=cache, on_progress=on_progress
    )[domain.name]  # fmt: skip
    assert built.standards is not None
    roles = assign_roles(domains, domain.name, settings, seed)
    fit_on = domain.without(roles.held_out(None))
    maker = TaskMaker.fit(fit_on, bases, built.standards, seed=seed)
    clock = Clock()
    for name, base in maker.bases.items():
        # On the object itself: a wrapped base would predict query by query, as a plug-in does.
        setattr(base, "answer_queries", clock.timed(name, base.answer_queries))  # type: ignore[attr-defined] # noqa: B010
    return World(
        domain.name, maker, clock, _learners(cases, built, seed), list(_users(domain, fit_on, built, items, seed))
    )


def _learners(cases: Sequence[Case], episodes: DomainEpisodes, seed: int) -> dict[Case, MetaLearner]:
    trained: dict[Case, MetaLearner] = {}
    for case in dict.fromkeys(case.training for case in cases):
        trained[case] = learner = _learner(case, episodes, seed)
        trainer = MetaLearningTrainer(learner, seed=seed)
        trainer.fit(
            episodes.train.batch, episodes.validation.batch, num_epochs=EPOCHS, learning_rate=3e-3, batch_size=128
        )
    learners = {}
    for case in cases:
        # A separate learner for each case, so that its first call is measured.
        learners[case] = _learner(case, episodes, seed)
        learners[case].load_state_dict(copy.deepcopy(trained[case.training].state_dict()))
        learners[case].eval()
    return learners


def _learner(case: Case, episodes: DomainEpisodes, seed: int) -> MetaLearner:
    spec = StudySpec.model_validate({"fusion": {"network": case.network}, "seed": seed})
    config = network_config(spec, {**spec.trial_zero, "inner_steps": case.steps})
    return config.model_copy(update={"engine": case.engine}).build(Shape.of(episodes.test.batch), spec.seed)


def _users(
    domain: Domain, fit_on: Domain, episodes: DomainEpisodes, count: int, seed: int
) -> Iterator[tuple[History, dict[str, np.ndarray]]]:
    counts = fit_on.ratings["item"].value_counts()
    # Ties are ordered by id, so that the items are the same on every machine.
    by_ratings = counts.sort_index().sort_values(ascending=False, kind="stable").index.to_numpy(dtype=object)
    rng = np.random.default_rng([seed, 3])
    for user, rated in zip(episodes.test.users, episodes.test.support_items, strict=True):
        own = domain.ratings[domain.ratings["user"] == user].set_index("item").loc[rated].reset_index()
        new = by_ratings[~np.isin(by_ratings, rated)]
        yield History.of(own), {"rated most": new[:count], "drawn": rng.permutation(new)[:count]}


def serve(world: World, case: Case, users: Sequence[tuple[History, Mapping[str, np.ndarray]]]) -> dict[str, float]:
    """Score the items for some users together: the seconds of each part, and in "total" of everything."""
    learner, clock = world.learners[case], world.clock
    clock.take()
    start = time.perf_counter()
    folded = world.maker.users([history for history, _ in users])
    prepared = time.perf_counter()
    adapted = learner.adapt(folded.support)
    ready = time.perf_counter()
    query = folded.query([items[case.items] for _, items in users])
    queried = time.perf_counter()
    scores = adapted.predict(query)
    done = time.perf_counter()
    if not (scores[query.mask] >= 0).all():
        raise FloatingPointError(f"{case.name} predicts invalid scores")
    bases = clock.take()
    return {
        **bases,
        "features": (prepared - start) + (queried - ready) - sum(bases.values()),
        "adapt": ready - prepared,
        "predict": done - queried,
        "total": done - start,
    }


def one_by_one(world: World, cases: Sequence[Case], *, rounds: int, limit: int) -> Iterator[dict[str, Any]]:
    """One user at a time, each case in turn, round after round; rows of case, round, and the seconds of each part.

    Round 0 has one user for each case and includes one-time costs.

    Args:
        limit: how many users at most.
    """
    for number in range(rounds + 1):
        for case in cases:
            # Fewer users are enough for the engines that are only compared with.
            count = limit if case.engine == "batched" else max(limit // 5, 1)
            for user in world.users[: count if number else 1]:
                yield {"set": world.name, **asdict(case), "round": number, **serve(world, case, [user])}


def in_parts(world: World, case: Case, *, users: int, part: int) -> dict[str, float]:
    """The seconds of each part for many users, `part` at a time; users may be repeated."""
    everyone = list(islice(cycle(world.users), users))
    sums: dict[str, float] = {}
    for first in range(0, users, part):
        for name, seconds in serve(world, case, everyone[first : first + part]).items():
            sums[name] = sums.get(name, 0.0) + seconds
    return sums
