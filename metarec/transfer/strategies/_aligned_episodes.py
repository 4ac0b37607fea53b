"""Episodes whose features are shifted and scaled so that they look like those of another domain."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from metarec.episodes import EpisodeBatch, Episodes, FusionInputs
from metarec.fusion.networks import all_features

__all__ = ["EpisodeMap", "moment_map"]

NOTHING = 1e-6
"""The spread up to which a feature does not vary: there is nothing to scale, and it is left as it is."""

FEWEST = 4
"""Users from whom a variance can be told at all: with three, Student's t has none."""


@dataclass(frozen=True)
class EpisodeMap:
    """Shifts and scales what is known of a row: the features of all bases and the context, as one vector of V numbers.

    Predictions, ratings and padding stay as they are.

    Attributes:
        centre: [V] what is held while scaling. shift: [V] what is added. log_scale: [V] the logarithm of the factor.
            All float64.
    """

    centre: Tensor
    shift: Tensor
    log_scale: Tensor

    def part(self, share: float) -> EpisodeMap:
        """The map that goes so far only: 0 leaves everything as it is, 1 is this map."""
        return replace(self, shift=share * self.shift, log_scale=share * self.log_scale)

    def __call__(self, episodes: Episodes) -> Episodes:
        """The same episodes with other features, on support and query rows alike."""
        return replace(episodes, batch=EpisodeBatch(*(self._moved(side) for side in episodes.batch)))

    def _moved(self, inputs: FusionInputs) -> FusionInputs:
        before = all_features(inputs.algorithm_features, inputs.context)
        scale = self.log_scale.exp()
        after = before * scale.to(before.dtype) + (self.centre * (1 - scale) + self.shift).to(before.dtype)
        after = torch.where(inputs.mask.unsqueeze(-1), after, before)
        features, context = after.split([before.shape[-1] - inputs.context.shape[-1], inputs.context.shape[-1]], -1)
        return inputs._replace(algorithm_features=features.reshape(inputs.algorithm_features.shape), context=context)


def moment_map(source: Episodes, target: Episodes) -> EpisodeMap:
    """From target features towards the source's means and spreads, each as far as the target's users bear it out.

    The means and spreads of few users differ from the source's by chance, too. By how much says the jackknife over
    users (rows of one user are alike, and count as one), and what all features together differ by beyond that is how
    large true differences are; from both follows how far each is believed (empirical Bayes, Morris 1983). Of users who
    are like the source's the map changes nothing; neither does it of fewer than four users, nor of a feature that does
    not vary in both domains.

    Covariances are left as they are: those of 4 to 20 users, though shrunk (Ledoit and Wolf 2004), cost more on
    simulated domains than they were worth, even where features were mixtures of each other.
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
    # How much of few users a variance is worth that was itself estimated from them: Student's t is wider by this.
    variances *= (len(target) - 1) / max(len(target) - 3, 1)
    shift, log_scale = _believed(-own, variances, varies)
    return EpisodeMap(centre + own[0] * unit, shift * unit, log_scale)


def _moments(sums: Tensor) -> Tensor:
    """[2, ..., V] mean and logarithm of the spread, from [3, ..., V] sums of ones, values and squares."""
    count = sums[0].clamp(min=1)
    mean = sums[1] / count
    return torch.stack([mean, (sums[2] / count - mean.square()).clamp(min=NOTHING**4).log() / 2])


def _believed(differences: Tensor, variances: Tensor, varies: Tensor) -> Tensor:
    """[K, V] what is left of K kinds of differences of V features, which chance gives these variances."""
    if not varies.any():
        return torch.zeros_like(differences)
    true = (differences.square() - variances)[:, varies].mean(1, keepdim=True).clamp(min=0)
    share = true / (true + variances).clamp(min=torch.finfo(true.dtype).tiny)
    return torch.where(varies, share * differences, 0.0)


def _query_rows(episodes: Episodes) -> Tensor:
    """[R, V] of the rows that count."""
    query = episodes.batch.query
    return all_features(query.algorithm_features, query.context)[query.mask].double()
