"""Aligns the features of a target domain to those of a source, so that the source's model applies to them."""

from __future__ import annotations

import math

import torch
from sklearn.covariance import ledoit_wolf
from torch import Tensor, nn
from torch.nn import functional

from metarec.errors import InputError

__all__ = ["AlignedModel", "FeatureAligner"]


class FeatureAligner(nn.Module):
    """A linear map from target features to source features that matches their means and covariances.

    Correlation alignment (CORAL, Sun et al. 2016) from the target to the source: features are whitened by the target's
    covariance and coloured by the source's. Covariances of few rows are noisy, so both are shrunk towards a multiple of
    the identity (Ledoit and Wolf 2004) on standardised features: with very few rows only means and spreads are matched.

    Where the domains have different numbers of features, their principal components are matched in the order of their
    variances (as in subspace alignment, Fernando et al. 2013), as many as both have.

    The map is a layer with parameters, which a few target ratings can train further (:meth:`AlignedModel.fine_tune`).

    Args:
        source_features: [S, F] rows of the source; target_features: [T, G] rows of the target. At least one each.

    Raises:
        InputError: not matrices, without rows, or not finite.

    >>> source, target = torch.randn(200, 3), 5 + 2 * torch.randn(150, 3)
    >>> aligned = FeatureAligner(source, target)(target)
    >>> bool((aligned.mean(0) - source.mean(0)).abs().max() < 1e-4)
    True
    """

    def __init__(self, source_features: Tensor, target_features: Tensor) -> None:
        super().__init__()
        source, target = (
            _checked(name, rows)
            for name, rows in (("source_features", source_features), ("target_features", target_features))
        )
        to, of = _Moments(source), _Moments(target)
        if source.shape[1] == target.shape[1]:
            between = to.root @ of.inverse_root
        else:
            shared = min(source.shape[1], target.shape[1])
            between = to.colouring[:, :shared] @ of.whitening[:shared]
        weight = to.spread.unsqueeze(1) * between / of.spread
        dtype = source_features.dtype
        self.weight = nn.Parameter(weight.to(dtype))
        self.bias = nn.Parameter((to.mean - weight @ of.mean).to(dtype))

    def forward(self, target_features: Tensor) -> Tensor:
        """[..., F] from [..., G]."""
        return functional.linear(target_features, self.weight, self.bias)


class AlignedModel(nn.Module):
    """A source's model, applied to a target's rows through an aligner.

    Args:
        base_model: from source features [B, F] to predictions [B, 1]; it is not trained.
        feature_aligner: from target features to source features.
    """

    def __init__(self, base_model: nn.Module, feature_aligner: FeatureAligner) -> None:
        super().__init__()
        self.base_model = base_model
        self.feature_aligner = feature_aligner

    def forward(self, features: Tensor) -> Tensor:
        """[B, 1] predictions for target features [B, G]."""
        predictions: Tensor = self.base_model(self.feature_aligner(features))
        return predictions

    def fine_tune(
        self, features: Tensor, ratings: Tensor, *, strength: float = 1.0, steps: int = 100, rate: float = 0.01
    ) -> AlignedModel:
        """Train the map on rated rows of the target, with a ridge penalty around its present parameters.

        The loss is the mean squared error plus ``strength / rows`` times the squared distance of the parameters from
        the present ones.

        Args:
            features: [B, G]; ratings: [B] on the scale of the model's predictions.
            strength: the weight of the present parameters, roughly in ratings; >= 0.

        Raises:
            InputError: the shapes do not fit each other, there is no row, or `strength` is below 0.
        """
        if features.dim() != 2 or ratings.shape != features.shape[:1] or not len(ratings):
            shapes = f"{list(features.shape)} and {list(ratings.shape)}"
            raise InputError(f"features must be [B, G] and ratings [B], with a row at least, but got {shapes}")
        if not 0 <= strength < math.inf:
            raise InputError(f"strength must be >= 0 and finite but got {strength!r}")
        parameters = list(self.feature_aligner.parameters())
        start = [parameter.detach().clone() for parameter in parameters]
        training = self.training
        self.eval()
        optimizer = torch.optim.Adam(parameters, lr=rate)
        for _ in range(steps):
            moved = sum((own - before).square().sum() for own, before in zip(parameters, start, strict=True))
            error = (self(features).squeeze(-1) - ratings).square().mean()
            gradients = torch.autograd.grad(error + strength / len(ratings) * moved, parameters)
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.grad = gradient
            optimizer.step()
        optimizer.zero_grad()
        return self.train(training)


class _Moments:
    """Mean, spread, and the whitening and colouring matrices of the shrunk correlations of rows."""

    def __init__(self, rows: Tensor) -> None:
        self.mean = rows.mean(0)
        spread = rows.std(0, correction=0)
        # Constant features are not scaled.
        self.spread = torch.where(spread > 1e-9, spread, 1.0)
        standard = (rows - self.mean) / self.spread
        identity = torch.eye(rows.shape[1]).to(rows)
        shrunk = identity
        if len(rows) > 1:
            shrunk = torch.from_numpy(ledoit_wolf(standard.numpy(), assume_centered=True)[0]).to(rows)
        # Constant features have no variance; a small one keeps the inverse roots finite.
        values, vectors = torch.linalg.eigh(shrunk + 1e-6 * identity)
        order = values.argsort(descending=True)
        values, vectors = values[order].clamp(min=1e-6), vectors[:, order]
        # A direction's sign is arbitrary; the larger entries decide.
        vectors = vectors * torch.where((vectors**3).sum(0) < 0, -1.0, 1.0).to(rows)
        self.root = vectors * values.sqrt() @ vectors.T
        self.inverse_root = vectors / values.sqrt() @ vectors.T
        self.colouring = vectors * values.sqrt()
        self.whitening = (vectors / values.sqrt()).T


def _checked(name: str, rows: Tensor) -> Tensor:
    if rows.dim() != 2 or not rows.numel():
        raise InputError(f"{name} must be [rows, features] with at least one of both but got {list(rows.shape)}")
    if not rows.isfinite().all():
        raise InputError(f"{name} must be finite but holds {float(rows[~rows.isfinite()][0])}")
    return rows.detach().double()
