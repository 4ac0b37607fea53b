"""Configurations, which are frozen, checked when made, and plain values in JSON; and what their errors say."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

from metarec.errors import InputError, shown
from metarec.registry import suggest

__all__ = ["Config", "explained", "fields_of"]

_RULES = {
    "greater_than_equal": "must be >= {ge}",
    "greater_than": "must be > {gt}",
    "less_than_equal": "must be <= {le}",
    "less_than": "must be < {lt}",
    "literal_error": "must be {expected}",
    "int_type": "must be an integer",
    "int_parsing": "must be an integer",
    "int_from_float": "must be an integer",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "string_type": "must be text",
}
"""pydantic's type of error -> the rule in metarec's wording."""


class Config(BaseModel):
    """Frozen and checked values.

    Raises:
        InputError: a field is unknown, or breaks its rule; the message names the field, the rule and the value.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise InputError(self._explained(error)) from None

    @classmethod
    def _explained(cls, error: ValidationError) -> str:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or cls.__name__
        if first["type"] == "extra_forbidden":
            return f'{cls.__name__} has no field "{where}"; {suggest(where, cls.model_fields)}'
        if first["type"] in _RULES:
            rule = _RULES[first["type"]].format(**first.get("ctx", {}))
            return f"{where} {rule} but got {shown(repr(first['input']), 200)}"
        message = shown(first["msg"].removeprefix("Value error, "), 500)
        return f"{where}: {message} but got {shown(repr(first['input']), 200)}"


def explained(error: ValidationError, kind: type[BaseModel]) -> str:
    """The first problem of a model of this kind in one line, with the closest name for an unknown key."""
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"] if part not in ("RealRange", "IntRange", "Choice"))
    if first["type"] == "extra_forbidden":
        return f'unknown key "{where}"; {suggest(str(first["loc"][-1]), fields_of(kind, first["loc"][:-1]))}'
    problem = first["msg"].removeprefix("Value error, ")
    if not where:
        return problem
    return f"{where}: {problem}, but got {shown(repr(first['input']), 200)}"


def fields_of(kind: type[BaseModel], path: Sequence[int | str]) -> list[str]:
    """The names of the fields of the part at this path; none where there is no part."""
    model: Any = kind
    for part in path:
        field = model.model_fields.get(str(part)) if isinstance(model, type) and issubclass(model, BaseModel) else None
        # The model of an optional part is that of the part.
        model = next(iter(get_args(field.annotation)), field.annotation) if field else None
    return list(model.model_fields) if isinstance(model, type) and issubclass(model, BaseModel) else []
