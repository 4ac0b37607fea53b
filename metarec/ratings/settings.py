"""How tables are read: the keys of a study and a comparison for their data."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, TypeVar

import pandas as pd
from pydantic import BaseModel, ConfigDict, Field, field_validator

from metarec.errors import InputError, shown
from metarec.ratings._domain import Domain
from metarec.ratings._readers import read_domain
from metarec.registry import suggest

__all__ = ["ReadingSettings"]

ValueT = TypeVar("ValueT")

COLUMNS = ("user", "item", "rating", "weight", "event", "timestamp", "domain")


class ReadingSettings(BaseModel):
    """How the tables of domains are read; every value is one for all domains, or one by domain."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    scale: str | dict[str, str] | None = None
    "LOW,HIGH of all domains, or by domain; by default inferred from the ratings."
    columns: dict[str, str | dict[str, str | None] | None] = Field(default_factory=dict)
    "Unusual column names: user, item, rating, weight, event, timestamp or domain: the name in the file, or by domain."
    missing: dict[str, str | dict[str, str]] = Field(default_factory=dict)
    "Ratings that mean not rated, such as 0, and whether their rows are left out (drop) or are an event; or by domain."
    encoding: str | dict[str, str] | None = None
    "Of text files that are not in UTF-8, such as gb18030, or by domain; by default a guess, with a warning."
    event_weights: dict[str, float] = Field(default_factory=dict)
    "The weight of each name in a column of events, such as view: 1, buy: 5."

    @field_validator("missing", mode="before")
    @classmethod
    def _ratings_are_text(cls, value: Any) -> Any:
        """YAML reads the keys of ``{0: drop}`` as numbers."""
        return _with_text_keys(value)

    def check_columns(self, domains: Collection[str]) -> None:
        """Check the names of columns, and of domains in `columns` and `missing`.

        Raises:
            InputError: an unknown name.
        """
        for name in ("columns", "missing"):
            for key, own in getattr(self, name).items():
                if isinstance(own, dict) and key not in domains:
                    raise InputError(f'{name}: unknown domain "{shown(key)}"; {suggest(key, domains)}')
        for key, own in self.columns.items():
            for column in own if isinstance(own, dict) else [key]:
                if column not in COLUMNS:
                    raise InputError(f'columns: unknown column "{column}"; {suggest(column, COLUMNS)}')

    def read(self, table: str | pd.DataFrame, name: str) -> Domain:
        """Read and check a domain.

        Raises:
            InputError: the file, or a row in it, is wrong.
        """
        return read_domain(
            table,
            name,
            scale=self.scale.get(name) if isinstance(self.scale, dict) else self.scale,
            columns=_of_domain(self.columns, name),
            event_weights=self.event_weights or None,
            missing=_of_domain(self.missing, name),
            encoding=self.encoding.get(name) if isinstance(self.encoding, dict) else self.encoding,
        )


def _of_domain(values: Mapping[str, ValueT | dict[str, ValueT]], name: str) -> dict[str, ValueT]:
    """The values of a key for one domain: those for all domains, and in their place those under its name."""
    own = values.get(name)
    common = {key: value for key, value in values.items() if not isinstance(value, dict)}
    return {**common, **own} if isinstance(own, dict) else common


def _with_text_keys(value: Any) -> Any:
    return {str(key): _with_text_keys(own) for key, own in value.items()} if isinstance(value, dict) else value
