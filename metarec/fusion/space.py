"""Ranges of the options that a search may vary, and their defaults."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

if TYPE_CHECKING:
    import optuna

__all__ = ["Choice", "IntRange", "Limits", "Parameter", "RealRange"]


class _Range(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class RealRange(_Range):
    """Real numbers from low to high, on a logarithmic scale with `log`."""

    low: float = Field(allow_inf_nan=False)
    high: float = Field(allow_inf_nan=False)
    log: bool = False

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.low <= self.high:
            raise ValueError(f"a range must have low <= high but got {self.low}..{self.high}")
        if self.log and self.low <= 0:
            raise ValueError(f"a logarithmic range must begin above 0 but got {self.low}")
        return self

    def suggest(self, name: str, trial: optuna.Trial) -> float:
        return trial.suggest_float(name, self.low, self.high, log=self.log)

    def only(self) -> float | None:
        """The value of a range that has just one."""
        return self.low if self.low == self.high else None

    def holds(self, value: Any) -> bool:
        return isinstance(value, int | float) and self.low <= value <= self.high

    def nearest(self, value: Any) -> float | None:
        """The value that is nearest to this one; None if it is no number."""
        return min(max(float(value), self.low), self.high) if _is_number(value) else None

    def place(self, value: float) -> float:
        """The position of a value in the range, from 0 to 1."""
        if self.low == self.high:
            return 0.0
        low, high, at = map(math.log if self.log else float, (self.low, self.high, value))
        return (at - low) / (high - low)

    def __str__(self) -> str:
        return f"{self.low:g}..{self.high:g}"


class IntRange(_Range):
    """Whole numbers from first to last, both included."""

    first: int = Field(ge=0)
    last: int = Field(le=1_000_000_000)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.first > self.last:
            raise ValueError(f"a range must have first <= last but got {self.first}..{self.last}")
        return self

    def suggest(self, name: str, trial: optuna.Trial) -> int:
        return trial.suggest_int(name, self.first, self.last)

    def only(self) -> int | None:
        """The value of a range that has just one."""
        return self.first if self.first == self.last else None

    def holds(self, value: Any) -> bool:
        return isinstance(value, int) and self.first <= value <= self.last

    def nearest(self, value: Any) -> int | None:
        """The value that is nearest to this one; None if it is no number."""
        return min(max(round(value), self.first), self.last) if _is_number(value) else None

    def place(self, value: int) -> float:
        """The position of a value in the range, from 0 to 1."""
        return (value - self.first) / max(self.last - self.first, 1)

    def __str__(self) -> str:
        return f"{self.first}..{self.last}"


class Choice(_Range):
    """One of some values."""

    choices: list[str | int | float | bool] = Field(min_length=1)

    def suggest(self, name: str, trial: optuna.Trial) -> Any:
        return trial.suggest_categorical(name, self.choices)

    def only(self) -> Any:
        """The value where there is no choice."""
        return self.choices[0] if len(self.choices) == 1 else None

    def holds(self, value: Any) -> bool:
        # To Python 1 is True.
        return any(value == choice and isinstance(value, bool) == isinstance(choice, bool) for choice in self.choices)

    def nearest(self, value: Any) -> Any:
        """The value itself; None if it is not among the choices."""
        return value if self.holds(value) else None

    def place(self, value: Any) -> float:
        """The position of the value among the choices; the choices have no order."""
        return next(place for place, choice in enumerate(self.choices) if choice == value)

    def __str__(self) -> str:
        return "|".join(map(str, self.choices))


Limits = RealRange | IntRange | Choice
"""The range of a parameter."""


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


class Parameter(NamedTuple):
    """A parameter's value in the default configuration, its usual range, and what it is.

    Attributes:
        allowed: what a spec may name, where that is more than the usual range.
    """

    default: Any
    range: Limits
    meaning: str
    allowed: Limits | None = None
