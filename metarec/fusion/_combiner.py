"""The shared part of stackers and rankers: flat rows, the checks of a fit, and a state of plain values."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, NamedTuple, Self, TypeVar

import numpy as np

from metarec.bases import Learned, Stored, check_stored
from metarec.config import Config
from metarec.episodes import Episodes
from metarec.errors import InputError, shown

__all__ = ["Chosen", "Combine", "Combiner", "Family", "Fitted", "Layout", "Rows"]


class Rows(NamedTuple):
    """R unmasked rows of some episodes, on the unit scale.

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


Combine = Callable[[Any], np.ndarray]
"""A picklable callable from inputs with a mean [...] of the bases to [..., S] predictions."""


class Family(NamedTuple):
    """S combinations of the bases that were fitted together; one is chosen on validation users.

    Attributes:
        settings: the settings of each, for the logs; the first wins a tie.
        combine: maps the inputs to S predictions of each row.
    """

    settings: Sequence[Mapping[str, Any]]
    combine: Combine


class Layout(NamedTuple):
    """The names of bases and features that a combiner was fitted on."""

    base_names: tuple[str, ...]
    feature_names: tuple[str, ...]
    context_names: tuple[str, ...]

    @classmethod
    def of(cls, episodes: Episodes) -> Layout:
        return cls(episodes.base_names, episodes.feature_names, episodes.context_names)


class Chosen(Config):
    """The settings of the chosen combination. A subclass adds its score on validation users."""

    settings: dict[str, Any]


@dataclass(frozen=True)
class Fitted:
    """One column of a family, and what it was fitted on."""

    layout: Layout
    chosen: Any
    combine: Combine
    column: int


F = TypeVar("F", bound=Fitted)


class Combiner(ABC, Generic[F]):
    """A combination of base recommenders that is learned from train users and chosen on validation users.

    Attributes:
        kind: the word for it in messages. choice: what :attr:`Fitted.chosen` is.
    """

    name: ClassVar[str]
    kind: ClassVar[str]
    choice: ClassVar[type[Chosen]]

    def __init__(self) -> None:
        self._fitted: F | None = None

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
        layout = Layout.of(train)
        self._check_layout(layout, validation, "validation")
        self._fitted = self._choose(layout, train, validation, seed)
        return self

    @abstractmethod
    def predict(self, episodes: Episodes) -> np.ndarray:
        """[T, N] predictions of the query rows."""

    @abstractmethod
    def _choose(self, layout: Layout, train: Episodes, validation: Episodes, seed: int) -> F:
        """The combination with the best score on validation users."""

    @property
    def settings(self) -> dict[str, Any]:
        """The chosen settings."""
        return dict(self._checked().chosen.settings)

    def state(self) -> dict[str, Learned]:
        """The learned and chosen values, from which ``restore`` makes the same one.

        Raises:
            RuntimeError: it was not fitted.
            InputError: a plug-in without `_learned` and `_combination`.
        """
        fitted = self._checked()
        names = {name: np.array(own, dtype=np.str_) for name, own in fitted.layout._asdict().items()}
        learned = self._learned(fitted.combine, fitted.column)
        return {"chosen": np.array(fitted.chosen.model_dump_json()), **names, **learned}

    @abstractmethod
    def restore(self, state: Mapping[str, Learned]) -> Self:
        """Take the state of another one of the same class.

        Raises:
            InputError: something is missing from the state, breaks its rule, or does not fit the rest.
        """

    def _restored(self, state: Mapping[str, Learned], rules: Mapping[str, Stored]) -> Fitted:
        """The checked values of a state; `rules` are of values that the subclass adds to it."""
        whose = f"the state of the {self.kind} {self.name}"
        names = {name: Stored(name, kind="text") for name in Layout._fields}
        check_stored(whose, state, {**names, "chosen": Stored(kind="text"), **rules})
        layout = Layout(*(tuple(np.asarray(state[name]).tolist()) for name in Layout._fields))
        try:
            chosen = self.choice.model_validate_json(str(state["chosen"]))
        except ValueError as error:
            raise InputError(f'{whose}: "chosen": {shown(error)}') from None
        try:
            combine = self._combination(state, chosen.settings)
            _try(whose, combine, self._one_row(layout))
        except (KeyError, TypeError, ValueError, IndexError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"{whose} does not fit its settings, bases and features: {shown(error)}") from None
        return Fitted(layout, chosen, combine, 0)

    @abstractmethod
    def _one_row(self, layout: Layout) -> Any:
        """Inputs of one row of zeros, to try a combination on."""

    def _learned(self, combine: Any, column: int) -> dict[str, Learned]:
        """The values that define one column of a family's combination."""
        raise InputError(f"the {self.kind} {self.name} cannot be stored; it needs _learned and _combination")

    def _combination(self, state: Mapping[str, Learned], settings: Mapping[str, Any]) -> Combine:
        """The combination of one column from the values of :meth:`_learned`.

        Raises:
            InputError: a value is missing, or breaks its rule. Lengths need no check: the combination is tried.
        """
        raise InputError(f"the {self.kind} {self.name} cannot be stored; it needs _learned and _combination")

    def _checked(self) -> F:
        if self._fitted is None:
            raise RuntimeError(f"{self.name} is not fitted; call fit(train, validation) first")
        return self._fitted

    def _check_layout(self, layout: Layout, episodes: Episodes, role: str) -> None:
        words = ("bases", "algorithm features", "context features")
        for word, expected, found in zip(words, layout, Layout.of(episodes), strict=True):
            if tuple(expected) != tuple(found):
                raise InputError(
                    f"{self.name} was fitted on the {word} {', '.join(expected)} "
                    f"but {role} episodes have {', '.join(found)}; build them with the same settings"
                )

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


def _try(whose: str, combine: Combine, one: Any) -> None:
    """Raise InputError unless a combination has one finite prediction for one row."""
    found = np.asarray(combine(one))
    if found.shape != (*one.mean.shape, 1) or not np.isfinite(found).all():
        raise InputError(f"{whose} must predict one finite number for a row but predicts {shown(found.tolist())}")
