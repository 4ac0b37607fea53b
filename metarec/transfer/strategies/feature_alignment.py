"""Aligns the target's features to the most similar source."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from metarec.episodes import Episodes
from metarec.transfer.similarity import similarities
from metarec.transfer.sources import (
    DomainStep,
    SourceModel,
    Sources,
    TransferredModel,
    out_of_fold,
    user_squared_errors,
)
from metarec.transfer.strategies._base import TransferStrategy
from metarec.transfer.strategies.model_agnostic import SteppedModel
from metarec.transfer.strategies.parts.aligned_episodes import EpisodeMap, moment_map

__all__ = ["FeatureAlignment"]

SHARES = (1.0, 0.5, 0.0)
"""Of the map, in order of preference: a later one has to be clearly better."""

STANDARD_ERRORS = 2.0
"""Over users: a clear difference is more than this many."""


class FeatureAlignment(TransferStrategy):
    """Aligns the target's features to those of the most similar source and applies the source's model to them.

    Features are aligned by their moments (after CORAL, Sun et al. 2016), with shrinkage for the few users
    (:func:`~metarec.transfer.strategies.parts.aligned_episodes.moment_map`); then the step to the domain is taken
    (:class:`~metarec.transfer.sources.DomainStep`). Half of the map, or none of it, is used where its out-of-fold
    errors are clearly smaller. So few ratings only have this veto: where they decided, most of the gain of alignment
    was lost on simulated domains that are shifted and scaled against each other.
    """

    name = "feature_alignment"

    def _fit(self, sources: Sources, target: Episodes) -> TransferredModel:
        similar = similarities(sources, target)
        source = min(similar, key=lambda name: (-similar[name], name))
        model = sources.model(self.settings, self.seed, [source])
        whole = moment_map(sources[source].train, target)
        trials = [
            _Trial.of(share, whole.part(share), model, target, self.settings.folds, self.seed) for share in SHARES
        ]
        return _AlignedModel(model, target, source, similar, trials)


@dataclass(frozen=True)
class _Trial:
    """A share of the map, and [U] the out-of-fold squared errors of the few users with it, summed over query rows."""

    share: float
    map: EpisodeMap
    errors: np.ndarray

    @classmethod
    def of(cls, share: float, moved: EpisodeMap, model: SourceModel, few: Episodes, folds: int, seed: int) -> _Trial:
        aligned = moved(few)
        predicted = out_of_fold(DomainStep, aligned, model.members(aligned), folds, seed)
        return cls(share, moved, user_squared_errors(aligned, predicted))


def _chosen(trials: Sequence[_Trial]) -> _Trial:
    """The first trial, unless a later one is clearly better."""
    best, *others = trials
    for other in others:
        gains = best.errors - other.errors
        if gains.sum() > STANDARD_ERRORS * gains.std() * np.sqrt(len(gains)):
            best = other
    return best


class _AlignedModel(TransferredModel):
    def __init__(
        self, model: SourceModel, few: Episodes, source: str, similar: Mapping[str, float], trials: Sequence[_Trial]
    ) -> None:
        chosen = _chosen(trials)
        self._map = chosen.map
        self._model = SteppedModel(model, self._map(few))
        rows = int(few.batch.query.mask.sum())
        self._reasons = {
            "source": source,
            "similarities": dict(similar),
            "share": chosen.share,
            "rmse_of_shares": {str(one.share): float(np.sqrt(one.errors.sum() / rows)) for one in trials},
            "mean_shift": float(self._map.shift.abs().mean()),
            "mean_log_scale": float(self._map.log_scale.abs().mean()),
        }

    def predict(self, episodes: Episodes) -> np.ndarray:
        return self._model.predict(self._map(episodes))

    def reasons(self) -> dict[str, Any]:
        return self._reasons
