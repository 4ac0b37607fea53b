"""The shared part of all stackers: rows, the choice of settings on validation users, the correction, the checks.

Shapes: R rows, A bases.
"""

from __future__ import annotations

import logging
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
import torch

from metarec.bases import Learned, Stored, check_stored
from metarec.config import Config
from metarec.episodes import Episodes, FusionInputs
from metarec.errors import InputError, shown

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


class Rows(NamedTuple):
    """The unmasked rows of one side of some episodes, float64 and on the unit scale.

    It does not hold the true ratings, so that a prediction cannot use them.

    Attributes:
        predictions: [R, A] of the bases, with a replacement for NaN.
        mean: [R] of the bases with a finite prediction.
        algorithm_features: [R, A, F] and context: [R, C], as in :class:`metarec.episodes.FusionInputs`.
        task: [R] the position of the row's episode.
    """

    predictions: np.ndarray
    mean: np.ndarray
    algorithm_features: np.ndarray
    context: np.ndarray
    task: np.ndarray


Combine = Callable[[Rows], np.ndarray]


class TrainingRows(NamedTuple):
    """The query rows that a stacker learns from, their true ratings [R], and the names of the A bases."""

    rows: Rows
    targets: np.ndarray
    base_names: tuple[str, ...]


class Family(NamedTuple):
    """S combinations of the bases that were fitted together; one is chosen on validation users.

    Attributes:
        settings: the settings of each, for the logs; the first wins a tie.
        combine: maps R rows to [R, S] predictions on the unit scale. A picklable callable.
    """

    settings: Sequence[Mapping[str, Any]]
    combine: Combine


class _Layout(NamedTuple):
    base_names: tuple[str, ...]
    feature_names: tuple[str, ...]
    context_names: tuple[str, ...]

    @classmethod
    def of(cls, episodes: Episodes) -> _Layout:
        return cls(episodes.base_names, episodes.feature_names, episodes.context_names)


class _Chosen(Config):
    settings: dict[str, Any]
    validation_rmse: float


class _Fitted(NamedTuple):
    layout: _Layout
    settings: dict[str, Any]
    combine: Combine
    column: int
    shrinkage: float
    validation_rmse: float


