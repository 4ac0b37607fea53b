"""Transfer or start from scratch, and how strongly: decided from the target's few users, and with reasons."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar, NamedTuple

import numpy as np

from metarec.episodes import Episodes
from metarec.transfer.similarity import similarities
from metarec.transfer.sources import CrossFitted, SourceModel, Sources, TransferredModel, few_users, squared_errors
from metarec.transfer.strategies._base import TransferStrategy
from metarec.transfer.strategies.mixing import (
    NAMES,
    TRANSFERRED,
    Belief,
    Candidates,
    best_shares,
    candidates_out_of_fold,
    error_products,
    exchangeable,
    gain_by_user,
    in_percent,
    prior_of,
    squared_error,
    updated,
)

__all__ = ["Auto"]

WORTH = 50
"""How many of the target's users weigh as much as all that is known from other domains. Chosen on rounds 3 and 4 of
seven sets; 20 to 100 were within .1 % of each other."""

SHARPNESS = 5.0
"""How much more a source's experience counts that is more like the target: e times more for a fifth of similarity.
Gentle, because similarity did not tell what one of seven sets was worth to another; 0 to 10 were equally good."""

DRAWS = 3
"""How often a source is taken for a target, each time with other few users: much hangs on who they are."""

JUDGED = 100
"""How many validation users of a source a decision is judged on, at most."""

HOSTILE = 0.15
"""What sources teach is not about this domain where, untouched, it makes the squared error of the mean of the bases
larger by this and more. A step to the few users would hide it, and fail for others. Between real domains that
happens with five users, hardly with more."""

LEAST_SHARE = 0.1
"""Of what is transferred: less is not worth depending on other domains for."""

USUAL_SPREAD = 0.3
"""How far users' parts in a gain are spread, where no source could be asked."""

IS_TRANSFERRED = np.isin(NAMES, TRANSFERRED)

IS_SAFE = ~np.isin(NAMES, ("ridge", "fwls"))
"""How far regressions on a few users are off, only other domains can tell: alone, they seem better than they are."""

SIMPLE = tuple(np.eye(len(NAMES))[NAMES.index(name)] for name in ("mean", "best-single"))
"""What people would use without any of this, as shares."""


class Auto(TransferStrategy):
    """Mixes what the sources teach with what the target's few users say alone, each by how far it can be trusted.

    The candidates are what the sources teach, untouched and after a step to the domain, and five ways of combining the
    bases that are fitted on the few users and owe nothing to the sources. Their shares are those that make the error
    of the mixture least (stacked regressions, Breiman 1996), and errors are known from two sides: each source in its
    turn was a target with as few users, and sources that are more like the target count more; and of the target there
    is what cross-validation among its few users shows. The more users it has, the more that counts.

    Nothing is transferred where the sources' part of the mixture is next to nothing, and where what they teach,
    untouched, is far off for the few users.

    The decisions on the sources use linear stacking in the place of the whole combination, which would have to be
    trained anew for each of them.
    """

    name: ClassVar[str] = "auto"
    needs_sources: ClassVar[bool] = True

    def _fit(self, sources: Sources, target: Episodes) -> TransferredModel:
        model = sources.model(self.settings, self.seed)
        members = model.members(target)
        alike = similarities(sources, target)
        past = [one for name in sources for one in self._past(name, sources, len(target))]
        weights = [float(np.exp(SHARPNESS * alike[one.source])) for one in past]
        seen = self._seen(target, members)
        mean = squared_errors(target, CrossFitted("mean", target, 1, self.seed).predict(target))
        untouched = float(gain_by_user(mean, squared_errors(target, members.mean(-1))).mean())
        expected = _expected([one.products for one in past], weights, seen)
        allowed = np.full(len(NAMES), True) if past else IS_SAFE
        own = best_shares(expected, allowed & ~IS_TRANSFERRED)
        shares = own if untouched < -HOSTILE else best_shares(expected, allowed)
        if shares[IS_TRANSFERRED].sum() < LEAST_SHARE:
            shares = own
        transferred = float(shares[IS_TRANSFERRED].sum())
        simple = min(SIMPLE, key=lambda shares: float(squared_error(expected, shares)))
        known = seen if len(target) > 1 else seen[:0]
        over_simple, over_own = (_belief(past, weights, known, other, shares) for other in (simple, own))
        gains: dict[str, list[float]] = {name: [] for name in alike}
        for one in past:
            gains[one.source].append(in_percent(float(_gain_of_users(one.products, own, shares).mean())))
        return AutoModel(
            model,
            Candidates(target, members, self.settings.folds, self.seed),
            shares,
            {
                "transfers": transferred > 0,
                "share": transferred,
                "shares": _named(shares),
                "instead": _named(own),
                "predicted_gain": in_percent(over_simple.mean),
                "transferred_gain": in_percent(over_own.mean) if transferred else 0.0,
                "confidence": over_own.confidence if transferred else 0.0,
                "untouched_gain": untouched,
                "sources": {
                    name: {"similarity": similarity, "gains_from_the_others": gains[name]}
                    for name, similarity in alike.items()
                },
            },
        )

    def _past(self, name: str, sources: Sources, count: int) -> Iterator[_Past]:
        """How the candidates would have erred if this source had been a target; nothing, if it is alone."""
        if len(sources) == 1:
            return
        model = sources.linear_model([other for other in sources if other != name], self.seed)
        judged = few_users(sources[name].validation, JUDGED, self.seed)
        said = model.members(judged)
        for draw in range(DRAWS):
            few = few_users(sources[name].train, count, self.seed + draw)
            yield _Past(name, self._products(few, model, judged, said))

    def _products(self, few: Episodes, model: SourceModel, judged: Episodes, said: np.ndarray) -> np.ndarray:
        candidates = Candidates(few, model.members(few), self.settings.folds, self.seed)
        return _relative(error_products(judged, candidates.predict(judged, said)))

    def _seen(self, target: Episodes, members: np.ndarray) -> np.ndarray:
        """[U, K, K] how the candidates err for the few users; a single one has no others, and learns nothing new."""
        if len(target) == 1:
            said = Candidates(target, members, self.settings.folds, self.seed).predict(target, members)
        else:
            said = candidates_out_of_fold(target, members, self.settings.folds, self.seed)
        return _relative(error_products(target, said))


