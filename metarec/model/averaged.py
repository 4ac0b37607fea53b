"""The mean of several fits of one member of a fusion, each on other users."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from metarec.bases import Learned
from metarec.episodes import Episodes, FusionInputs
from metarec.errors import InputError
from metarec.fusion.ranks import standard_scores
from metarec.meta import AdaptedNetwork, MetaLearner

__all__ = ["MeanAdapted", "MeanNetwork", "MeanStacker", "fold_indices", "mean_of", "mean_scores"]


def fold_indices(count: int, folds: int, seed: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """For each fold of `count` users or rows: the sorted indices outside and inside of it."""
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    for part in order.tensor_split(min(folds, count)):
        chosen = torch.zeros(count, dtype=torch.bool)
        chosen[part] = True
        yield (~chosen).nonzero().squeeze(1), chosen.nonzero().squeeze(1)


def mean_of(predictions: Sequence[np.ndarray], episodes: Episodes) -> np.ndarray:
    """[T, N] the mean of several predictions of the query rows, [T, N] each.

    The scores of lists have no common unit: in ranking it is the mean of standard scores, as standard scores.
    """
    if episodes.task == "rating":
        mean: np.ndarray = np.mean(predictions, axis=0)
        return mean
    mask = episodes.batch.query.mask.numpy()
    return standard_scores(mean_scores(predictions, mask), mask)


def mean_scores(scores: Sequence[np.ndarray], mask: np.ndarray) -> np.ndarray:
    """[T, N] the mean of the standard scores of several lists, [T, N] each."""
    mean: np.ndarray = np.mean([standard_scores(own, mask) for own in scores], axis=0)
    return mean


class MeanStacker:
    """The mean of fitted stackers or rankers of one name.

    Args:
        fits: at least one.
    """

    def __init__(self, fits: Sequence[Any]) -> None:
        self.fits = tuple(fits)

    def predict(self, episodes: Episodes) -> np.ndarray:
        """[T, N] predictions of the query rows on the unit scale; in ranking standard scores."""
        return mean_of([fit.predict(episodes) for fit in self.fits], episodes)

    @property
    def settings(self) -> dict[str, Any]:
        """The chosen settings of each fit."""
        return {"fits": [dict(fit.settings) for fit in self.fits]}

    def state(self) -> dict[str, Learned]:
        """The states of all fits; the number of the fit is the first part of a name."""
        return {f"{place}_{name}": value for place, fit in enumerate(self.fits) for name, value in fit.state().items()}

    def restore(self, state: Mapping[str, Learned]) -> MeanStacker:
        """Take the state of another one of as many fits.

        Raises:
            InputError: a name without the number of a fit, or a state that breaks a rule.
        """
        parts: list[dict[str, Learned]] = [{} for _ in self.fits]
        for key, value in state.items():
            place, _, name = key.partition("_")
            if not place.isdecimal() or int(place) >= len(parts):
                raise InputError(f"the state of {len(parts)} fits must name the fit of each value but has {key}")
            parts[int(place)][name] = value
        self.fits = tuple(fit.restore(own) for fit, own in zip(self.fits, parts, strict=True))
        return self


class MeanNetwork(nn.Module):
    """The mean of meta-learned networks of one configuration.

    Args:
        fits: at least one, of one engine.
    """

    def __init__(self, fits: Sequence[MetaLearner]) -> None:
        super().__init__()
        self._fits = nn.ModuleList(fits)

    @property
    def fits(self) -> list[MetaLearner]:
        """The networks."""
        return [fit for fit in self._fits if isinstance(fit, MetaLearner)]

    @property
    def path(self) -> list[Any]:
        """:attr:`MetaLearner.path` of each fit."""
        return [fit.path for fit in self.fits]

    @path.setter
    def path(self, paths: Sequence[Any]) -> None:
        for fit, path in zip(self.fits, paths, strict=True):
            fit.path = path

    def adapt(self, support: FusionInputs) -> MeanAdapted:
        """Each network adapted to each of the T tasks of `support`."""
        return MeanAdapted([fit.adapt(support) for fit in self.fits])


class MeanAdapted:
    """Networks that are adapted to the same tasks. Made by :meth:`MeanNetwork.adapt`."""

    def __init__(self, fits: Sequence[AdaptedNetwork]) -> None:
        self._fits = fits

    def predict(self, query: FusionInputs) -> torch.Tensor:
        """[T, N] the mean of the ratings on the unit scale."""
        return torch.stack([fit.predict(query) for fit in self._fits]).mean(0)

    def scores(self, query: FusionInputs) -> np.ndarray:
        """[T, N] the mean of the standard scores of the candidates."""
        found = [fit.fuse(query).prediction.detach().cpu().numpy() for fit in self._fits]
        return mean_scores(found, query.mask.numpy())
