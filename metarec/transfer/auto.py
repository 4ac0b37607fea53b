"""Transfer or start from scratch, and how strongly: decided from the target's few users, and with reasons."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar, NamedTuple

import numpy as np

from metarec.episodes import DomainEpisodes, Episodes
from metarec.transfer._base import TransferStrategy
from metarec.transfer._beliefs import best_share, gain_by_user, in_percent, prior_of, updated
from metarec.transfer._domain_step import DomainStep
from metarec.transfer._few import CrossFitted, deal_places
from metarec.transfer._models import TransferredModel
from metarec.transfer._taught import Sources, Taught
from metarec.transfer._training import few_users
from metarec.transfer.similarity import domain_similarity

__all__ = ["Auto"]

SHARPNESS = 10.0
"""How much more a source's experience counts that is more like the target: e times more for a tenth of similarity."""

DRAWS = 3
"""How often a source is taken for a target, each time with other few users: much hangs on who they are."""

JUDGED = 100
"""How many validation users of a source a decision is judged on, at most."""

HOSTILE = 0.15
"""What sources teach is not about this domain where, untouched, it makes the squared error of the mean of the bases
larger by this and more. A step to the few users would hide it, and fail for others. Between real domains the largest
such loss was a twentieth."""

USUAL_SPREAD = 0.3
"""How far users' parts in a gain are spread, where no source could be asked."""


class Auto(TransferStrategy):
    """Chooses between what the sources teach and what the target's few users say alone, and how strongly.

    Two candidates stand against each other. One is transferred: what all sources teach, and a step to the domain
    (:class:`~metarec.transfer.model_agnostic.ModelAgnostic`). The other owes nothing to the sources: the mean of the
    bases, or what is clearly better for the few users, one base or the same step from the mean. Their errors on the
    few users are compared by cross-validation, and what is seen is weighed against what is to be expected: each source
    in its turn was a target with as few users, and its gain from the others is on record; sources that are more like
    the target count more.
    The share of what is transferred is the one with the smallest error that is to be expected (:func:`best_share`);
    where that is next to nothing, it is nothing. And it is nothing where what the sources teach, untouched, is far off
    for the few users.

    The decisions on the sources use linear stacking in the place of the whole combination, which would have to be
    trained anew for each of them.
    """

    name: ClassVar[str] = "auto"
    needs_sources: ClassVar[bool] = True

    def _fit(self, sources: Sources, target: Episodes) -> TransferredModel:
        taught = sources.teach(self.settings, self.seed)
        experience = [past for name in sources for past in self._past(name, sources, len(target))]
        few = _as_domain(target)
        alike = {name: domain_similarity(few, source).score for name, source in sources.items()}
        weights = [float(np.exp(SHARPNESS * alike[past.source])) for past in experience]
        prior = prior_of([past.gain for past in experience], weights)
        spread = float(np.mean([past.spread for past in experience])) if experience else USUAL_SPREAD
        members = taught.members(target)
        transferred = stepped_out_of_fold(target, members, self.settings.folds, self.seed)
        alone = self._alone(target)
        before = _squared(target, alone)
        seen = gain_by_user(before, _squared(target, transferred))
        belief = updated(prior, seen, spread)
        mean = _squared(target, CrossFitted("mean", target, 1, self.seed).predict(target))
        untouched = float(gain_by_user(mean, _squared(target, members.mean(-1))).mean())
        apart = _squared_difference(target, transferred, alone) / float(before.sum())
        share = best_share(belief.mean, apart)
        if untouched < -HOSTILE:
            share = 0.0
        own = _Own(target, self.settings.folds, self.seed)
        return AutoModel(
            taught,
            DomainStep(target, members),
            own,
            share,
            {
                "transfers": share > 0,
                "share": share,
                "confidence": belief.confidence,
                "predicted_gain": in_percent(share * belief.mean + share * (1 - share) * apart),
                "transferred_gain": belief.mean,
                "transferred_gain_spread": belief.spread,
                "seen_gain": float(seen.mean()),
                "untouched_gain": untouched,
                "prior_gain": prior.mean,
                "prior_gain_spread": prior.spread,
                "instead": own.name,
                "sources": {
                    name: {
                        "similarity": similarity,
                        "gains_from_the_others": [past.gain for past in experience if past.source == name],
                    }
                    for name, similarity in alike.items()
                },
            },
        )

    def _alone(self, target: Episodes) -> np.ndarray:
        """[T, N] what owes nothing to the sources, for each of the few users chosen by the others of them."""
        predictions = np.full(tuple(target.batch.query.mask.shape), 0.5)
        for others, part in deal_places(len(target), self.settings.folds, self.seed):
            own = _Own(target.select(others), self.settings.folds, self.seed)
            predictions[part.numpy()] = own.predict(target.select(part))
        return predictions

    def _past(self, name: str, sources: Sources, count: int) -> Iterator[_Past]:
        """What transfer would have gained if this source had been a target; nothing, if it is alone."""
        if len(sources) == 1:
            return
        taught = sources.teach_linear([other for other in sources if other != name], self.seed)
        judged = few_users(sources[name].validation, JUDGED, self.seed)
        said = taught.members(judged)
        for draw in range(DRAWS):
            few = few_users(sources[name].train, count, self.seed + draw)
            step = DomainStep(few, taught.members(few))
            gains = gain_by_user(
                _squared(judged, _Own(few, self.settings.folds, self.seed).predict(judged)),
                _squared(judged, step.predict(judged, said)),
            )
            yield _Past(name, float(gains.mean()), float(gains.std()))


