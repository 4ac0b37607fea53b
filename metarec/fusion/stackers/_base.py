"""The shared part of all stackers: rows, the choice of settings on validation users, the correction.

Shapes: R rows, A bases.
"""

from __future__ import annotations

import logging
import math
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
import torch

from metarec.bases import Learned, Stored
from metarec.episodes import Episodes, FusionInputs
from metarec.errors import InputError
from metarec.fusion._combiner import Chosen, Combine, Combiner, Family, Fitted, Layout, Rows

__all__ = [
    "SHRINKAGES",
    "Family",
    "Rows",
    "Stacker",
    "TrainingRows",
    "query_rows",
    "shrunk_corrections",
    "support_rows",
    "true_ratings",
]

logger = logging.getLogger(__name__)

SHRINKAGES = (math.inf, 200.0, 100.0, 50.0, 20.0, 10.0, 5.0, 3.0, 2.0, 1.0, 0.0)
"""The weight of "no correction" in ratings, from no correction at all to the plain mean of the residuals."""


class TrainingRows(NamedTuple):
    """The query rows that a stacker learns from, their true ratings [R], and the names of the A bases."""

    rows: Rows
    targets: np.ndarray
    base_names: tuple[str, ...]


class _ChosenByError(Chosen):
    validation_rmse: float


@dataclass(frozen=True)
class _Fitted(Fitted):
    shrinkage: float


class Stacker(Combiner[_Fitted]):
    """A combination of base recommenders that is learned from train users.

    A subclass has a name and yields families of fitted combinations. This class chooses one of them, together with the
    shrinkage of the correction by the user's support (:func:`shrunk_corrections`), by the RMSE over all query rows of
    the validation users; a correction must gain more than one standard error on them. The choice is not refitted on
    validation users, and neither is a fusion network.
    """

    kind = "baseline"
    choice = _ChosenByError
    shrinkages: ClassVar[Sequence[float]] = SHRINKAGES

    @abstractmethod
    def _families(self, train: TrainingRows, validation: TrainingRows, seed: int) -> Iterator[Family]:
        """Combinations fitted on `train`. `validation` is for early stopping only."""

    def _choose(self, layout: Layout, train: Episodes, validation: Episodes, seed: int) -> _Fitted:
        training, held_out = self._rows(train, "train"), self._rows(validation, "validation")
        best: dict[bool, _Fitted] = {}
        tried = 0
        for family in self._families(training, held_out, seed):
            tried += len(family.settings) * len(self.shrinkages)
            scores = self._scores(family.combine, validation, held_out)
            scores[~np.isfinite(scores)] = math.inf
            for shrinkage, row in zip(self.shrinkages, scores, strict=True):
                column = int(np.argmin(row))
                corrects, rmse = math.isfinite(shrinkage), float(row[column])
                if rmse < (best[corrects].chosen.validation_rmse if corrects in best else math.inf):
                    chosen = _ChosenByError(settings=dict(family.settings[column]), validation_rmse=rmse)
                    best[corrects] = _Fitted(layout, chosen, family.combine, column, shrinkage)
        if not best:
            raise InputError(f"{self.name}: no setting predicts finite ratings; check that all features are finite")
        fitted = _earned(best, validation, held_out)
        logger.debug(
            "%s: %s, the best of %d settings, validation RMSE %.5f on the unit scale",
            self.name,
            {**fitted.chosen.settings, "correction_shrinkage": fitted.shrinkage},
            tried,
            fitted.chosen.validation_rmse,
        )
        return fitted

    def predict(self, episodes: Episodes) -> np.ndarray:
        """[T, N] predictions of the query rows on the unit scale, in [0, 1]; 0.5 in padding.

        Raises:
            RuntimeError: it was not fitted.
            InputError: the bases or features of the episodes differ from those of the fit.
        """
        fitted = self._checked()
        self._check_layout(fitted.layout, episodes, "these")
        mask = episodes.batch.query.mask.cpu().numpy()
        predictions = np.full(mask.shape, 0.5)
        predictions[mask] = _predicted(fitted, query_rows(episodes), episodes)
        return predictions

    @property
    def settings(self) -> dict[str, Any]:
        """The chosen settings. `correction_shrinkage` is None where no correction was best."""
        fitted = self._checked()
        shrinkage = None if math.isinf(fitted.shrinkage) else fitted.shrinkage
        return {**fitted.chosen.settings, "correction_shrinkage": shrinkage}

    @property
    def validation_rmse(self) -> float:
        """RMSE over all query rows of the validation users, on the unit scale."""
        return float(self._checked().chosen.validation_rmse)

    def state(self) -> dict[str, Learned]:
        return {"shrinkage": self._checked().shrinkage, **super().state()}

    def restore(self, state: Mapping[str, Learned]) -> Self:
        found = self._restored(state, {"shrinkage": Stored(low=0, high=math.inf)})
        shrinkage = float(np.asarray(state["shrinkage"]))
        self._fitted = _Fitted(found.layout, found.chosen, found.combine, found.column, shrinkage)
        return self

    def _one_row(self, layout: Layout) -> Rows:
        bases, features, context = map(len, layout)
        of_bases = np.zeros((1, bases, features))
        return Rows(np.zeros((1, bases)), np.zeros(1), of_bases, np.zeros((1, context)), np.zeros(1, dtype=int))

    def _scores(self, combine: Combine, validation: Episodes, held_out: TrainingRows) -> np.ndarray:
        """[shrinkages, S] RMSE on the validation users' query rows."""
        base, residuals, support = _combined(combine, held_out.rows, validation)
        scores = []
        for shrinkage in self.shrinkages:
            corrected = _corrected(base, held_out.rows, residuals, support, len(validation), shrinkage)
            scores.append(np.sqrt(np.mean((corrected - held_out.targets[:, None]) ** 2, axis=0)))
        return np.stack(scores)

    def _rows(self, episodes: Episodes, role: str) -> TrainingRows:
        rows = query_rows(episodes)
        if len(rows.mean) == 0:
            raise InputError(f"{self.name} needs at least one query row in the {role} episodes but got none")
        return TrainingRows(rows, true_ratings(episodes.batch.query), episodes.base_names)


