"""What source domains teach: a combination of a fusion network and of stackers, all trained on the same episodes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from metarec.episodes import DomainEpisodes, Episodes
from metarec.fusion.stackers import STACKERS, Stacker
from metarec.meta import MetaLearner
from metarec.transfer._models import TransferredModel
from metarec.transfer._training import few_users, train_on_sources
from metarec.transfer.settings import FusionSettings

__all__ = ["Sources", "Taught", "learn", "network_predictions"]

LINEARLY = {"train": 150, "validation": 75}
"""How many users of a source linear stackers learn from, at most."""


class Taught(TransferredModel):
    """A network and stackers that learned from the same episodes; they err differently, and their mean is better.

    Attributes:
        learner: adapts the network to each user. stackers: name -> the fitted one.
    """

    def __init__(self, learner: MetaLearner, stackers: Mapping[str, Stacker]) -> None:
        self.learner = learner
        self.stackers = dict(stackers)

    def members(self, episodes: Episodes) -> np.ndarray:
        """[T, N, M] predictions of the query rows by the network and by each stacker."""
        others = [stacker.predict(episodes) for stacker in self.stackers.values()]
        return np.stack([network_predictions(self.learner, episodes), *others], axis=-1)

    def predict(self, episodes: Episodes) -> np.ndarray:
        """[T, N] the mean of the members."""
        mean: np.ndarray = self.members(episodes).mean(-1)
        return mean


class LinearlyTaught:
    """Stackers alone, for decisions that have to be played through many times."""

    def __init__(self, stackers: Sequence[Stacker]) -> None:
        self._stackers = list(stackers)

    def members(self, episodes: Episodes) -> np.ndarray:
        """[T, N, M] predictions of the query rows by each stacker."""
        return np.stack([stacker.predict(episodes) for stacker in self._stackers], axis=-1)


class Sources(Mapping[str, DomainEpisodes]):
    """Source domains by name, and what they teach: learned once for all strategies that ask for the same.

    Args:
        episodes: name -> its episodes; test users are not looked at.
    """

    def __init__(self, episodes: Mapping[str, DomainEpisodes]) -> None:
        self._episodes = dict(episodes)
        self._taught: dict[tuple[frozenset[str], int, str], Taught] = {}
        self._linear: dict[tuple[frozenset[str], int], LinearlyTaught] = {}

    def __getitem__(self, name: str) -> DomainEpisodes:
        return self._episodes[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._episodes)

    def __len__(self) -> int:
        return len(self._episodes)

    def teach(self, settings: FusionSettings, seed: int, names: Sequence[str] | None = None) -> Taught:
        """What these sources teach (by default all), with early stopping by their validation users."""
        chosen = list(self) if names is None else sorted(names)
        key = (frozenset(chosen), seed, repr(settings))
        if key not in self._taught:
            self._taught[key] = learn([self[name] for name in chosen], settings, seed)
        return self._taught[key]

    def teach_linear(self, names: Sequence[str], seed: int) -> LinearlyTaught:
        """What two linear stackings learn from these sources: little beside :meth:`teach`, and nearly as good."""
        key = (frozenset(names), seed)
        if key not in self._linear:
            train, validation = (
                Episodes.joined([few_users(getattr(self[name], role), most, seed) for name in sorted(names)])
                for role, most in LINEARLY.items()
            )
            self._linear[key] = LinearlyTaught(
                [STACKERS.get(name)().fit(train, validation, seed=seed) for name in ("ridge", "fwls")]
            )
        return self._linear[key]


def learn(
    domains: Sequence[DomainEpisodes], settings: FusionSettings, seed: int, *, beside: Sequence[Episodes] = ()
) -> Taught:
    """Train on the train users of these domains, and on the episodes `beside` them; stop by the validation users."""
    learner = settings.start(domains[0].train, seed)
    train_on_sources(learner, domains, settings, seed, beside=beside)
    train = Episodes.joined([*(domain.train for domain in domains), *beside])
    validation = Episodes.joined([domain.validation for domain in domains])
    return Taught(learner, {name: STACKERS.get(name)().fit(train, validation, seed=seed) for name in settings.stackers})


def network_predictions(learner: MetaLearner, episodes: Episodes) -> np.ndarray:
    """[T, N] what a network predicts of each user's query rows, adapted to the user's support rows."""
    said = learner.adapt(episodes.batch.support).predict(episodes.batch.query)
    return said.detach().cpu().numpy().astype(np.float64)
