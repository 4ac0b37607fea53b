"""The base class of configurations, which are frozen, checked when made, and plain values in JSON."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from metarec.errors import InputError, shown
from metarec.registry import suggest

__all__ = ["Config"]

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
