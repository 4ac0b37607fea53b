"""The standardisation of features, the same for episodes and for new users."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np
import torch

from metarec.episodes._episodes import FusionInputs
from metarec.episodes._features import Features, ItemFacts, Priors, Rows
from metarec.ratings import RatingScale

__all__ = ["Moments", "Standards", "standard_inputs", "unit_rows"]


class Moments(NamedTuple):
    """Mean and standard deviation of features, [...] each."""

    mean: np.ndarray
    spread: np.ndarray

    @classmethod
    def of(cls, rows: np.ndarray) -> Self:
        """Over the leading axis."""
        return cls(rows.mean(0), rows.std(0))

    @classmethod
    def pooled(cls, several: Sequence[Self]) -> Self:
        """Of all rows together, each set with the same weight."""
        mean = np.mean([one.mean for one in several], axis=0)
        square = np.mean([one.spread**2 + one.mean**2 for one in several], axis=0)
        return cls(mean, np.sqrt(np.maximum(square - mean**2, 0.0)))

    def mixed(self, other: Self, share: float) -> Self:
        """A mixture of these and others: `share` of the others."""
        mean = (1 - share) * self.mean + share * other.mean
        return type(self)(mean, np.sqrt((1 - share) * self.spread**2 + share * other.spread**2))

    def standardise(self, values: np.ndarray) -> np.ndarray:
        """Features with mean 0 and deviation 1; constant features become 0."""
        varies = self.spread > 1e-6
        # Clipped at five deviations, because a network only extrapolates far outside of its training data.
        return np.where(varies, np.clip((values - self.mean) / np.where(varies, self.spread, 1.0), -5, 5), 0.0)


@dataclass(frozen=True)
class Standards:
    """The standardisation of a domain's features, learned from the query rows of its train users.

    Attributes:
        priors: the prior of a user's statistics.
        algorithm: moments [A, F]; context: moments [C].
        damping: the weight of the prior in ratings.
    """

    priors: Priors
    algorithm: Moments
    context: Moments
    damping: float

    @classmethod
    def pooled(cls, several: Sequence[Self]) -> Self:
        """Those of several domains together, each with the same weight."""
        priors = [one.priors for one in several]
        return cls(
            Priors(
                np.mean([prior.absolute_error for prior in priors], axis=0),
                float(np.mean([prior.variance for prior in priors])),
            ),
            Moments.pooled([one.algorithm for one in several]),
            Moments.pooled([one.context for one in several]),
            several[0].damping,
        )

    def mixed(self, other: Self, share: float) -> Self:
        """A mixture of these and others: `share` of the others, in [0, 1]."""
        own, their = self.priors, other.priors
        priors = Priors(
            (1 - share) * own.absolute_error + share * their.absolute_error,
            (1 - share) * own.variance + share * their.variance,
        )
        algorithm, context = (
            getattr(self, name).mixed(getattr(other, name), share) for name in ("algorithm", "context")
        )
        return type(self)(priors, algorithm, context, self.damping)

    def inputs(self, side: Features, targets: np.ndarray, mask: np.ndarray) -> FusionInputs:
        """One side's features as a network's inputs; arguments as in :func:`standard_inputs`."""
        return standard_inputs(side, self.algorithm, self.context, targets, mask)


def standard_inputs(
    side: Features, algorithm: Moments, context: Moments, targets: np.ndarray, mask: np.ndarray
) -> FusionInputs:
    """One side's features as a network's inputs: standardised, with padding replaced.

    Args:
        algorithm: moments [A, F]; context: moments [C].
        targets: [T, n] on the unit scale; mask: [T, n] false in padding.
    """

    def tensor(values: np.ndarray, padding: float) -> torch.Tensor:
        hidden = ~mask.reshape(mask.shape + (1,) * (values.ndim - 2))
        return torch.from_numpy(np.where(hidden, padding, values)).float()

    return FusionInputs(
        predictions=tensor(side.predictions, 0.5),
        algorithm_features=tensor(algorithm.standardise(side.algorithm), 0.0),
        context=tensor(context.standardise(side.context), 0.0),
        targets=tensor(targets, 0.0),
        mask=torch.from_numpy(mask.copy()),
    )


def unit_rows(
    predictions: np.ndarray, evidence: np.ndarray, facts: np.ndarray, mask: np.ndarray, scale: RatingScale
) -> Rows:
    """One side of T tasks, from base predictions and item facts.

    Args:
        predictions: [T, n, A] in the domain's units; evidence: [T, n, A]; facts: [T, n, 5]; mask: [T, n].
    """
    unit = np.clip(scale.to_unit(predictions.astype(np.float64)), 0.0, 1.0)
    return Rows(unit, evidence, ItemFacts.of(facts), mask)
