"""Decides from the target's few users whether to transfer, and how much."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from metarec.episodes import Episodes
from metarec.evaluation.measures import measure_of
from metarec.model import mean_of
from metarec.transfer.similarity import similarities
from metarec.transfer.sources import (
    CrossFitted,
    SourceModel,
    Sources,
    TransferredModel,
    few_users,
    out_of_fold,
)
from metarec.transfer.strategies._base import TransferStrategy
from metarec.transfer.strategies.parts.candidates import OWN, TRANSFERRED, Candidates
from metarec.transfer.strategies.parts.gain import ExpectedGain, posterior_gain, prior_gain
from metarec.transfer.strategies.parts.mixing import Mixing, mixing_of

__all__ = ["Auto", "AutoModel"]

SHARPNESS = 5.0
"""A source's experience counts e times more for each 0.2 of similarity to the target. It is small because similarity
did not predict the gain between seven sets; 0 to 10 were equally good."""

DRAWS = 3
"""How often a source is taken as the target, each time with other few users: errors depend on the draw."""

LEAST_SHARE = 0.1
"""The least total weight of the transferred candidates; below it nothing is transferred."""

USUAL_SPREAD = 0.3
"""The spread of users' parts in a gain, where there is no source experience."""


class Auto(TransferStrategy):
    """Mixes transferred models with stackers of the target's few users, by stacking weights.

    The candidates are the source models without and with a step to the domain, and five stackers of the bases that are
    fitted on the few users. Their weights are the best for the expected users of the target
    (:mod:`~metarec.transfer.strategies.parts.mixing`). The expectation is a weighted mean of two: the
    errors when each source in turn is a target with as many users, where sources similar to the target count more; and
    the out-of-fold errors of the target's few users, which count more the more users there are.

    Nothing is transferred where the transferred candidates would have very little weight, or where the source models
    without a domain step are far off for the few users.

    The source experience uses linear stackers instead of the whole fusion, which would be trained anew for each source.
    """

    name = "auto"

    def _fit(self, sources: Sources, target: Episodes) -> AutoModel:
        # `stack` asks for the same mixture. The target is kept beside it, so that its id stays its own.
        key = ("mixture", id(target), repr(self.settings), self.seed)
        return sources.keep(key, lambda: (target, self._mixed(sources, target)))[1]

    def _mixed(self, sources: Sources, target: Episodes) -> AutoModel:
        model = sources.model(self.settings, self.seed)
        members = model.members(target)
        similar = similarities(sources, target)
        experience = [one for name in sources for one in self._experience(name, sources, len(target))]
        source_weights = [float(np.exp(SHARPNESS * similar[one.source])) for one in experience]
        own_evidence = self._own_evidence(target, members)
        mixing = mixing_of(target.task)
        names, is_transferred = mixing.names, np.isin(mixing.names, TRANSFERRED)
        plain, best_single = OWN[target.task][:2]
        untouched = mean_of(list(np.moveaxis(members, -1, 0)), target)
        zero_shot_gain = _gain(target, CrossFitted(plain, target, 1, self.seed).predict(target), untouched)
        expected = mixing.expected([one.evidence for one in experience], source_weights, own_evidence)
        allowed = np.full(len(names), True) if experience else ~np.isin(names, mixing.unsafe)
        own = mixing.weights(expected, allowed & ~is_transferred)
        weights = own if zero_shot_gain < -mixing.hostile else mixing.weights(expected, allowed)
        if weights[is_transferred].sum() < LEAST_SHARE:
            weights = own
        transferred = float(weights[is_transferred].sum())
        alternatives = [np.eye(len(names))[names.index(name)] for name in (plain, best_single)]
        simple = min(alternatives, key=lambda weights: mixing.cost(expected, weights))
        out_of_fold_evidence = own_evidence if len(target) > 1 else None
        over_simple, over_own = (
            _expected_gain(mixing, experience, source_weights, out_of_fold_evidence, other, weights)
            for other in (simple, own)
        )
        in_percent = mixing.measure.gain_percent
        gains: dict[str, list[float]] = {name: [] for name in similar}
        for one in experience:
            gains[one.source].append(in_percent(float(mixing.user_gains(one.evidence, own, weights).mean())))
        return AutoModel(
            model,
            self._candidates(target, members),
            names,
            weights,
            own,
            {
                "transfers": transferred > 0,
                "share": transferred,
                "shares": _by_name(names, weights),
                "instead": _by_name(names, own),
                "predicted_gain": in_percent(over_simple.mean),
                "transferred_gain": in_percent(over_own.mean) if transferred else 0.0,
                "confidence": over_own.confidence if transferred else 0.0,
                "untouched_gain": zero_shot_gain,
                "sources": {
                    name: {"similarity": similarity, "gains_from_the_others": gains[name]}
                    for name, similarity in similar.items()
                },
            },
        )

    def _candidates(self, few: Episodes, members: np.ndarray) -> Candidates:
        return Candidates(few, members, self.settings.folds, self.seed)

    def _experience(self, name: str, sources: Sources, count: int) -> Iterator[_Experience]:
        """The candidates' errors with this source as the target and the other sources as its sources, if any."""
        if len(sources) == 1:
            return
        model = sources.linear_model([other for other in sources if other != name], self.seed)
        mixing = mixing_of(sources[name].train.task)
        scored = few_users(sources[name].validation, mixing.scored_users, self.seed)
        members = model.members(scored)
        for draw in range(DRAWS):
            few = few_users(sources[name].train, count, self.seed + draw)
            predictions = self._candidates(few, model.members(few)).predict(scored, members)
            yield _Experience(name, mixing.evidence(scored, predictions))

    def _own_evidence(self, target: Episodes, members: np.ndarray) -> Any:
        """The candidates' evidence for the few users, out of fold if there are two users or more."""
        if len(target) == 1:
            predictions = self._candidates(target, members).predict(target, members)
        else:
            predictions = out_of_fold(self._candidates, target, members, self.settings.folds, self.seed)
        return mixing_of(target.task).evidence(target, predictions)