class AutoModel(TransferredModel):
    """A mixture of what is transferred and of what owes nothing to the sources.

    Its reasons: whether it ``transfers``, and how large a ``share``; the ``shares`` of all candidates, and what they
    would be ``instead`` without the sources. Gains are to be expected, in percent of RMSE: ``predicted_gain`` over the
    mean of the bases or the best one of them, ``transferred_gain`` over the shares without the sources, and
    ``confidence`` is the probability that this one is a gain. ``untouched_gain`` is a share of the squared error: what
    the sources teach over the mean of the bases, before any step. ``sources`` has the similarity of each, and what the
    same decision would have gained there from the others.
    """

    def __init__(self, model: SourceModel, candidates: Candidates, shares: np.ndarray, reasons: dict[str, Any]) -> None:
        self._model = model
        self._candidates = candidates
        self._reasons = reasons
        self.shares = shares

    def predict(self, episodes: Episodes) -> np.ndarray:
        mixed: np.ndarray = self._candidates.predict(episodes, self._model.members(episodes)) @ self.shares
        return mixed

    def reasons(self) -> dict[str, Any]:
        return self._reasons


class _Past(NamedTuple):
    """A source as a target: [V, K, K] error products of its users, see :func:`_relative`."""

    source: str
    products: np.ndarray


def _relative(products: np.ndarray) -> np.ndarray:
    """Error products of users, so that the mean of the bases has 1 on average: domains differ in how hard they are."""
    mean = NAMES.index("mean")
    return products / max(float(products[:, mean, mean].mean()), 1e-12)


def _expected(past: list[np.ndarray], weights: list[float], seen: np.ndarray) -> np.ndarray:
    """[K, K] error products to be expected of the target's other users."""
    own = seen.mean(0)
    each = [products.mean(0) for products in past]
    before = np.average(each, axis=0, weights=weights) if past else exchangeable(own)
    # A single user was not seen by models that do not know them.
    count = len(seen) if len(seen) > 1 else 0
    expected: np.ndarray = (WORTH * before + count * own) / (WORTH + count)
    return expected


def _gain_of_users(products: np.ndarray, own: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """[U] users' parts in what these shares gain over the target's own."""
    return gain_by_user(squared_error(products, own), squared_error(products, shares))


def _belief(past: list[_Past], weights: list[float], seen: np.ndarray, own: np.ndarray, shares: np.ndarray) -> Belief:
    """What is to be believed of the gain of these shares over the target's own."""
    gains = [_gain_of_users(one.products, own, shares) for one in past]
    prior = prior_of([float(gain.mean()) for gain in gains], weights)
    if not len(seen):
        return prior
    spread = float(np.mean([gain.std() for gain in gains])) if gains else USUAL_SPREAD
    return updated(prior, _gain_of_users(seen, own, shares), spread)


def _named(shares: np.ndarray) -> dict[str, float]:
    return {name: float(share) for name, share in zip(NAMES, shares, strict=True) if share > 0}
