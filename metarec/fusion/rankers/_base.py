"""The shared part of all rankers: lists of candidates, the choice of settings by validation users' nDCG@10.

Shapes: T users, N candidates, A bases, R unmasked rows.
"""

from __future__ import annotations

import logging
import math
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np
import torch

from metarec.bases import Learned
from metarec.episodes import Episodes
from metarec.errors import InputError
from metarec.fusion._combiner import Chosen, Combine, Combiner, Family, Fitted, Layout, Rows
from metarec.fusion.ranks import RelevantRanks, ndcg

__all__ = ["ByRow", "Judged", "Lists", "Ranker", "drawn", "lists_of", "relevance"]

logger = logging.getLogger(__name__)

_AT_ONCE = 64
"""Users that are predicted at once, because a design has about ten times as many numbers as the bases' scores."""


class Lists(NamedTuple):
    """The candidates of T users, without their relevance, so that a prediction cannot use it.

    Attributes:
        predictions: [T, N, A] of the bases, with the fallback in place of NaN; 0 in padding.
        mean: [T, N] of the bases with a finite prediction.
        algorithm_features: [T, N, A, F] and context: [T, N, C], as in :class:`metarec.episodes.FusionInputs`.
        mask: [T, N] false in padding.
    """

    predictions: np.ndarray
    mean: np.ndarray
    algorithm_features: np.ndarray
    context: np.ndarray
    mask: np.ndarray

    def users(self, places: slice | np.ndarray) -> Lists:
        """The lists of some users."""
        return Lists(*(values[places] for values in self))

    def rows(self, mask: np.ndarray | None = None) -> Rows:
        """The candidates as flat rows, all or those of a mask [T, N]."""
        chosen = self.mask if mask is None else mask
        flat = (self.predictions[chosen], self.mean[chosen], self.algorithm_features[chosen], self.context[chosen])
        return Rows(*flat, np.nonzero(chosen)[0])


class Judged(NamedTuple):
    """Lists with their relevance, for learning and for scores, never for predictions.

    Attributes:
        targets: [T, N] 1 for a relevant candidate. relevant: [T] relevant items in the catalogue.
        base_names: of the A bases.
    """

    lists: Lists
    targets: np.ndarray
    relevant: np.ndarray
    base_names: tuple[str, ...]

    def ndcg(self, scores: np.ndarray) -> float:
        """The mean nDCG@10 of scores [T, N]."""
        return float(ndcg(RelevantRanks.of(scores, self.targets, self.lists.mask, self.relevant)).mean())

    def users(self, places: np.ndarray) -> Judged:
        """The lists of some users."""
        return Judged(self.lists.users(places), self.targets[places], self.relevant[places], self.base_names)


class _ChosenByNdcg(Chosen):
    validation_ndcg: float


