"""Rated prototypes of rows, and a model that predicts from them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
from sklearn.cluster import KMeans
from torch import Tensor, nn

from metarec.errors import InputError

__all__ = ["PrototypeBasedModel", "Prototypes", "extract_prototypes"]

NOTHING = 1e-6
"""A feature with no larger spread is constant, and is ignored."""

STARTS = 4
"""Initialisations of k-means; the best is kept."""


class Prototypes(NamedTuple):
    """K prototypes: features [K, F] and the rating of each, [K]."""

    features: Tensor
    ratings: Tensor


def extract_prototypes(features: Tensor, ratings: Tensor, count: int, seed: int) -> Prototypes:
    """The centres of clusters of standardised rows (k-means), and the mean rating in each.

    Args:
        features: [R, F]; ratings: [R]. count: of prototypes; at most one for each different row.
    """
    values = features.double()
    spread = values.std(0, correction=0)
    standard = values / torch.where(spread > NOTHING, spread, math.inf)
    count = min(count, len(standard.unique(dim=0)))
    clusters = KMeans(count, n_init=STARTS, random_state=seed).fit(standard.numpy()).labels_
    mine = nn.functional.one_hot(torch.as_tensor(clusters, dtype=torch.long), count).to(values)
    means = mine.T @ torch.column_stack([values, ratings.double()]) / mine.sum(0).unsqueeze(1)
    return Prototypes(means[:, :-1].to(features.dtype), means[:, -1].to(ratings.dtype))


class PrototypeBasedModel(nn.Module):
    """Predicts the mean rating of prototypes, weighted by a row's memberships in them.

    Memberships are the softmax of the negative squared distances (Prototypical Networks, Snell et al. 2017), in units
    of the distance between neighbouring prototypes, with features scaled by their spread over the prototypes.
    Prototypes of sources and of the target are used together; :meth:`fit` fits the ratings of all to rated rows.

    Args:
        source_prototypes: those of a source, or name -> those of each. target_prototypes: those of the target.
            Either :class:`Prototypes`, or features [K, F] alone: their initial ratings are the means of a prototype's
            features, as if these were predictions of the rating.

    Attributes:
        features: [K, F] and ratings: [K], parameters, of all prototypes: the sources', then the target's.

    Raises:
        InputError: the prototypes are no matrices of one width, or their ratings do not fit them.

    >>> source = Prototypes(torch.tensor([[0.0, 0.0], [1.0, 1.0]]), torch.tensor([0.2, 0.8]))
    >>> model = PrototypeBasedModel(source, Prototypes(torch.tensor([[3.0, 0.0]]), torch.tensor([0.5])))
    >>> bool(model(torch.tensor([[0.0, 0.0]])) < model(torch.tensor([[1.0, 1.0]])))
    True
    """

    def __init__(
        self,
        source_prototypes: Prototypes | Tensor | Mapping[str, Prototypes | Tensor],
        target_prototypes: Prototypes | Tensor,
    ) -> None:
        super().__init__()
        sources = source_prototypes if isinstance(source_prototypes, Mapping) else {"": source_prototypes}
        parts = [_checked(f"source_prototypes {name}".strip(), own) for name, own in sources.items()]
        parts.append(_checked("target_prototypes", target_prototypes))
        widths = sorted({part.features.shape[1] for part in parts})
        if len(widths) > 1:
            raise InputError(f"all prototypes must have the same number of features but have {widths}; align them")
        features = torch.cat([part.features for part in parts])
        self.features = nn.Parameter(features)
        self.ratings = nn.Parameter(torch.cat([part.ratings for part in parts]).to(features.dtype))
        spread = features.std(0, correction=0)
        self.register_buffer("unit", torch.where(spread > NOTHING, spread, 1.0))
        self.register_buffer("width", _neighbour_distance(features / self.unit))
        self.unit: Tensor
        self.width: Tensor

    def memberships(self, features: Tensor) -> Tensor:
        """[B, K] memberships of rows [B, F] in each prototype; each row sums to 1.

        Raises:
            InputError: the rows have another number of features than the prototypes.
        """
        if features.dim() != 2 or features.shape[1] != self.features.shape[1]:
            raise InputError(f"features must be [B, {self.features.shape[1]}] but got {list(features.shape)}")
        apart = (features / self.unit).unsqueeze(1) - self.features / self.unit
        return torch.softmax(-apart.square().sum(-1) / self.width, dim=-1)

    def forward(self, features: Tensor) -> Tensor:
        """[B, 1] ratings of rows [B, F]."""
        return (self.memberships(features) @ self.ratings).unsqueeze(-1)

    def fit(self, features: Tensor, ratings: Tensor, *, strength: float = 1.0) -> PrototypeBasedModel:
        """Fit the prototypes' ratings to rated rows by ridge regression around their present values.

        Args:
            features: [B, F]; ratings: [B]. strength: the weight of a prototype's present rating, in rows, > 0.

        Raises:
            InputError: the shapes do not fit, or `strength` is not above 0.
        """
        if not 0 < strength < math.inf:
            raise InputError(f"strength must be > 0 and finite but got {strength!r}")
        if ratings.shape != features.shape[:1]:
            raise InputError(f"ratings must be [{len(features)}] as the features but got {list(ratings.shape)}")
        with torch.no_grad():
            weights = self.memberships(features).double()
            residuals = ratings.double() - weights @ self.ratings.double()
            penalty = strength * torch.eye(len(self.ratings)).to(weights)
            moves = torch.linalg.solve(weights.T @ weights + penalty, weights.T @ residuals)
            self.ratings.add_(moves.to(self.ratings))
        return self


def _neighbour_distance(features: Tensor) -> Tensor:
    """The median squared distance of prototypes [K, F] from their nearest neighbours; 1 where there is none."""
    if len(features) == 1:
        return torch.ones(()).to(features)
    # The median ignores a single outlier.
    squared = torch.cdist(features, features).square().fill_diagonal_(math.inf).min(1).values.median()
    return torch.where(squared > NOTHING, squared, 1.0)


def _checked(name: str, given: Prototypes | Tensor) -> Prototypes:
    features, ratings = given if isinstance(given, Prototypes) else (torch.as_tensor(given), None)
    if features.dim() != 2 or not features.numel() or not features.isfinite().all():
        raise InputError(f"{name} must be [K, F], finite, with one prototype at least, but got {list(features.shape)}")
    ratings = features.mean(1) if ratings is None else ratings
    if ratings.shape != features.shape[:1] or not ratings.isfinite().all():
        raise InputError(f"{name} must have {len(features)} finite ratings but got {list(ratings.shape)}")
    return Prototypes(features.detach().clone(), ratings.detach().clone())
