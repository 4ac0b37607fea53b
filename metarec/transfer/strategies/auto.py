"""Decides from the target's few users whether to transfer, and how much."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from metarec.episodes import Episodes
from metarec.transfer.similarity import similarities
from metarec.transfer.sources import (
    CrossFitted,
    SourceModel,
    Sources,
    TransferredModel,
    few_users,
    out_of_fold,
    user_squared_errors,
)
from metarec.transfer.strategies._base import TransferStrategy
from metarec.transfer.strategies.parts.candidates import NAMES, TRANSFERRED, Candidates
from metarec.transfer.strategies.parts.gain import ExpectedGain, in_percent, posterior_gain, prior_gain, user_gains
from metarec.transfer.strategies.parts.stacking import error_products, exchangeable, squared_error, stacking_weights

__all__ = ["Auto", "AutoModel"]

PRIOR_USERS = 50
"""The weight of the source experience, in users of the target. Chosen on rounds 3 and 4 of seven sets; 20 to 100 were
within .1 % of each other."""

SHARPNESS = 5.0
"""A source's experience counts e times more for each 0.2 of similarity to the target. It is small because similarity
did not predict the gain between seven sets; 0 to 10 were equally good."""

DRAWS = 3
"""How often a source is taken as the target, each time with other few users: errors depend on the draw."""

SCORED_USERS = 100
"""The most validation users of a source that candidates are scored on."""

HOSTILE = 0.15
"""Nothing is transferred where the source models without a domain step increase the squared error of the mean of the
bases by this share or more. A step to the few users would hide it, and fail for others. Between real domains that
happens with five users, hardly with more."""

LEAST_SHARE = 0.1
"""The least total weight of the transferred candidates; below it nothing is transferred."""

USUAL_SPREAD = 0.3
"""The spread of users' parts in a gain, where there is no source experience."""

IS_TRANSFERRED = np.isin(NAMES, TRANSFERRED)

IS_SAFE = ~np.isin(NAMES, ("ridge", "fwls"))
"""Without source experience regressions are left out: on a few users their errors are underestimated."""

SIMPLE = tuple(np.eye(len(NAMES))[NAMES.index(name)] for name in ("mean", "best-single"))
"""The weights of the simple alternatives to a mixture."""


class Auto(TransferStrategy):
    """Mixes transferred models with stackers of the target's few users, by stacking weights.

    The candidates are the source models without and with a step to the domain, and five stackers of the bases that are
    fitted on the few users. Their weights minimise the expected error of the mixture (stacked regressions, Breiman
    1996). The expectation is a weighted mean of two: the errors when each source in turn is a target with as many
    users, where sources similar to the target count more; and the out-of-fold errors of the target's few users, which
    count more the more users there are.

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
        own_products = self._own_products(target, members)
        mean = user_squared_errors(target, CrossFitted("mean", target, 1, self.seed).predict(target))
        zero_shot_gain = float(user_gains(mean, user_squared_errors(target, members.mean(-1))).mean())
        expected = _expected_products([one.products for one in experience], source_weights, own_products)
        allowed = np.full(len(NAMES), True) if experience else IS_SAFE
        own = stacking_weights(expected, allowed & ~IS_TRANSFERRED)
        weights = own if zero_shot_gain < -HOSTILE else stacking_weights(expected, allowed)
        if weights[IS_TRANSFERRED].sum() < LEAST_SHARE:
            weights = own
        transferred = float(weights[IS_TRANSFERRED].sum())
        simple = min(SIMPLE, key=lambda weights: float(squared_error(expected, weights)))
        out_of_fold_products = own_products if len(target) > 1 else own_products[:0]
        over_simple, over_own = (
            _expected_gain(experience, source_weights, out_of_fold_products, other, weights) for other in (simple, own)
        )
        gains: dict[str, list[float]] = {name: [] for name in similar}
        for one in experience:
            gains[one.source].append(in_percent(float(_user_gains(one.products, own, weights).mean())))
        return AutoModel(
            model,
            self._candidates(target, members),
            weights,
            own,
            {
                "transfers": transferred > 0,
                "share": transferred,
                "shares": _by_name(weights),
                "instead": _by_name(own),
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
        scored = few_users(sources[name].validation, SCORED_USERS, self.seed)
        members = model.members(scored)
        for draw in range(DRAWS):
            few = few_users(sources[name].train, count, self.seed + draw)
            predictions = self._candidates(few, model.members(few)).predict(scored, members)
            yield _Experience(name, _relative(error_products(scored, predictions)))

    def _own_products(self, target: Episodes, members: np.ndarray) -> np.ndarray:
        """[U, K, K] the candidates' error products for the few users, out of fold if there are two users or more."""
        if len(target) == 1:
            predictions = self._candidates(target, members).predict(target, members)
        else:
            predictions = out_of_fold(self._candidates, target, members, self.settings.folds, self.seed)
        return _relative(error_products(target, predictions))