class AutoModel(TransferredModel):
    """A mixture of transferred models and of stackers of the target's few users.

    Its reasons: whether it ``transfers``, and the ``share`` of the transferred candidates; the weights (``shares``) of
    all candidates, and those that they would have ``instead`` without sources. Expected gains in percent of the
    first metric: ``predicted_gain`` over the mean of the bases or the best one of them, ``transferred_gain`` over the
    mixture without sources, and ``confidence``, the probability that the latter is above 0. ``untouched_gain``: the
    share of the mean's squared error, or nDCG@10, that the source models without a domain step gain. ``sources``: the
    similarity of each, and the gains of these weights there, with the other sources.
    """

    def __init__(
        self,
        model: SourceModel,
        candidates: Candidates,
        names: Sequence[str],
        weights: np.ndarray,
        instead: np.ndarray,
        reasons: dict[str, Any],
    ) -> None:
        self._model, self._candidates, self._names = model, candidates, names
        self._weights, self._instead, self._reasons = weights, instead, reasons

    def without_transferred(self) -> AutoModel:
        """The mixture with the weights that it would have without the sources' models."""
        own = self._instead
        return AutoModel(self._model, self._candidates, self._names, own, own, {"shares": _by_name(self._names, own)})

    def predict(self, episodes: Episodes) -> np.ndarray:
        mixed: np.ndarray = self._candidates.predict(episodes, self._model.members(episodes)) @ self._weights
        return mixed

    def reasons(self) -> dict[str, Any]:
        return self._reasons


class _Experience(NamedTuple):
    """A source as the target: the evidence of its users."""

    source: str
    evidence: Any


def _gain(episodes: Episodes, before: np.ndarray, after: np.ndarray) -> float:
    """The gain of the predictions `after` [T, N] over those `before`, as a share."""
    measure = measure_of(episodes.task)
    return float(measure.user_gains(measure.user_sums(episodes, before), measure.user_sums(episodes, after)).mean())


def _expected_gain(
    mixing: Mixing,
    experience: list[_Experience],
    source_weights: list[float],
    few: Any,
    own: np.ndarray,
    weights: np.ndarray,
) -> ExpectedGain:
    """The expected gain of these weights over `own`, from source experience and the out-of-fold evidence of the few."""
    gains = [mixing.user_gains(one.evidence, own, weights) for one in experience]
    prior = prior_gain([float(gain.mean()) for gain in gains], source_weights)
    if few is None:
        return prior
    spread = float(np.mean([gain.std() for gain in gains])) if gains else USUAL_SPREAD
    return posterior_gain(prior, mixing.user_gains(few, own, weights), spread)


def _by_name(names: Sequence[str], weights: np.ndarray) -> dict[str, float]:
    return {name: float(weight) for name, weight in zip(names, weights, strict=True) if weight > 0}