class AutoModel(TransferredModel):
    """A share of what is transferred, and the rest of what owes nothing to the sources.

    Its reasons: whether it ``transfers``, the ``share``, and what is used ``instead``; ``predicted_gain``, in percent
    of RMSE, of all this over what is used instead; ``confidence``, the probability that what is transferred is better
    by itself. The other gains are shares of the mean squared error: ``prior_gain`` is expected from the sources' past,
    ``seen_gain`` was seen on the few users, ``transferred_gain`` follows from both; ``untouched_gain`` is that of what
    the sources teach over the mean of the bases, before any step. ``sources`` has the similarity of each, and what the
    others would have gained it.
    """

    def __init__(self, taught: Taught, step: DomainStep, own: _Own, share: float, reasons: dict[str, Any]) -> None:
        self._taught = taught
        self._step = step
        self._own = own
        self._reasons = reasons
        self.share = share

    def predict(self, episodes: Episodes) -> np.ndarray:
        alone = self._own.predict(episodes)
        if self.share == 0:
            return alone
        transferred = self._step.predict(episodes, self._taught.members(episodes))
        return self.share * transferred + (1 - self.share) * alone

    def reasons(self) -> dict[str, Any]:
        return self._reasons


class _Past(NamedTuple):
    """A decision on a source: the gain of transfer, and how far users' parts in it are spread."""

    source: str
    gain: float
    spread: float


class _Own:
    """What a few users say without any source: the mean of the bases, or what is clearly better.

    That may be one base, or a step from the mean to the few users, as it is taken from what sources teach: so what
    stands against the sources differs from them by what they teach and by nothing else. Clearly: by more than one
    standard error over the users. Of a handful of them the best of six bases is often luck.
    """

    def __init__(self, few: Episodes, folds: int, seed: int) -> None:
        said = {name: CrossFitted(name, few, 1, seed) for name in ("mean", "best-single")}
        errors = {name: _squared(few, model.predict(few)) for name, model in said.items()}
        start = said["mean"]
        if len(few) > 1:
            errors["stepped-mean"] = _squared(few, stepped_out_of_fold(few, _mean(start, few), folds, seed))
        self.name = "mean"
        for name, own in errors.items():
            ahead = errors[self.name] - own
            if float(ahead.sum()) > float(ahead.std()) * len(ahead) ** 0.5:
                self.name = name
        self._model = said.get(self.name)
        self._start = start
        self._step = DomainStep(few, _mean(start, few)) if self._model is None else None

    def predict(self, episodes: Episodes) -> np.ndarray:
        if self._model is not None:
            return self._model.predict(episodes)
        assert self._step is not None
        return self._step.predict(episodes, _mean(self._start, episodes))


def _mean(start: CrossFitted, episodes: Episodes) -> np.ndarray:
    return start.predict(episodes)[..., None]


def stepped_out_of_fold(few: Episodes, members: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """[T, N] predictions for a few users, each by a step to the others of them.

    Args:
        members: [T, N, M] what the models predict of their query rows.
    """
    predictions = np.full(members.shape[:2], 0.5)
    for others, part in deal_places(len(few), folds, seed):
        step = DomainStep(few.select(others), members[others.numpy()])
        predictions[part.numpy()] = step.predict(few.select(part), members[part.numpy()])
    return predictions


def _squared(episodes: Episodes, predictions: np.ndarray) -> np.ndarray:
    """[T] sums of squared errors of each user's query rows."""
    query = episodes.batch.query
    errors = np.where(query.mask.numpy(), predictions - query.targets.numpy(), 0.0)
    sums: np.ndarray = (errors**2).sum(1)
    return sums


def _squared_difference(episodes: Episodes, one: np.ndarray, other: np.ndarray) -> float:
    return float(np.square(one - other)[episodes.batch.query.mask.numpy()].sum())


def _as_domain(few: Episodes) -> DomainEpisodes:
    none = few_users(few, 0, 0)
    return DomainEpisodes(few, none, none)