class Stacker(ABC):
    """A combination of base recommenders that is learned from train users.

    A subclass has a name and yields families of fitted combinations. This class chooses one of them, together with the
    shrinkage of the correction by the user's support (:func:`shrunk_corrections`), by the RMSE over all query rows of
    the validation users; a correction must gain more than one standard error on them. The choice is not refitted on
    validation users, and neither is a fusion network.
    """

    name: ClassVar[str]
    shrinkages: ClassVar[Sequence[float]] = SHRINKAGES

    def __init__(self) -> None:
        self._fitted: _Fitted | None = None

    @abstractmethod
    def _families(self, train: TrainingRows, validation: TrainingRows, seed: int) -> Iterator[Family]:
        """Combinations fitted on `train`. `validation` is for early stopping only."""

    def fit(self, train: Episodes, validation: Episodes, *, seed: int = 0) -> Self:
        """Learn from the query rows of `train` and choose the settings on the query rows of `validation`.

        Args:
            train: episodes with out-of-fold predictions. validation: episodes of other users, the same bases.
            seed: of random draws, >= 0.

        Raises:
            InputError: a negative seed; episodes that differ in bases or features, or have no query row; predictions
                that are not finite whatever the settings.
        """
        if seed < 0:
            raise InputError(f"seed must be >= 0 but got {seed}")
        layout = _Layout.of(train)
        self._check_layout(layout, validation, "validation")
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
                if rmse < (best[corrects].validation_rmse if corrects in best else math.inf):
                    best[corrects] = _Fitted(
                        layout, dict(family.settings[column]), family.combine, column, shrinkage, rmse
                    )
        if not best:
            raise InputError(f"{self.name}: no setting predicts finite ratings; check that all features are finite")
        self._fitted = _earned(best, validation, held_out)
        logger.debug(
            "%s: %s, the best of %d settings, validation RMSE %.5f on the unit scale",
            self.name,
            self.settings,
            tried,
            self.validation_rmse,
        )
        return self

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
        return {**fitted.settings, "correction_shrinkage": shrinkage}

    @property
    def validation_rmse(self) -> float:
        """RMSE over all query rows of the validation users, on the unit scale."""
        return self._checked().validation_rmse

    def state(self) -> dict[str, Learned]:
        """The learned and chosen values, from which :meth:`restore` makes the same stacker.

        Raises:
            RuntimeError: it was not fitted.
            InputError: a plug-in's stacker without `_learned` and `_combination`.
        """
        fitted = self._checked()
        chosen = _Chosen(settings=fitted.settings, validation_rmse=fitted.validation_rmse).model_dump_json()
        names = {name: np.array(own, dtype=np.str_) for name, own in fitted.layout._asdict().items()}
        learned = self._learned(fitted.combine, fitted.column)
        return {"chosen": np.array(chosen), "shrinkage": fitted.shrinkage, **names, **learned}

    def restore(self, state: Mapping[str, Learned]) -> Self:
        """Take the state of another stacker of the same class.

        Raises:
            InputError: something is missing from the state, breaks its rule, or does not fit the rest.
        """
        whose = f"the state of the baseline {self.name}"
        names = {name: Stored(name, kind="text") for name in _Layout._fields}
        check_stored(whose, state, {**names, "chosen": Stored(kind="text"), "shrinkage": Stored(low=0, high=math.inf)})
        layout = _Layout(*(tuple(np.asarray(state[name]).tolist()) for name in _Layout._fields))
        try:
            chosen = _Chosen.model_validate_json(str(state["chosen"]))
        except ValueError as error:
            raise InputError(f'{whose}: "chosen": {shown(error)}') from None
        try:
            combine = self._combination(state, chosen.settings)
            _try(whose, combine, layout)
        except (KeyError, TypeError, ValueError, IndexError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"{whose} does not fit its settings, bases and features: {shown(error)}") from None
        shrinkage = float(np.asarray(state["shrinkage"]))
        self._fitted = _Fitted(layout, chosen.settings, combine, 0, shrinkage, chosen.validation_rmse)
        return self

    def _learned(self, combine: Any, column: int) -> dict[str, Learned]:
        """The values that define one column of a family's combination."""
        raise InputError(f"the baseline {self.name} cannot be stored; it needs _learned and _combination")

    def _combination(self, state: Mapping[str, Learned], settings: Mapping[str, Any]) -> Combine:
        """The combination of one column, [R] rows -> [R, 1], from the values of :meth:`_learned`.

        Raises:
            InputError: a value is missing, or breaks its rule. Lengths need no check: the combination is tried.
        """
        raise InputError(f"the baseline {self.name} cannot be stored; it needs _learned and _combination")

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

    def _checked(self) -> _Fitted:
        if self._fitted is None:
            raise RuntimeError(f"{self.name} is not fitted; call fit(train, validation) first")
        return self._fitted

    def _check_layout(self, layout: _Layout, episodes: Episodes, role: str) -> None:
        words = ("bases", "algorithm features", "context features")
        for word, expected, found in zip(words, layout, _Layout.of(episodes), strict=True):
            if tuple(expected) != tuple(found):
                raise InputError(
                    f"{self.name} was fitted on the {word} {', '.join(expected)} "
                    f"but {role} episodes have {', '.join(found)}; build them with the same settings"
                )

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


def _try(whose: str, combine: Combine, layout: _Layout) -> None:
    """Raise InputError unless a combination has a finite prediction for a row of this layout."""
    bases, features, context = map(len, layout)
    of_bases = np.zeros((1, bases, features))
    row = Rows(np.zeros((1, bases)), np.zeros(1), of_bases, np.zeros((1, context)), np.zeros(1, dtype=int))
    found = np.asarray(combine(row))
    if found.shape != (1, 1) or not np.isfinite(found).all():
        raise InputError(f"{whose} must predict one finite number for a row but predicts {shown(found.tolist())}")


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
