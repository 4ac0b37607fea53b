"""What every transfer strategy offers: a model for a target of which a few users are known."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar

from metarec.episodes import DomainEpisodes, Episodes
from metarec.errors import InputError
from metarec.transfer.sources import Sources, TransferredModel, TransferSettings

__all__ = ["TransferStrategy", "TransferredModel"]


class TransferStrategy(ABC):
    """Carries what source domains know to a target domain with few users.

    Args:
        settings: the fusion network and its training, the same for all strategies that are compared.
        seed: of the network's start, the order of the tasks, and the folds of the target's users.
    """

    name: ClassVar[str]
    needs_sources: ClassVar[bool]

    def __init__(self, settings: TransferSettings | None = None, *, seed: int = 0) -> None:
        self.settings = TransferSettings() if settings is None else settings
        self.seed = seed

    def fit(self, sources: Mapping[str, DomainEpisodes], target: Episodes) -> TransferredModel:
        """Learn from the sources' train users, stop by their validation users, and go on to the target.

        Args:
            sources: name -> a source's episodes; their test users are not looked at. What they teach is learned once
                for all strategies that are handed the same :class:`~metarec.transfer.Sources`.
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
        return self._fit(sources if isinstance(sources, Sources) else Sources(sources), target)

    @abstractmethod
    def _fit(self, sources: Sources, target: Episodes) -> TransferredModel: ...
