"""Transfer or start from scratch, and how strongly: decided from the target's few users, and with reasons."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar, NamedTuple

import numpy as np

from metarec.episodes import Episodes
from metarec.transfer._alone import Alone, alone_out_of_fold
from metarec.transfer._base import TransferStrategy
from metarec.transfer._beliefs import best_share, gain_by_user, in_percent, prior_of, updated
from metarec.transfer._domain_step import DomainStep
from metarec.transfer._few import CrossFitted
from metarec.transfer._models import TransferredModel
from metarec.transfer._out_of_fold import squared_errors, stepped_out_of_fold
from metarec.transfer._taught import Sources, Taught
from metarec.transfer._training import few_users
from metarec.transfer.similarity import similarities

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
        alike = similarities(sources, target)
        weights = [float(np.exp(SHARPNESS * alike[past.source])) for past in experience]
        prior = prior_of([past.gain for past in experience], weights)
        spread = float(np.mean([past.spread for past in experience])) if experience else USUAL_SPREAD
        members = taught.members(target)
        transferred = stepped_out_of_fold(target, members, self.settings.folds, self.seed)
        alone = alone_out_of_fold(target, self.settings.folds, self.seed)
        before = squared_errors(target, alone)
        seen = gain_by_user(before, squared_errors(target, transferred))
        belief = updated(prior, seen, spread)
        mean = squared_errors(target, CrossFitted("mean", target, 1, self.seed).predict(target))
        untouched = float(gain_by_user(mean, squared_errors(target, members.mean(-1))).mean())
        apart = _squared_difference(target, transferred, alone) / float(before.sum())
        share = best_share(belief.mean, apart)
        if untouched < -HOSTILE:
            share = 0.0
        own = Alone(target, self.settings.folds, self.seed)
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
                squared_errors(judged, Alone(few, self.settings.folds, self.seed).predict(judged)),
                squared_errors(judged, step.predict(judged, said)),
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

    def __init__(self, taught: Taught, step: DomainStep, own: Alone, share: float, reasons: dict[str, Any]) -> None:
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


def _squared_difference(episodes: Episodes, one: np.ndarray, other: np.ndarray) -> float:
    return float(np.square(one - other)[episodes.batch.query.mask.numpy()].sum())
