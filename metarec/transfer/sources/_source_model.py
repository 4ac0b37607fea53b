"""What is learned from source domains: a fusion with equal weights, or linear stackers alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from metarec.episodes import DomainEpisodes, Episodes
from metarec.meta import MetaLearner
from metarec.model import Fusion, FusionConfig
from metarec.transfer.sources._training import few_users
from metarec.transfer.sources._transferred import TransferredModel
from metarec.transfer.sources.settings import TransferSettings

__all__ = ["SourceModel", "Sources"]

LINEAR_USERS = {"train": 150, "validation": 75}
"""The most users of a source that linear stackers learn from."""

LINEAR = FusionConfig(networks={}, stackers=("ridge", "fwls"), weights="equal")
"""Stackers that are fitted in little time, for decisions that are repeated many times."""


class SourceModel(TransferredModel):
    """A fusion that was learned from sources, and the predictions of its members.

    Attributes:
        fusion: its members have equal weights.
    """

    def __init__(self, fusion: Fusion) -> None:
        self.fusion = fusion

    @classmethod
    def learn(
        cls,
        domains: Sequence[DomainEpisodes],
        config: FusionConfig,
        seed: int,
        *,
        beside: Sequence[Episodes] = (),
    ) -> SourceModel:
        """Learn from the train users of these domains and from `beside`; stop and tune by the validation users."""
        return cls(Fusion(config, seed=seed).fit(domains, beside=beside))

    @property
    def learner(self) -> MetaLearner:
        """The only network."""
        (learner,) = self.fusion.networks.values()
        return learner

    def with_learner(self, learner: MetaLearner) -> SourceModel:
        """The same model with another network in the place of the only one."""
        (name,) = self.fusion.networks
        return SourceModel(self.fusion.with_networks({name: learner}))

    def members(self, episodes: Episodes) -> np.ndarray:
        """[T, N, M] predictions of the query rows by each member."""
        return np.stack(list(self.fusion.members(episodes).values()), axis=-1).astype(np.float64)

    def predict(self, episodes: Episodes) -> np.ndarray:
        """[T, N] the mean of the members."""
        mean: np.ndarray = self.members(episodes).mean(-1)
        return mean


class Sources(Mapping[str, DomainEpisodes]):
    """Source domains by name, and the models that are learned from them: each once for all strategies.

    Args:
        episodes: name -> its episodes; test users are not looked at.
    """

    def __init__(self, episodes: Mapping[str, DomainEpisodes]) -> None:
        self._episodes = dict(episodes)
        self._models: dict[tuple[frozenset[str], int, str], SourceModel] = {}
        self._linear: dict[tuple[frozenset[str], int], SourceModel] = {}

    def __getitem__(self, name: str) -> DomainEpisodes:
        return self._episodes[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._episodes)

    def __len__(self) -> int:
        return len(self._episodes)

    def model(self, settings: TransferSettings, seed: int, names: Sequence[str] | None = None) -> SourceModel:
        """The model that is learned from these sources (by default all), stopped by their validation users."""
        chosen = list(self) if names is None else sorted(names)
        key = (frozenset(chosen), seed, repr(settings))
        if key not in self._models:
            self._models[key] = SourceModel.learn([self[name] for name in chosen], settings.fusion, seed)
        return self._models[key]

    def linear_model(self, names: Sequence[str], seed: int) -> SourceModel:
        """Two linear stackers, fitted on a few users of these sources: nearly as good as :meth:`model`."""
        key = (frozenset(names), seed)
        if key not in self._linear:
            train, validation = (
                Episodes.joined([few_users(getattr(self[name], role), most, seed) for name in sorted(names)])
                for role, most in LINEAR_USERS.items()
            )
            # Nothing of it is tested: the test users of the joined episodes are those of validation.
            self._linear[key] = SourceModel.learn([DomainEpisodes(train, validation, validation)], LINEAR, seed)
        return self._linear[key]
