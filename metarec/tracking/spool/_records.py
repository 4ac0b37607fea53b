"""The records of a spool, and the rules for one that is read from a file."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from metarec.errors import printable, shown
from metarec.tracking._mlflow_runs import STATUS

__all__ = ["FILES", "UNFIT", "Operation", "UnfitRecord", "read_json", "read_record"]

Operation = dict[str, Any]
"""JSON values. ``what`` is begin, log, files, datasets, register, view or end. ``child`` is a trial's number, or the
key of a cell or a row; for the parent's own run it is None."""

FILES = "files"
"""The folder of a spool with the files that are to be sent, each record's in a folder of its own."""

UNFIT = "unfit"
"""``what`` of a line that breaks a rule. Such a record has the ``problem`` and the ``line``."""


class UnfitRecord(ValueError):
    """A record that must not be sent; the message is the rule that it breaks."""


def read_json(text: str | bytes) -> Any:
    """The JSON value of a text.

    Raises:
        ValueError: it is not JSON, or nested too deeply.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def read_record(line: bytes) -> Operation:
    """The record of a line; an unfit one where the line breaks a rule.

    >>> read_record(b'{"what": "begin", "child": 3, "time": 1000}')
    {'child': 3, 'what': 'begin', 'time': 1000}
    >>> read_record(b'{"what": "files", "child": 3, "time": 1000, "folder": "../.."}')["problem"]
    'folder must be files/ and the name that metarec gave but is "../.."'
    """
    try:
        record = read_json(line)
        if not isinstance(record, dict):
            raise UnfitRecord("a record must be a JSON object")
        # Earlier versions wrote "trial" for "child".
        record = {"child": record.pop("trial", None), **record}
        _check(record)
    except ValueError as error:
        problem = str(error) if isinstance(error, UnfitRecord) else f"it is not JSON: {printable(str(error))}"
        return {"what": UNFIT, "child": None, "problem": problem, "line": line.decode(errors="backslashreplace")}
    return record


def _check(record: Mapping[str, Any]) -> None:
    what = record.get("what")
    if not isinstance(what, str) or what not in _NEEDS:
        raise UnfitRecord(f'what must be one of {", ".join(_NEEDS)} but is "{shown(what)}"')
    for field in ("time", *_NEEDS[what]):
        if field not in record:
            raise UnfitRecord(f"a record of {what} needs {field}")
    for field, (holds, rule) in _RULES.items():
        if field in record and not holds(record[field]):
            raise UnfitRecord(f'{field} must be {rule} but is "{shown(record[field])}"')
    if what == "begin" and record["child"] is None:
        raise UnfitRecord("a record of begin needs child")


def _is_count(value: object) -> bool:
    # JSON has integers of any size, SQL and JavaScript have not.
    return type(value) is int and 0 <= value < 2**53


def _is_child(value: object) -> bool:
    if isinstance(value, str):
        return re.fullmatch(r"[A-Za-z0-9_.-]{1,100}", value) is not None
    return value is None or (type(value) is int and 0 <= value < 2**31)


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_texts(value: object) -> bool:
    return isinstance(value, dict) and all(map(_is_text, value.values()))


def _is_point(value: object) -> bool:
    if not (isinstance(value, list) and len(value) == 4):
        return False
    name, number, moment, step = value
    return _is_text(name) and type(number) in (int, float) and _is_count(moment) and _is_count(step)


def _is_dataset(value: object) -> bool:
    return _is_texts(value) and {"name", "digest", "source", "profile"} == set(value)  # type: ignore[call-overload]


def _all(holds: Callable[[object], bool]) -> Callable[[object], bool]:
    return lambda value: isinstance(value, list) and all(map(holds, value))


def _matches(pattern: str) -> Callable[[object], bool]:
    return lambda value: isinstance(value, str) and re.fullmatch(pattern, value) is not None


_RULES: dict[str, tuple[Callable[[object], bool], str]] = {
    "child": (_is_child, "the number of a trial or the key of a cell"),
    "time": (_is_count, "milliseconds since 1970"),
    "name": (_is_text, "text"),
    "params": (_is_texts, "texts by name"),
    "tags": (_is_texts, "texts by name"),
    "metrics": (_all(_is_point), "lists of name, number, time and step"),
    "state": (lambda value: isinstance(value, str) and value in STATUS, f"one of {', '.join(STATUS)}"),
    "folder": (_matches(f"{FILES}/[0-9a-f]{{32}}"), f"{FILES}/ and the name that metarec gave"),
    "path": (_matches(r"\w[\w.-]*"), "the name of a folder among the artifacts"),
    "model": (_is_text, "text"),
    "about": (_is_text, "text"),
    "below": (lambda value: isinstance(value, str) and _is_child(value), "the key of a row"),
    "key": (_matches(r"[A-Za-z0-9_.-]{1,100}"), "the key of a view"),
    "content": (_is_text, "text"),
    "datasets": (_all(_is_dataset), "objects with the texts name, digest, source and profile"),
}
"""Field -> a test of its value, and the rule in words."""

_NEEDS: dict[str, tuple[str, ...]] = {
    "begin": (),
    "log": (),
    "files": ("folder",),
    "datasets": ("datasets",),
    "register": ("path", "model", "tags"),
    "view": ("key", "content"),
    "end": ("state",),
}
"""What -> the fields that it cannot do without."""
