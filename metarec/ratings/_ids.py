"""One rule for ids: text, wherever they come from."""

from __future__ import annotations

import re
from collections.abc import Hashable, Sequence
from datetime import datetime
from decimal import Decimal

import numpy as np
import pandas as pd

from metarec.errors import InputError, shown
from metarec.ratings._domain import LONGEST_ID, id_rule

__all__ = ["as_text", "ids_of", "text_ids"]

_WHOLE = re.compile(r"-?\d+(\.0+)?")
_NUMBER = re.compile(r"-?\d+(\.\d+)?([eE]\+?\d+)?")

_ROUNDED = (
    "a number that was rounded, so that different ids may have become one: such ids must be whole numbers or text"
)

NO_ID = frozenset({"\\N", "#N/A", "#REF!", "#VALUE!", "#NAME?", "#NUM!", "#NULL!", "#DIV/0!"})
"""What databases write for a missing value, and spreadsheets for a formula that fails; nobody's id."""

EXACT = 2**53
"""From here on floats skip whole numbers, so that different ids may have become one."""


def ids_of(values: Sequence[object] | np.ndarray | pd.Series, what: str = "item") -> np.ndarray:
    """[n] ids as text, in the form that :func:`metarec.ratings.read_domain` gives them.

    Text stays as it is, without spaces around it. Whole numbers are written without decimals, also floats and decimals:
    a column of whole numbers in which one is missing has floats in pandas.

    >>> ids_of([7, 7.0, "007"]).tolist()
    ['7', '7', '007']

    Args:
        what: names the ids in messages.

    Raises:
        InputError: an id is missing, is a float of 2^53 or more, or breaks another rule; its place is named, from 0.
    """
    # There may be many short histories, and most ids are text already.
    if all(type(value) is str and _is_plain(value) for value in values):
        return np.array([*values, None], dtype=object)[:-1]
    for place, value in enumerate(values):
        if not isinstance(value, Hashable):
            raise InputError(f"{what} id {place} must be text or a number but is {shown(repr(value))}; correct it")
    codes, names, rules = text_ids(pd.Series(values, dtype=None if len(values) else object))
    wrong = np.array([rule is not None for rule in rules])[codes]
    if wrong.any():
        place = int(wrong.argmax())
        raise InputError(f"{what} id {place} {rules[codes[place]]}; correct it")
    return np.asarray(names[codes], dtype=object)


def _is_plain(value: str) -> bool:
    """Whether a text is an id as it is."""
    return 0 < len(value) <= LONGEST_ID and value.isprintable() and value == value.strip() and value not in NO_ID


def text_ids(values: pd.Series, *, whole: bool = False) -> tuple[np.ndarray, np.ndarray, list[str | None]]:
    """Ids as text: [n] codes, the text of each code, and the rule that it breaks, or None.

    Args:
        whole: whether the values are all ids of a file, so that texts such as ``7.0`` show that they were floats.
    """
    codes, uniques = pd.factorize(values, use_na_sentinel=True)
    kind = getattr(uniques.dtype, "numpy_dtype", uniques.dtype)
    exact = min(EXACT, 2 ** (np.finfo(kind).nmant + 1)) if getattr(kind, "kind", "") == "f" else EXACT
    # Most ids are text, and there may be millions.
    written = [value.strip() if type(value) is str else _id_of(value) for value in uniques]
    names, rounded = _without_decimals(written) if whole else (written, [False] * len(written))
    # A column of dates alone may name slices of time.
    mixed = uniques.dtype == object
    rules: list[str | None] = [
        f"is {shown(text)}, {_ROUNDED}"
        if is_rounded or (type(value) is not str and _is_large(value, exact))
        else _rule_of(name, mixed and isinstance(value, datetime))
        for value, text, name, is_rounded in zip(uniques, written, names, rounded, strict=True)
    ]
    # A missing id has the code -1, which takes the last one.
    return codes, np.array([*names, ""], dtype=object), [*rules, "is missing"]


def _rule_of(name: str, is_date: bool) -> str | None:
    """The rule that the text of an id breaks; None for a good one."""
    if is_date:
        return f"is the date {name}, as a spreadsheet makes of texts such as MAR1: ids must be whole numbers or text"
    if name in NO_ID:
        return f"is {name}, which means that there is none"
    return id_rule(name) if name else "is missing"


def as_text(value: object) -> str:
    """A field as text without spaces around it; the empty string where it is missing."""
    if isinstance(value, bytes):
        # What is no UTF-8 stays visible, and apart from other bytes; `id_rule` refuses it.
        value = value.decode("utf-8", errors="surrogateescape")
    return "" if pd.isna(value) else str(value).strip()


def _id_of(value: object) -> str:
    if isinstance(value, float | np.floating) and float(value).is_integer() and abs(float(value)) < EXACT:
        return str(int(value))
    if isinstance(value, Decimal) and value.is_finite() and value.adjusted() < LONGEST_ID and int(value) == value:
        return str(int(value))
    return as_text(value)


def _is_large(value: object, exact: int) -> bool:
    """Whether a value is a float from which on floats skip whole numbers."""
    return isinstance(value, float | np.floating) and bool(np.isfinite(value)) and abs(float(value)) >= exact


def _without_decimals(names: list[str]) -> tuple[list[str], list[bool]]:
    """Texts of whole numbers that were written as floats, such as ``7.0``, as whole numbers; and which are rounded.

    A column of text is changed only if all of it are numbers.
    """
    if any(".0" in name for name in names) and all(_WHOLE.fullmatch(name) for name in names if name):
        large = ["." in name and abs(float(name)) >= EXACT for name in names]
        return [name if wrong else name.partition(".")[0] for name, wrong in zip(names, large, strict=True)], large
    if any("E+" in name or "e+" in name for name in names) and all(_NUMBER.fullmatch(name) for name in names if name):
        return names, ["+" in name for name in names]
    return names, [False] * len(names)
