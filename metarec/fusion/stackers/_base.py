"""What all stackers share: the choice of settings on validation users, the correction, and the checks."""

from __future__ import annotations

import json
import logging
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np

from metarec.bases import Learned
from metarec.episodes import Episodes
from metarec.errors import InputError
from metarec.fusion.stackers._common import (
    SHRINKAGES,
    Rows,
    known_targets,
    query_rows,
    shrunk_corrections,
    support_rows,
)

__all__ = ["Family", "Known", "Stacker"]

logger = logging.getLogger(__name__)

Combine = Callable[[Rows], np.ndarray]


class Known(NamedTuple):
    """Query rows with their true ratings [R], and the names of the A bases: what a stacker may learn from."""

    rows: Rows
    targets: np.ndarray
    base_names: tuple[str, ...]


class Family(NamedTuple):
    """S ways of combining the bases that were fitted together, to be chosen from on validation users.

    Attributes:
        settings: what each of them is, for the logs; the ones that are to win ties come first.
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


class _Fitted(NamedTuple):
    layout: _Layout
    settings: dict[str, Any]
    combine: Combine
    column: int
    shrinkage: float
    validation_rmse: float


class Stacker(ABC):
    """Combines base recommenders by what was learned from train users.

    A subclass names itself and offers families of fitted combinations. This class chooses one of them, together with
    the shrinkage of the correction for the user's support (see
    :func:`metarec.fusion.stackers._common.shrunk_corrections`), by the RMSE over all query rows of the validation
    users; a correction has to gain more than one standard error on them. What was chosen is not fitted again on
    validation users: a fusion network is not either.
    """

    name: ClassVar[str]
    shrinkages: ClassVar[Sequence[float]] = SHRINKAGES

    def __init__(self) -> None:
        self._fitted: _Fitted | None = None

    @abstractmethod
    def _families(self, train: Known, validation: Known, seed: int) -> Iterator[Family]:
        """Combinations fitted on `train`. `validation` is for early stopping alone; do not learn from it."""

    def fit(self, train: Episodes, validation: Episodes, *, seed: int = 0) -> Self:
        """Learn from the query rows of `train` and choose the settings on the query rows of `validation`.

        Args:
            train: episodes with out-of-fold predictions. validation: episodes of other users, the same bases.
            seed: of whatever is drawn at random, >= 0.

        Raises:
            InputError: a negative seed; episodes that differ in bases or features, or have no query row; predictions
                that are not finite whatever the settings.
        """
        if seed < 0:
            raise InputError(f"seed must be >= 0 but got {seed}")
        layout = _Layout.of(train)
        self._check_layout(layout, validation, "validation")
        known, held_out = self._known(train, "train"), self._known(validation, "validation")
        best: dict[bool, _Fitted] = {}
        tried = 0
        for family in self._families(known, held_out, seed):
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
            InputError: the episodes have other bases or features than those it was fitted on.
        """
        fitted = self._checked()
        self._check_layout(fitted.layout, episodes, "these")
        mask = episodes.batch.query.mask.cpu().numpy()
        predictions = np.full(mask.shape, 0.5)
        predictions[mask] = _predicted(fitted, query_rows(episodes), episodes)
        return predictions

    @property
    def settings(self) -> dict[str, Any]:
        """What was chosen. `correction_shrinkage` is None where no correction was the best one."""
        fitted = self._checked()
        shrinkage = None if math.isinf(fitted.shrinkage) else fitted.shrinkage
        return {**fitted.settings, "correction_shrinkage": shrinkage}

    @property
    def validation_rmse(self) -> float:
        """RMSE over all query rows of the validation users, on the unit scale."""
        return self._checked().validation_rmse

    def state(self) -> dict[str, Learned]:
        """What was learned and chosen, to be kept: :meth:`restore` makes the same stacker of it.

        Raises:
            RuntimeError: it was not fitted.
            InputError: a stacker of a plug-in that does not say how it is kept.
        """
        fitted = self._checked()
        chosen = json.dumps({"settings": fitted.settings, "validation_rmse": fitted.validation_rmse})
        names = {name: np.array(own, dtype=np.str_) for name, own in fitted.layout._asdict().items()}
        learned = self._learned(fitted.combine, fitted.column)
        return {"chosen": np.array(chosen), "shrinkage": fitted.shrinkage, **names, **learned}

    def restore(self, state: Mapping[str, Learned]) -> Self:
        """Take on what another stacker of the same kind has learned."""
        layout = _Layout(*(tuple(np.asarray(state[name]).tolist()) for name in _Layout._fields))
        chosen = json.loads(str(state["chosen"]))
        self._fitted = _Fitted(
            layout,
            chosen["settings"],
            self._combination(state, chosen["settings"]),
            0,
            float(np.asarray(state["shrinkage"])),
            chosen["validation_rmse"],
        )
        return self

    def _learned(self, combine: Any, column: int) -> dict[str, Learned]:
        """What one column of a family's combination is made of."""
        raise InputError(f"the baseline {self.name} does not say how it is kept; it needs _learned and _combination")

    def _combination(self, state: Mapping[str, Learned], settings: Mapping[str, Any]) -> Combine:
        """The combination of one column, [R] rows -> [R, 1], from what :meth:`_learned` said."""
        raise InputError(f"the baseline {self.name} does not say how it is kept; it needs _learned and _combination")

    def _scores(self, combine: Combine, validation: Episodes, held_out: Known) -> np.ndarray:
        """[shrinkages, S] RMSE on the validation users' query rows."""
        base, residuals, support = _combined(combine, held_out.rows, validation)
        scores = []
        for shrinkage in self.shrinkages:
            corrected = _corrected(base, held_out.rows, residuals, support, len(validation), shrinkage)
            scores.append(np.sqrt(np.mean((corrected - held_out.targets[:, None]) ** 2, axis=0)))
        return np.stack(scores)

    def _known(self, episodes: Episodes, role: str) -> Known:
        rows = query_rows(episodes)
        if len(rows.mean) == 0:
            raise InputError(f"{self.name} needs at least one query row in the {role} episodes but got none")
        return Known(rows, known_targets(episodes.batch.query), episodes.base_names)

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


def _earned(best: Mapping[bool, _Fitted], validation: Episodes, held_out: Known) -> _Fitted:
    """The best with a correction, if it gains more than one standard error (over users) on the best without.

    Bases that fold in a user's ratings have corrected most already. What is left to gain is small beside the noise of
    a few dozen validation users, and the smallest error among many shrinkages is often luck.
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
    return base, known_targets(episodes.batch.support)[:, None] - own, support


def _corrected(
    base: np.ndarray, query: Rows, residuals: np.ndarray, support: Rows, num_tasks: int, shrinkage: float
) -> np.ndarray:
    corrections = shrunk_corrections(residuals, support.task, num_tasks, shrinkage)
    return np.clip(base + corrections[query.task], 0.0, 1.0)
