"""Learned values that are stored, and the rules that they must keep before they are used."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from scipy import sparse

from metarec.errors import InputError, shown

__all__ = ["LARGEST", "Learned", "Stored", "check_finite", "check_stored"]

Learned: TypeAlias = np.ndarray | sparse.csr_array | float
"""A learned value that can be stored: an array of numbers or of text, a sparse array, a number."""

LARGEST = 1e18
"""No learned number is larger. Products of a few larger ones would not be finite."""

_KINDS = {"number": "fiu", "whole": "iu", "text": "U", "flag": "b"}


@dataclass(frozen=True)
class Stored:
    """The rule of one stored value.

    Attributes:
        axes: the names of an array's axes, as in "items factors"; "" for a number. Axes of one name have one length in
            all values of a state; a number is a length itself; "items+1" is one more.
        kind: whole numbers, texts, or flags, in place of any numbers. is_sparse: a sparse array.
        low, high: the range of the numbers. Only an infinite `high` allows infinity.
        unique: whether no entry may be there twice.
    """

    axes: str = ""
    kind: Literal["number", "whole", "text", "flag"] = "number"
    is_sparse: bool = False
    low: float = -LARGEST
    high: float = LARGEST
    unique: bool = False

    def problem(self, value: Any, sizes: dict[str, int]) -> str | None:
        """What is wrong with a value; None if nothing is. The lengths of new axes are added to `sizes`."""
        if sparse.issparse(value) != self.is_sparse:
            return f"must be {'a sparse' if self.is_sparse else 'an'} array"
        array = value.data if self.is_sparse else np.asarray(value)
        if array.dtype.kind not in _KINDS[self.kind]:
            return f"must hold {self.kind}s but has the type {array.dtype}"
        names = self.axes.split()
        shape = value.shape if self.is_sparse else array.shape
        if len(shape) != len(names):
            return f"must have the axes [{self.axes}] but has the shape {list(shape)}"
        for name, length in zip(names, shape, strict=True):
            base, _, more = name.partition("+")
            expected = int(base) if base.isdigit() else sizes.setdefault(base, length - int(more or 0)) + int(more or 0)
            if length != expected:
                return f"must have the axes [{self.axes}] with {expected} {name} but has the shape {list(shape)}"
        if self.kind in ("number", "whole") and array.size:
            if np.isnan(array).any():
                return "must hold numbers but has NaN"
            lowest, highest = float(array.min()), float(array.max())
            if lowest < self.low or highest > self.high:
                wrong = lowest if lowest < self.low else highest
                return f"must lie in {self.low:g}..{self.high:g} but has {wrong:g}"
        if self.unique and len(np.unique(array)) < array.size:
            return "must hold each entry once"
        return None


def check_stored(
    whose: str, state: Mapping[str, Learned], rules: Mapping[str, Stored], sizes: Mapping[str, int] | None = None
) -> None:
    """Check the values of a state.

    Args:
        whose: begins the error. sizes: lengths that are known already.

    Raises:
        InputError: a value is missing, or breaks its rule.
    """
    found = dict(sizes or {})
    for name, rule in rules.items():
        if name not in state:
            raise InputError(f'{whose} must hold "{name}" but has {shown(", ".join(state), 200)}')
        problem = rule.problem(state[name], found)
        if problem is not None:
            raise InputError(f'{whose}: "{name}" {problem}')


def check_finite(whose: str, state: Mapping[str, Any]) -> None:
    """Raise InputError where a number of a state is not finite."""
    for name, value in state.items():
        array = np.asarray(value.data if sparse.issparse(value) else value)
        if array.dtype.kind in "fiu" and array.size and not math.isfinite(float(np.abs(array).max())):
            raise InputError(f'{whose}: "{name}" must hold finite numbers')
