"""What every transfer strategy offers: a model for a target of which a few users are known."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor

from metarec.episodes import DomainEpisodes, Episodes
from metarec.errors import InputError
from metarec.meta import MetaLearner
from metarec.transfer.settings import FusionSettings

__all__ = ["AdaptingModel", "TransferStrategy", "TransferredModel"]


class TransferredModel(ABC):
    """What a strategy made for a target domain."""

    @abstractmethod
    def predict(self, episodes: Episodes) -> Tensor:
        """[T, N] predictions of the query rows of the target's users, on the unit scale, in [0, 1]."""


class AdaptingModel(TransferredModel):
    """A meta-learner that adapts to each user's support rows."""

    def __init__(self, learner: MetaLearner) -> None:
        self.learner = learner

    def predict(self, episodes: Episodes) -> Tensor:
        return self.learner.adapt(episodes.batch.support).predict(episodes.batch.query)


class TransferStrategy(ABC):
    """Carries what source domains know to a target domain with few users.

    Args:
        settings: the fusion network and its training, the same for all strategies that are compared.
        seed: of the network's start, the order of the tasks, and the folds of the target's users.
    """

    name: ClassVar[str]
    needs_sources: ClassVar[bool]

    def __init__(self, settings: FusionSettings | None = None, *, seed: int = 0) -> None:
        self.settings = FusionSettings() if settings is None else settings
        self.seed = seed

    def fit(self, sources: Mapping[str, DomainEpisodes], target: Episodes) -> TransferredModel:
        """Learn from the sources' train users, stop by their validation users, and go on to the target.

        Args:
            sources: name -> a source's episodes; their test users are not looked at.
            target: the episodes of the few users of the target that are known.

        Raises:
            InputError: the target has no user, there is no source where one is needed, or a source has other bases or
                features than the target.
        """
        if not len(target):
            raise InputError(f'target "{target.domain}" must have at least one user but has none')
        if self.needs_sources and not sources:
            raise InputError(f'strategy "{self.name}" needs at least one source domain but got none')
        for name, source in sources.items():
            for what in ("base_names", "feature_names", "context_names"):
                own, wanted = getattr(source.train, what), getattr(target, what)
                if own != wanted:
                    raise InputError(f'source "{name}" must have the {what} {wanted} of the target but has {own}')
        return self._fit(sources, target)

    @abstractmethod
    def _fit(self, sources: Mapping[str, DomainEpisodes], target: Episodes) -> TransferredModel: ...