class Ranker(Combiner[Fitted]):
    """A combination of base recommenders that orders a user's candidates.

    A subclass has a name and yields families of fitted combinations, whose `combine` maps :class:`Lists` to [T, N, S]
    scores. This class chooses the one with the highest mean nDCG@10 over validation users; the first one wins a tie.
    The choice is not refitted on validation users, and neither is a fusion network.
    """

    kind = "ranker"
    choice = _ChosenByNdcg

    @abstractmethod
    def _families(self, train: Judged, validation: Judged, seed: int) -> Iterator[Family]:
        """Combinations fitted on `train`. `validation` is for early stopping only."""

    def _choose(self, layout: Layout, train: Episodes, validation: Episodes, seed: int) -> Fitted:
        training, held_out = self._judged(train, "train"), self._judged(validation, "validation")
        best, highest, tried = None, -math.inf, 0
        for family in self._families(training, held_out, seed):
            tried += len(family.settings)
            scores = _combined(family.combine, held_out.lists, len(family.settings))
            for column, settings in enumerate(family.settings):
                own = scores[..., column]
                value = held_out.ndcg(own) if np.isfinite(own[held_out.lists.mask]).all() else -math.inf
                if value > highest:
                    chosen = _ChosenByNdcg(settings=dict(settings), validation_ndcg=value)
                    best, highest = Fitted(layout, chosen, family.combine, column), value
        if best is None:
            raise InputError(f"{self.name}: no setting has finite scores; check that all features are finite")
        logger.debug(
            "%s: %s, the best of %d settings, validation nDCG@10 %.5f", self.name, best.chosen.settings, tried, highest
        )
        return best

    def predict(self, episodes: Episodes) -> np.ndarray:
        """[T, N] scores of the candidates, higher is better, on a scale of its own; 0 in padding.

        Raises:
            RuntimeError: it was not fitted.
            InputError: the bases or features of the episodes differ from those of the fit.
        """
        fitted = self._checked()
        self._check_layout(fitted.layout, episodes, "these")
        return _combined(fitted.combine, lists_of(episodes), None)[..., fitted.column]

    @property
    def validation_ndcg(self) -> float:
        """The mean nDCG@10 over validation users."""
        return float(self._checked().chosen.validation_ndcg)

    def restore(self, state: Mapping[str, Learned]) -> Self:
        self._fitted = self._restored(state, {})
        return self

    def _one_row(self, layout: Layout) -> Lists:
        bases, features, context = map(len, layout)
        of_bases = np.zeros((1, 1, bases, features))
        return Lists(
            np.zeros((1, 1, bases)), np.zeros((1, 1)), of_bases, np.zeros((1, 1, context)), np.ones((1, 1), bool)
        )

    def _judged(self, episodes: Episodes, role: str) -> Judged:
        if episodes.relevant is None:
            raise InputError(f"{self.name} orders candidates, but the {role} episodes are of rating, not of ranking")
        if not episodes.batch.query.mask.any():
            raise InputError(f"{self.name} needs at least one query row in the {role} episodes but got none")
        return Judged(
            lists_of(episodes), episodes.batch.query.targets.cpu().numpy(), episodes.relevant, episodes.base_names
        )


@dataclass(frozen=True)
class ByRow:
    """[T, N, S] scores from a combination of flat rows; 0 in padding."""

    of_rows: Callable[[Rows], np.ndarray]

    def __call__(self, lists: Lists) -> np.ndarray:
        found = self.of_rows(lists.rows())
        scores = np.zeros((*lists.mask.shape, found.shape[1]))
        scores[lists.mask] = found
        return scores


def _combined(combine: Combine, lists: Lists, columns: int | None) -> np.ndarray:
    """[T, N, S] scores, a few users at a time; 0 in padding."""
    parts = [combine(lists.users(slice(first, first + _AT_ONCE))) for first in range(0, len(lists.mask), _AT_ONCE)]
    scores = np.concatenate(parts) if parts else np.zeros((*lists.mask.shape, columns or 1))
    return np.where(lists.mask[..., None], scores, 0.0)


def lists_of(episodes: Episodes) -> Lists:
    """The candidates of the query side; the row's fallback replaces NaN."""
    query = episodes.batch.query
    inside = query.mask[..., None]
    available = query.predictions.isfinite() & inside
    counts = available.sum(-1)
    mean = torch.where(available, query.predictions, 0.0).sum(-1) / counts.clamp(min=1)
    mean = torch.where(counts > 0, mean, episodes.query_fallback)
    predictions = torch.where(available, query.predictions, episodes.query_fallback[..., None])
    predictions = torch.where(inside, predictions, 0.0)
    arrays = (predictions, mean, query.algorithm_features, query.context, query.mask)
    return Lists(*(tensor.detach().cpu().numpy() for tensor in arrays))


def drawn(train: Judged, most: int, seed: int) -> np.ndarray:
    """[T, N] which candidates to learn from: of at most `most`, all relevant ones, and a seeded draw of the others.

    A user without a relevant candidate is left out, because no order of these candidates is better than another.

    Raises:
        InputError: no user has a relevant candidate.
    """
    mask = train.lists.mask
    is_relevant = (train.targets > 0) & mask
    other = mask & ~is_relevant & is_relevant.any(1, keepdims=True)
    if not is_relevant.any():
        raise InputError("the bases propose no relevant item to any train user, so that there is nothing to learn from")
    share = (most - int(is_relevant.sum())) / max(int(other.sum()), 1)
    if share < 1:
        other &= np.random.default_rng(seed).random(mask.shape) < share
    return is_relevant | other


def relevance(train: Judged, mask: np.ndarray) -> np.ndarray:
    """[R] 1 for the relevant rows of a mask [T, N]."""
    return (train.targets[mask] > 0).astype(float)