def _earned(best: Mapping[bool, _Fitted], validation: Episodes, held_out: TrainingRows) -> _Fitted:
    """The best with a correction, if it gains more than one standard error (over users) on the best without.

    Bases that fold in a user's ratings have corrected most errors already. The remaining gain is small beside the noise
    of a few dozen validation users, and the smallest error among many shrinkages is often luck.
    """
    if len(best) == 1:
        return next(iter(best.values()))
    errors = {
        corrects: (_predicted(fitted, held_out.rows, validation) - held_out.targets) ** 2
        for corrects, fitted in best.items()
    }
    gains = np.bincount(held_out.rows.task, weights=errors[False] - errors[True], minlength=len(validation))
    noise = gains.std() * math.sqrt(len(gains))
    return best[bool(gains.sum() > noise)]


def _predicted(fitted: _Fitted, query: Rows, episodes: Episodes) -> np.ndarray:
    """[R] predictions of the query rows."""
    base, residuals, support = _combined(fitted.combine, query, episodes)
    own = slice(fitted.column, fitted.column + 1)
    return _corrected(base[:, own], query, residuals[:, own], support, len(episodes), fitted.shrinkage)[:, 0]


def _combined(combine: Combine, query: Rows, episodes: Episodes) -> tuple[np.ndarray, np.ndarray, Rows]:
    """[R, S] predictions of the query, [K, S] residuals of the support, and the support rows."""
    support = support_rows(episodes)
    base = np.clip(combine(query), 0.0, 1.0)
    if len(support.mean) == 0:
        return base, np.zeros((0, base.shape[1])), support
    own = np.clip(combine(support), 0.0, 1.0)
    return base, true_ratings(episodes.batch.support)[:, None] - own, support


def _corrected(
    base: np.ndarray, query: Rows, residuals: np.ndarray, support: Rows, num_tasks: int, shrinkage: float
) -> np.ndarray:
    corrections = shrunk_corrections(residuals, support.task, num_tasks, shrinkage)
    return np.clip(base + corrections[query.task], 0.0, 1.0)


def query_rows(episodes: Episodes) -> Rows:
    """The query rows; the row's fallback replaces NaN."""
    return _rows(episodes.batch.query, _flat(episodes.query_fallback, episodes.batch.query.mask))


def support_rows(episodes: Episodes) -> Rows:
    """The support rows; they have no fallback, so the mean of the other bases replaces NaN."""
    return _rows(episodes.batch.support, None)


def true_ratings(inputs: FusionInputs) -> np.ndarray:
    """[R] true ratings of the unmasked rows, for learning and for scores, never for predictions."""
    return _flat(inputs.targets, inputs.mask)


def shrunk_corrections(residuals: np.ndarray, task: np.ndarray, num_tasks: int, shrinkage: float) -> np.ndarray:
    """[T, S] the correction of each episode: ``sum(residuals) / (k + shrinkage)`` over its k support rows.

    The posterior mean of a user's offset, when offsets and residuals are normal and `shrinkage` is the ratio of the
    residuals' variance to the offsets'.

    Args:
        residuals: [R, S] targets of the support rows minus S stackers' leave-one-out predictions of them.
        task: [R] the episode of each row. num_tasks: T.
        shrinkage: from 0 to infinity. An episode without support is never corrected.
    """
    count = np.bincount(task, minlength=num_tasks)
    sums = np.zeros((num_tasks, residuals.shape[1]))
    np.add.at(sums, task, residuals)
    return sums / np.where(count > 0, count + shrinkage, 1.0)[:, None]


def _rows(inputs: FusionInputs, fallback: np.ndarray | None) -> Rows:
    predictions = _flat(inputs.predictions, inputs.mask)
    available = np.isfinite(predictions)
    counts = available.sum(1)
    mean = np.where(available, predictions, 0.0).sum(1) / np.maximum(counts, 1)
    mean = np.where(counts > 0, mean, 0.5 if fallback is None else fallback)
    return Rows(
        predictions=np.where(available, predictions, (mean if fallback is None else fallback)[:, None]),
        mean=mean,
        algorithm_features=_flat(inputs.algorithm_features, inputs.mask),
        context=_flat(inputs.context, inputs.mask),
        task=np.nonzero(inputs.mask.cpu().numpy())[0],
    )


def _flat(values: torch.Tensor, mask: torch.Tensor) -> np.ndarray:
    return values.detach()[mask].cpu().numpy().astype(np.float64)
