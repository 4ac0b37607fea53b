"""The target's features are made to look like those of the most similar source, whose model is then asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from metarec.episodes import Episodes
from metarec.transfer.similarity import similarities
from metarec.transfer.sources import SourceModel, Sources, TransferredModel, squared_errors, stepped_out_of_fold
from metarec.transfer.strategies._aligned_episodes import EpisodeMap, moment_map
from metarec.transfer.strategies._base import TransferStrategy
from metarec.transfer.strategies.model_agnostic import SteppedModel

__all__ = ["FeatureAlignment"]

SHARES = (1.0, 0.5, 0.0)
"""Of the map; less comes later, and has to be clearly better."""

CLEAR = 2.0
"""How many standard errors, over users, are clearly more than nothing."""


class FeatureAlignment(TransferStrategy):
    """The target's features are made to look like those of the most similar source, whose model is then asked.

    Features are aligned by their moments (after CORAL, Sun et al. 2016), each as far as the few users' features bear it
    out (:func:`~metarec.transfer.strategies._aligned_episodes.moment_map`); then the step to the domain is taken
    (:class:`~metarec.transfer.sources.DomainStep`). Half of the map, or none of it, is taken where it clearly errs less
    on users of the few whom that step has not seen. Features say much more about how far to align than so few
    ratings do, so that these only have a veto: where they were to decide, most of what alignment gains was lost on
    simulated domains that are shifted and scaled against each other.
    """

    name: ClassVar[str] = "feature_alignment"
    needs_sources: ClassVar[bool] = True

    def _fit(self, sources: Sources, target: Episodes) -> TransferredModel:
        alike = similarities(sources, target)
        source = min(alike, key=lambda name: (-alike[name], name))
        model = sources.model(self.settings, self.seed, [source])
        whole = moment_map(sources[source].train, target)
        tried = [_Tried.of(share, whole.part(share), model, target, self.settings.folds, self.seed) for share in SHARES]
        return _AlignedModel(model, target, source, alike, tried)


@dataclass(frozen=True)
class _Tried:
    """A share of the map, and [U] the squared errors of each of the few users after it, summed over query rows."""

    share: float
    map: EpisodeMap
    errors: np.ndarray

    @classmethod
    def of(cls, share: float, moved: EpisodeMap, model: SourceModel, few: Episodes, folds: int, seed: int) -> _Tried:
        aligned = moved(few)
        predicted = stepped_out_of_fold(aligned, model.members(aligned), folds, seed)
        return cls(share, moved, squared_errors(aligned, predicted))


def _chosen(tried: Sequence[_Tried]) -> _Tried:
    """The first, unless a later one is clearly better."""
    best, *others = tried
    for other in others:
        gains = best.errors - other.errors
        if gains.sum() > CLEAR * gains.std() * np.sqrt(len(gains)):
            best = other
    return best


class _AlignedModel(TransferredModel):
    def __init__(
        self, model: SourceModel, few: Episodes, source: str, alike: Mapping[str, float], tried: Sequence[_Tried]
    ) -> None:
        chosen = _chosen(tried)
        self._map = chosen.map
        self._model = SteppedModel(model, self._map(few))
        rows = int(few.batch.query.mask.sum())
        self._reasons = {
            "source": source,
            "similarities": dict(alike),
            "share": chosen.share,
            "rmse_of_shares": {str(one.share): float(np.sqrt(one.errors.sum() / rows)) for one in tried},
            "mean_shift": float(self._map.shift.abs().mean()),
            "mean_log_scale": float(self._map.log_scale.abs().mean()),
        }

    def predict(self, episodes: Episodes) -> np.ndarray:
        return self._model.predict(self._map(episodes))

    def reasons(self) -> dict[str, Any]:
        return self._reasons
