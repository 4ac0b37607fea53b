"""What is believed of a gain before and after it was looked at. Pure functions on numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.stats import norm

__all__ = ["Belief", "gain_by_user", "in_percent", "prior_of", "updated"]

LEAST_SPREAD = 0.01
"""Of gains between domains: two or three of them that happen to agree do not make the next one certain."""

NO_SPREAD = 0.05
"""Of gains where no domain could be asked: between a twentieth better and a twentieth worse is nothing unusual."""


class Belief(NamedTuple):
    """A normal belief about a gain: the share of the mean squared error that is saved."""

    mean: float
    spread: float

    @property
    def confidence(self) -> float:
        """How probable it is that the gain is above 0."""
        return float(norm.cdf(self.mean / self.spread))


def gain_by_user(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """[U] each user's part in the gain: the mean of it is the share of the squared error that is saved.

    Args:
        before, after: [U] sums of squared errors of each user, without and with what is judged.

    >>> gain_by_user(np.array([2.0, 2.0]), np.array([1.0, 2.0])).tolist()
    [0.5, 0.0]
    """
    difference: np.ndarray = (before - after) / max(float(before.mean()), 1e-12)
    return difference


def in_percent(gain: float) -> float:
    """A gain as a share of the mean squared error -> in percent of RMSE.

    >>> in_percent(0.19)
    10.0
    """
    return round(100 * (1 - (1 - min(gain, 1.0)) ** 0.5), 9)


def prior_of(gains: Sequence[float], weights: Sequence[float]) -> Belief:
    """What the gains in other domains let expect of the next one.

    Args:
        gains: of each domain. weights: >= 0, how much each is like the next one.
    """
    if not len(gains) or sum(weights) <= 0:
        return Belief(0.0, NO_SPREAD)
    shares = np.asarray(weights, dtype=float) / sum(weights)
    mean = float(shares @ np.asarray(gains))
    variance = float(shares @ (np.asarray(gains) - mean) ** 2)
    # Of one domain there is no variance to see; of few, too little is seen.
    number = 1 / float(shares @ shares)
    seen = variance * number / max(number - 1, 1e-9) if number > 1.5 else NO_SPREAD**2
    return Belief(mean, float(np.hypot(np.sqrt(seen), LEAST_SPREAD)))


def updated(prior: Belief, by_user: np.ndarray, spread_by_user: float) -> Belief:
    """The belief after some users were looked at (the normal distribution's conjugate update).

    Args:
        by_user: [U] each user's part in the gain, see :func:`gain_by_user`.
        spread_by_user: how far users' parts are spread in other domains; of a handful of users the own spread says
            little, so that the two count as much as ten users and as many as there are.
    """
    number = len(by_user)
    own = float(np.var(by_user))
    # Without any noise, as of a thing and itself, users are believed all but entirely.
    noise = max((own * number + 10 * spread_by_user**2) / (number + 10) / number, 1e-12)
    precision = 1 / prior.spread**2 + 1 / noise
    mean = (prior.mean / prior.spread**2 + float(by_user.mean()) / noise) / precision
    return Belief(mean, float(precision**-0.5))
