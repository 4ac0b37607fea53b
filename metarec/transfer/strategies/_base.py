"""The interface of transfer strategies."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar

from metarec.episodes import DomainEpisodes, Episodes
from metarec.errors import InputError
from metarec.transfer.sources import Sources, TransferredModel, TransferSettings

__all__ = ["TransferStrategy"]


class TransferStrategy(ABC):
    """Fits a model for a target domain with few users, with the help of source domains.

    Args:
        settings: the fusion network and its training, the same for all strategies in a comparison.
        seed: of the network's initial parameters, the order of the tasks, and the folds of the target's users.
    """

    name: ClassVar[str]
    needs_sources: ClassVar[bool] = True

    def __init__(self, settings: TransferSettings | None = None, *, seed: int = 0) -> None:
        self.settings = TransferSettings() if settings is None else settings
        self.seed = seed

    def fit(self, sources: Mapping[str, DomainEpisodes], target: Episodes) -> TransferredModel:
        """Train on the sources' train users, stop by their validation users, and adapt to the target.

        Args:
            sources: name -> a source's episodes; their test users are not used. Strategies that are given the same
                :class:`~metarec.transfer.Sources` share its source models.
            target: the episodes of the target's few users.

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
        return self._fit(sources if isinstance(sources, Sources) else Sources(sources), target)

    @abstractmethod
    def _fit(self, sources: Sources, target: Episodes) -> TransferredModel: ...