class AutoModel(TransferredModel):
    """A mixture of transferred models and of stackers of the target's few users.

    Its reasons: whether it ``transfers``, and the ``share`` of the transferred candidates; the weights (``shares``) of
    all candidates, and those that they would have ``instead`` without sources. Expected gains in percent of RMSE:
    ``predicted_gain`` over the mean of the bases or the best one of them, ``transferred_gain`` over the mixture without
    sources, and ``confidence``, the probability that the latter is above 0. ``untouched_gain``: the share of the mean's
    squared error that the source models without a domain step save. ``sources``: the similarity of each, and the gains
    of these weights there, with the other sources.
    """

    def __init__(
        self,
        model: SourceModel,
        candidates: Candidates,
        weights: np.ndarray,
        instead: np.ndarray,
        reasons: dict[str, Any],
    ) -> None:
        self._model, self._candidates = model, candidates
        self._weights, self._instead, self._reasons = weights, instead, reasons

    def without_transferred(self) -> AutoModel:
        """The mixture with the weights that it would have without the sources' models."""
        own = self._instead
        return AutoModel(self._model, self._candidates, own, own, {"shares": _by_name(own)})

    def predict(self, episodes: Episodes) -> np.ndarray:
        mixed: np.ndarray = self._candidates.predict(episodes, self._model.members(episodes)) @ self._weights
        return mixed

    def reasons(self) -> dict[str, Any]:
        return self._reasons


class _Experience(NamedTuple):
    """A source as the target: [V, K, K] error products of its users, see :func:`_relative`."""

    source: str
    products: np.ndarray


def _relative(products: np.ndarray) -> np.ndarray:
    """Error products in units of the mean squared error of the bases' mean, so that domains are comparable."""
    mean = NAMES.index("mean")
    return products / max(float(products[:, mean, mean].mean()), 1e-12)


def _expected_products(experience: list[np.ndarray], source_weights: list[float], own: np.ndarray) -> np.ndarray:
    """[K, K] the expected error products of the target's other users."""
    own_mean = own.mean(0)
    each = [products.mean(0) for products in experience]
    prior = np.average(each, axis=0, weights=source_weights) if experience else exchangeable(own_mean)
    # The products of a single user are not out of fold.
    count = len(own) if len(own) > 1 else 0
    expected: np.ndarray = (PRIOR_USERS * prior + count * own_mean) / (PRIOR_USERS + count)
    return expected


def _user_gains(products: np.ndarray, own: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """[U] users' parts in the gain of these weights over the target's own."""
    return user_gains(squared_error(products, own), squared_error(products, weights))


def _expected_gain(
    experience: list[_Experience],
    source_weights: list[float],
    products: np.ndarray,
    own: np.ndarray,
    weights: np.ndarray,
) -> ExpectedGain:
    """The expected gain of these weights over `own`, from source experience and the target's out-of-fold products."""
    gains = [_user_gains(one.products, own, weights) for one in experience]
    prior = prior_gain([float(gain.mean()) for gain in gains], source_weights)
    if not len(products):
        return prior
    spread = float(np.mean([gain.std() for gain in gains])) if gains else USUAL_SPREAD
    return posterior_gain(prior, _user_gains(products, own, weights), spread)


def _by_name(weights: np.ndarray) -> dict[str, float]:
    return {name: float(weight) for name, weight in zip(NAMES, weights, strict=True) if weight > 0}
