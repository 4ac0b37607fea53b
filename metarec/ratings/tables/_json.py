"""Lines of JSON, as Amazon's and Yelp's reviews have them, or of Python's dictionaries, or one list of objects."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from metarec.errors import InputError, shown
from metarec.plain import unique_keys
from metarec.ratings.tables._files import check_cells

__all__ = ["read_json"]

_PYTHON = re.compile(rb"\s*\{\s*u?'")

_LONGEST = 1 << 24
"""Bytes of a dictionary of Python; its syntax tree takes many times its memory."""


def read_json(path: Path, content: bytes) -> pd.DataFrame:
    """The keys of the objects as columns, with lists and objects as they are.

    Args:
        content: lines with an object each, or a list of objects.

    Returns:
        Python's values; the index is the number of the line, from 0, or the place in the list.

    Raises:
        InputError: a line that is no object, or a table above the limits.
    """
    rows: dict[int, dict[str, Any]] = {}
    names: dict[str, None] = {}
    objects = _of_list(path, content) if content.lstrip().startswith(b"[") else _of_lines(path, content)
    for place, values in objects:
        rows[place] = values
        if not names.keys() >= values.keys():
            names.update(dict.fromkeys(values))
            check_cells(path, len(rows), list(names))
    check_cells(path, len(rows), list(names))
    columns = {name: [row.get(name) for row in rows.values()] for name in names}
    return pd.DataFrame(columns, index=list(rows), dtype=object)


def _of_lines(path: Path, content: bytes) -> Iterator[tuple[int, dict[str, Any]]]:
    for place, line in enumerate(content.split(b"\n")):
        if line.strip():
            yield place, _object(f"{path}, line {place + 1}", _parsed(f"{path}, line {place + 1}", line))


def _of_list(path: Path, content: bytes) -> Iterator[tuple[int, dict[str, Any]]]:
    for place, values in enumerate(_parsed(str(path), content)):
        yield place, _object(f"{path}, object {place + 1}", values)


def _parsed(place: str, content: bytes) -> Any:
    if _PYTHON.match(content):
        return _of_python(place, content)
    try:
        values = json.loads(content)
        # Otherwise an object holds a key twice, or objects, or a text with such marks. The check is slow.
        is_flat = isinstance(values, dict) and content.count(b'":') == len(values)
        return values if is_flat else json.loads(content, object_pairs_hook=unique_keys)
    # Of numbers with thousands of digits, and of brackets that never close.
    except (ValueError, RecursionError) as error:
        raise InputError(f"{place}: not JSON ({shown(error)}); write an object on each line") from error


def _of_python(place: str, content: bytes) -> Any:
    """A dictionary of Python, as UCSD's files of Steam and of Amazon's items have them in place of JSON."""
    try:
        if len(content) > _LONGEST:
            raise ValueError("the line is too long")
        return ast.literal_eval(content.decode().strip())
    except (ValueError, SyntaxError, RecursionError, MemoryError) as error:
        raise InputError(f"{place}: neither JSON nor a dictionary of Python ({shown(error)}); correct it") from error


def _object(place: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InputError(f'{place}: must be an object like {{"user": "ada"}} but is {shown(value)}; correct it')
    return value
