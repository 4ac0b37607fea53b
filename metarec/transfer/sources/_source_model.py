"""Models of source domains: a fusion with equal weights, or linear stackers alone."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import Any, TypeVar, cast

import numpy as np

from metarec.episodes import DomainEpisodes, Episodes
from metarec.fusion import Task
from metarec.meta import MetaLearner
from metarec.model import Fusion, FusionConfig, mean_of
from metarec.transfer.sources._few_users import few_users
from metarec.transfer.sources._settings import TransferSettings

__all__ = ["SourceModel", "Sources", "TransferredModel"]

LINEAR_USERS = {"train": 150, "validation": 75}
"""The most users of a source that linear stackers are fitted on."""

LINEAR: Mapping[Task, FusionConfig] = {
    "rating": FusionConfig(networks={}, stackers=("ridge", "fwls"), weights="equal"),
    "ranking": FusionConfig(task="ranking", networks={}, stackers=("greedy", "logistic"), weights="equal"),
}
"""Stackers that are fast to fit, for decisions that are repeated many times."""

Kept = TypeVar("Kept")


class TransferredModel(ABC):
    """The model that a strategy fits for a target domain."""

    @abstractmethod
    def predict(self, episodes: Episodes) -> np.ndarray:
        """[T, N] predictions of the query rows of the target's users, on the unit scale, in [0, 1].

        In ranking they are scores of the candidates, higher is better, on a scale of their own.
        """

    def reasons(self) -> dict[str, Any]:
        """The choices of the strategy and their grounds, as JSON values."""
        return {}


class SourceModel(TransferredModel):
    """A fusion with equal weights, trained on sources, and the predictions of its members."""

    def __init__(self, fusion: Fusion) -> None:
        self.fusion = fusion

    @classmethod
    def learn(
        cls, domains: Sequence[DomainEpisodes], config: FusionConfig, seed: int, *, beside: Sequence[Episodes] = ()
    ) -> SourceModel:
        """Train on the train users of these domains and on `beside`; stop and tune by their validation users."""
        return cls(Fusion(config, seed=seed).fit(domains, beside=beside))

    @property
    def learner(self) -> MetaLearner:
        """The only network."""
        (learner,) = self.fusion.networks.values()
        assert isinstance(learner, MetaLearner), "source models are fitted once"
        return learner

    def with_learner(self, learner: MetaLearner) -> SourceModel:
        """The same model with its only network replaced."""
        (name,) = self.fusion.networks
        return SourceModel(self.fusion.with_networks({name: learner}))

    def members(self, episodes: Episodes) -> np.ndarray:
        """[T, N, M] predictions of the query rows by each member."""
        return np.stack(list(self.fusion.members(episodes).values()), axis=-1).astype(np.float64)

    def predict(self, episodes: Episodes) -> np.ndarray:
        """[T, N] the mean of the members."""
        return mean_of(list(np.moveaxis(self.members(episodes), -1, 0)), episodes)


class Sources(Mapping[str, DomainEpisodes]):
    """Source domains by name, and their models; each model is trained once for all strategies.

    Args:
        episodes: name -> its episodes; test users are not used.
    """

    def __init__(self, episodes: Mapping[str, DomainEpisodes]) -> None:
        self._episodes = dict(episodes)
        self._kept: dict[Hashable, Any] = {}

    def __getitem__(self, name: str) -> DomainEpisodes:
        return self._episodes[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._episodes)

    def __len__(self) -> int:
        return len(self._episodes)

    def keep(self, key: Hashable, make: Callable[[], Kept]) -> Kept:
        """The result of `make`, which is called once for each key."""
        if key not in self._kept:
            self._kept[key] = make()
        return cast(Kept, self._kept[key])

    def model(self, settings: TransferSettings, seed: int, names: Sequence[str] | None = None) -> SourceModel:
        """The model of these sources (by default all), stopped by their validation users."""
        chosen = list(self) if names is None else sorted(names)
        return self.keep(
            ("model", frozenset(chosen), seed, repr(settings)),
            lambda: SourceModel.learn([self[name] for name in chosen], settings.fusion, seed),
        )

    def linear_model(self, names: Sequence[str], seed: int) -> SourceModel:
        """Two linear stackers, fitted on a few users of these sources; nearly as accurate as :meth:`model`."""
        return self.keep(("linear model", frozenset(names), seed), lambda: self._linear_model(names, seed))

    def _linear_model(self, names: Sequence[str], seed: int) -> SourceModel:
        train, validation = (
            Episodes.joined([few_users(getattr(self[name], role), most, seed) for name in sorted(names)])
            for role, most in LINEAR_USERS.items()
        )
        # Fitting uses no test users, so the validation users stand in for them.
        return SourceModel.learn([DomainEpisodes(train, validation, validation)], LINEAR[train.task], seed)
