"""Aligns the target's features to the most similar source."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from metarec.episodes import Episodes
from metarec.evaluation.measures import Measure, measure_of
from metarec.transfer.similarity import similarities
from metarec.transfer.sources import (
    DomainStep,
    SourceModel,
    Sources,
    TransferredModel,
    out_of_fold,
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
        trials = [self._trial(share, whole.part(share), model, target) for share in SHARES]
        measure = measure_of(target.task)
        chosen = _chosen(trials, measure)
        reasons = {
            "source": source,
            "similarities": similar,
            "share": chosen.share,
            f"{measure.key}_of_shares": {str(one.share): measure.unit_value(target, one.predictions) for one in trials},
            "mean_shift": float(chosen.map.shift.abs().mean()),
            "mean_log_scale": float(chosen.map.log_scale.abs().mean()),
        }
        return _AlignedModel(chosen.map, SteppedModel(model, chosen.map(target)), reasons)

    def _trial(self, share: float, moved: EpisodeMap, model: SourceModel, few: Episodes) -> _Trial:
        aligned = moved(few)
        predicted = out_of_fold(DomainStep, aligned, model.members(aligned), self.settings.folds, self.seed)
        return _Trial(share, moved, predicted, measure_of(few.task).user_sums(few, predicted))


class _Trial(NamedTuple):
    """A share of the map; the out-of-fold predictions [U, N] of the few users with it, and their sums [U]."""

    share: float
    map: EpisodeMap
    predictions: np.ndarray
    sums: np.ndarray


def _chosen(trials: Sequence[_Trial], measure: Measure) -> _Trial:
    """The first trial, unless a later one is clearly better."""
    best, *others = trials
    for other in others:
        gains = measure.user_gains(best.sums, other.sums)
        if gains.sum() > STANDARD_ERRORS * gains.std() * np.sqrt(len(gains)):
            best = other
    return best


class _AlignedModel(TransferredModel):
    def __init__(self, aligner: EpisodeMap, model: SteppedModel, reasons: dict[str, Any]) -> None:
        self._map, self._model, self._reasons = aligner, model, reasons

    def predict(self, episodes: Episodes) -> np.ndarray:
        return self._model.predict(self._map(episodes))

    def reasons(self) -> dict[str, Any]:
        return self._reasons
