"""Shifts and scales the features of episodes so that their moments match those of another domain."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from metarec.episodes import EpisodeBatch, Episodes, FusionInputs
from metarec.fusion.networks import all_features

__all__ = ["EpisodeMap", "moment_map"]

NOTHING = 1e-6
"""A feature with no larger spread is constant, and is left as it is."""

HALVINGS = 60
"""Of the interval that holds the variance of true differences: all digits of a float64."""

FEWEST = 4
"""The least users for a variance: with three, Student's t has none."""


@dataclass(frozen=True)
class EpisodeMap:
    """Shifts and scales a row's features: those of all bases and the context, as one vector of V numbers.

    Predictions, ratings and padding stay as they are.

    Attributes:
        centre: [V] the fixed point of the scaling. shift: [V]. log_scale: [V] the logarithm of the factor. All float64.
    """

    centre: Tensor
    shift: Tensor
    log_scale: Tensor

    def part(self, share: float) -> EpisodeMap:
        """The map from the identity (0) to this map (1)."""
        return replace(self, shift=share * self.shift, log_scale=share * self.log_scale)

    def __call__(self, episodes: Episodes) -> Episodes:
        """The same episodes with mapped features on support and query rows."""
        return replace(episodes, batch=EpisodeBatch(*(self._moved(side) for side in episodes.batch)))

    def _moved(self, inputs: FusionInputs) -> FusionInputs:
        before = all_features(inputs.algorithm_features, inputs.context)
        scale = self.log_scale.exp()
        after = before * scale.to(before.dtype) + (self.centre * (1 - scale) + self.shift).to(before.dtype)
        after = torch.where(inputs.mask.unsqueeze(-1), after, before)
        features, context = after.split([before.shape[-1] - inputs.context.shape[-1], inputs.context.shape[-1]], -1)
        return inputs._replace(algorithm_features=features.reshape(inputs.algorithm_features.shape), context=context)


def moment_map(source: Episodes, target: Episodes) -> EpisodeMap:
    """Maps target features towards the source's means and spreads, with shrinkage (empirical Bayes, Morris 1983).

    The jackknife over users gives the sampling variance of each difference of a few users from the source; the squared
    differences of all features and these variances give that of true differences. Both give the shrinkage factors. The
    map is the identity for fewer than four users, and for a feature that is constant in either domain.

    Covariances are left as they are: those of 4 to 20 users, though shrunk (Ledoit and Wolf 2004), increased errors on
    simulated domains, even where features were mixtures of each other.
    """
    rows = _query_rows(source)
    centre, spread = rows.mean(0), rows.std(0, correction=0)
    unit = torch.where(spread > NOTHING, spread, 1.0)
    # In units of the source's spread all features are comparable.
    task = target.batch.query.mask.nonzero()[:, 0]
    standard = (_query_rows(target) - centre) / unit
    each = torch.stack([torch.ones_like(standard), standard, standard.square()])
    users = each.new_zeros(3, len(target), len(centre)).index_add(1, task, each)
    own = _moments(users.sum(1))
    varies = (spread > NOTHING) & (own[1].exp() > NOTHING)
    if len(target) < FEWEST:
        varies = torch.zeros_like(varies)
    without = _moments(users.sum(1, keepdim=True) - users)
    variances = (len(target) - 1) * (without - without.mean(1, keepdim=True)).square().mean(1)
    # The variance is itself estimated from few users: Student's t is wider by this factor.
    variances *= (len(target) - 1) / max(len(target) - 3, 1)
    shift, log_scale = _shrunk(-own, variances, varies)
    return EpisodeMap(centre + own[0] * unit, shift * unit, log_scale)


def _moments(sums: Tensor) -> Tensor:
    """[2, ..., V] mean and logarithm of the spread, from [3, ..., V] sums of ones, values and squares."""
    count = sums[0].clamp(min=1)
    mean = sums[1] / count
    return torch.stack([mean, (sums[2] / count - mean.square()).clamp(min=NOTHING**4).log() / 2])


def _shrunk(differences: Tensor, variances: Tensor, varies: Tensor) -> Tensor:
    """[K, V] K kinds of differences of V features, shrunk by their sampling variances.

    The variance of true differences is Paule and Mandel's (1982): with it the mean of the squared differences over
    their total variances is 1. A feature that is known badly then counts little. With the plain mean of the squared
    differences beyond the sampling variances, one such feature hid the differences of all others.
    """
    if not varies.any():
        return torch.zeros_like(differences)
    squares, own = differences.square()[:, varies], variances[:, varies]
    low, high = torch.zeros_like(own[:, :1]), squares.amax(1, keepdim=True)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        above = (squares / (middle + own)).mean(1, keepdim=True) > 1
        low, high = torch.where(above, middle, low), torch.where(above, high, middle)
    share = low / (low + variances).clamp(min=torch.finfo(variances.dtype).tiny)
    return torch.where(varies, share * differences, 0.0)


def _query_rows(episodes: Episodes) -> Tensor:
    """[R, V] of the rows that count."""
    query = episodes.batch.query
    return all_features(query.algorithm_features, query.context)[query.mask].double()
