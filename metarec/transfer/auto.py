"""Transfer or start from scratch, and how strongly: decided from the target's few users, and with reasons."""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple

import numpy as np

from metarec.episodes import DomainEpisodes, Episodes
from metarec.transfer._base import TransferStrategy
from metarec.transfer._beliefs import best_share, gain_by_user, prior_of, updated
from metarec.transfer._domain_step import DomainStep
from metarec.transfer._few import CrossFitted, deal_places
from metarec.transfer._models import TransferredModel
from metarec.transfer._taught import Sources, Taught
from metarec.transfer._training import few_users
from metarec.transfer.similarity import domain_similarity

__all__ = ["Auto"]

SHARPNESS = 10.0
"""How much more a source's experience counts that is more like the target: e times more for a tenth of similarity."""

JUDGED = 100
"""How many validation users of a source a decision is judged on, at most."""

USUAL_SPREAD = 0.3
"""How far users' parts in a gain are spread, where no source could be asked."""


class Auto(TransferStrategy):
    """Chooses between what the sources teach and what the target's few users say alone, and how strongly.

    Two candidates stand against each other. One is transferred: what all sources teach, and a step to the domain
    (:class:`~metarec.transfer.model_agnostic.ModelAgnostic`). The other owes nothing to the sources: the mean of the
    bases, or the single base that is clearly better for the few users. Their errors on the few users are compared by
    cross-validation, and what is seen is weighed against what is to be expected: each source in its turn was a target
    with as few users, and its gain from the others is on record; sources that are more like the target count more.
    The share of what is transferred is the one with the smallest error that is to be expected (:func:`best_share`);
    where that is next to nothing, it is nothing.

    The decisions on the sources use linear stacking in the place of the whole combination, which would have to be
    trained anew for each of them.
    """

    name: ClassVar[str] = "auto"
    needs_sources: ClassVar[bool] = True

    def _fit(self, sources: Sources, target: Episodes) -> TransferredModel:
        taught = sources.teach(self.settings, self.seed)
        experience = [self._decided(name, sources, len(target)) for name in sources] if len(sources) > 1 else []
        few = _as_domain(target)
        alike = {name: domain_similarity(few, source).score for name, source in sources.items()}
        weights = [float(np.exp(SHARPNESS * alike[past.source])) for past in experience]
        noted = {past.source: past.noted() for past in experience}
        prior = prior_of([past.gain for past in experience], weights)
        spread = float(np.mean([past.spread for past in experience])) if experience else USUAL_SPREAD
        members = taught.members(target)
        transferred, alone = self._out_of_fold(target, members)
        before = _squared(target, alone)
        seen = gain_by_user(before, _squared(target, transferred))
        belief = updated(prior, seen, spread)
        share = best_share(belief.mean, float(_squared_difference(target, transferred, alone) / before.sum()))
        own = _Own(target, self.seed)
        return AutoModel(
            taught,
            DomainStep(target, members),
            own,
            share,
            {
                "transfers": share > 0,
                "share": share,
                "confidence": belief.confidence,
                "predicted_gain": belief.mean,
                "predicted_gain_spread": belief.spread,
                "seen_gain": float(seen.mean()),
                "prior_gain": prior.mean,
                "prior_gain_spread": prior.spread,
                "instead": own.name,
                "sources": {
                    name: {"similarity": similarity, **noted.get(name, {})} for name, similarity in alike.items()
                },
            },
        )

    def _out_of_fold(self, target: Episodes, members: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """[T, N] twice: what is transferred, and what owes nothing to the sources, each by the others of the few."""
        transferred, alone = np.full(members.shape[:2], 0.5), np.full(members.shape[:2], 0.5)
        for others, part in deal_places(len(target), self.settings.folds, self.seed):
            known, judged = target.select(others), target.select(part)
            step = DomainStep(known, members[others.numpy()]) if len(known) else None
            said = members[part.numpy()]
            transferred[part.numpy()] = said.mean(-1) if step is None else step.predict(judged, said)
            alone[part.numpy()] = _Own(known if len(known) else judged, self.seed).predict(judged)
        return transferred, alone

    def _decided(self, name: str, sources: Sources, count: int) -> _Past:
        """What transfer would have gained if this source had been a target with so few users."""
        stacker = sources.teach_linear([other for other in sources if other != name], self.seed)
        few = few_users(sources[name].train, count, self.seed)
        judged = few_users(sources[name].validation, JUDGED, self.seed)
        step = DomainStep(few, stacker.predict(few)[..., None])
        own = _Own(few, self.seed)
        gains = gain_by_user(
            _squared(judged, own.predict(judged)),
            _squared(judged, step.predict(judged, stacker.predict(judged)[..., None])),
        )
        return _Past(name, float(gains.mean()), float(gains.std()))


class AutoModel(TransferredModel):
    """A share of what is transferred, and the rest of what owes nothing to the sources."""

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

    def noted(self) -> dict[str, float]:
        return {"gain_from_the_others": self.gain}


class _Own:
    """What a few users say without any source: the mean of the bases, or the one base that is clearly better.

    Clearly: by more than one standard error over the users. Of a handful of them the best of six is often luck.
    """

    def __init__(self, few: Episodes, seed: int) -> None:
        said = {name: CrossFitted(name, few, 1, seed) for name in ("mean", "best-single")}
        errors = {name: _squared(few, model.predict(few)) for name, model in said.items()}
        ahead = errors["mean"] - errors["best-single"]
        clearly = float(ahead.sum()) > float(ahead.std()) * len(ahead) ** 0.5
        self.name = "best-single" if clearly else "mean"
        self._model = said[self.name]

    def predict(self, episodes: Episodes) -> np.ndarray:
        return self._model.predict(episodes)


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
