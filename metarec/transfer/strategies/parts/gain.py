"""The expected gain of a mixture: a normal prior from other domains, updated by the target's users."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.stats import norm

__all__ = ["ExpectedGain", "posterior_gain", "prior_gain"]

LEAST_SPREAD = 0.01
"""Of gains between domains: two or three similar gains do not make the next one certain."""

NO_SPREAD = 0.05
"""Of gains where there is no other domain: five percent better or worse is nothing unusual."""


class ExpectedGain(NamedTuple):
    """A normal distribution of a gain: the share of the squared error that is saved, or of nDCG@10 that is added."""

    mean: float
    spread: float

    @property
    def confidence(self) -> float:
        """The probability of a gain above 0."""
        return float(norm.cdf(self.mean / self.spread))


def prior_gain(gains: Sequence[float], weights: Sequence[float]) -> ExpectedGain:
    """The expected gain in a new domain, from the gain in each other domain and its weight >= 0."""
    if not len(gains) or sum(weights) <= 0:
        return ExpectedGain(0.0, NO_SPREAD)
    shares = np.asarray(weights, dtype=float) / sum(weights)
    mean = float(shares @ np.asarray(gains))
    variance = float(shares @ (np.asarray(gains) - mean) ** 2)
    # One domain has no sample variance, and that of few is too small.
    number = 1 / float(shares @ shares)
    corrected = variance * number / max(number - 1, 1e-9) if number > 1.5 else NO_SPREAD**2
    return ExpectedGain(mean, float(np.hypot(np.sqrt(corrected), LEAST_SPREAD)))


def posterior_gain(prior: ExpectedGain, by_user: np.ndarray, spread_by_user: float) -> ExpectedGain:
    """The conjugate update of a normal prior by some users.

    Args:
        by_user: [U] each user's part in the gain, see :meth:`metarec.evaluation.measures.Measure.user_gains`.
        spread_by_user: the spread of users' parts in other domains. It counts as ten users, beside the spread of these.
    """
    number = len(by_user)
    own = float(np.var(by_user))
    # A floor, for users without any noise.
    noise = max((own * number + 10 * spread_by_user**2) / (number + 10) / number, 1e-12)
    precision = 1 / prior.spread**2 + 1 / noise
    mean = (prior.mean / prior.spread**2 + float(by_user.mean()) / noise) / precision
    return ExpectedGain(mean, float(precision**-0.5))
