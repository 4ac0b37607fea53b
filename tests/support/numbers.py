"""The numbers of a page, held against the results files that the page names.

A comment `<!-- numbers: FILE PATTERN ... -->` names the source of all numbers that follow, up to the next such comment.
A pattern is a path into the JSON file, such as `sets/*/10/comparisons/stack`:

- `*` is any key, `key=value&key=value` selects entries of a list;
- `{head}` is the cell of the row in the column with that head, `{column}` the head of the cell's own column.

A number must be in what the patterns select, rounded as it is printed. A list also has its length, and the keys of the
path count. A number without a sign may be a share before `%`, and seconds before `ms`; the head of a column may have
the unit. Code, links and NAMES have no numbers, but for code that is a number alone.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from functools import cache
from typing import Any, NamedTuple

from tests.support.pages import ROOT

NAMES = ("95 %", "MovieLens-100K", "MovieLens-1M", "MovieTweetings 100K", "nDCG@10", "learn2learn", "99th percentile")
"""Phrases whose digits are no results. 95 % is the level of every interval."""

NUMBER = re.compile(r"(?<![\w@.])(?<!\w-)([+−-]?)(\d[\d,]*(?:\.\d+)?|\.\d+)(e-?\d+)?(?![\w@])(?:\s?(%|ms)(?!\w))?")
FACTORS = {"%": (1, 100), "ms": (1, 1000)}
_MARK = re.compile(r"<!-- numbers: (\S+)((?: \S+)*) -->")
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_BLANKED = re.compile("|".join([r"`(?![+−-]?[\d,]*\.?\d+(?: %)?`)[^`\n]*`", r"\]\([^)\n]*\)", *map(re.escape, NAMES)]))


class Claim(NamedTuple):
    """A line of a page with its source.

    Attributes:
        file: the name of the results file; None before the first comment.
        head: the heads of the columns if the line is a row of a table.
    """

    line: str
    file: str | None
    patterns: tuple[str, ...]
    head: tuple[str, ...]


def claims(text: str) -> Iterator[Claim]:
    """The lines of a page that have digits outside code, links and names."""
    file, patterns, head = None, (), ()
    for line in _FENCE.sub(lambda block: block[2] if block[1] == "text" else "", text).splitlines():
        if mark := _MARK.fullmatch(line):
            file, patterns = mark[1], tuple(mark[2].split())
            continue
        row = line.startswith("|")
        if row and not head:
            head = tuple(_cells(line))
        head = head if row else ()
        if re.search(r"\d", _blanked(line)):
            yield Claim(line, file, patterns, head)


def objections(claim: Claim) -> list[str]:
    """What is wrong with the numbers of a line; empty if all are in the file."""
    if claim.file is None:
        return [f"no file is named for: {claim.line}"]
    if not claim.head:
        return _wrong(claim.line, claim, {})
    cells = dict(zip(claim.head, _cells(claim.line), strict=True))
    names = {column: cell.strip("*`") for column, cell in cells.items()}
    keys = {name for pattern in claim.patterns for name in re.findall(r"\{([^}]+)\}", pattern)}
    wrong = []
    for column, cell in cells.items():
        # A cell that is a key is right if its entry exists, which all other cells of the row need.
        if column not in keys:
            unit = next((unit for unit in FACTORS if re.search(rf"{unit}(?!\w)", column)), None)
            wrong += _wrong(cell, claim, {**names, "column": column}, unit)
    return wrong


def number_digits(line: str) -> list[int]:
    """The positions of the digits of all numbers of a line."""
    spans = (found.span() for found in NUMBER.finditer(_blanked(line)))
    return [place for begin, end in spans for place in range(begin, end) if line[place].isdigit()]


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def _blanked(text: str) -> str:
    return _BLANKED.sub(lambda found: " " * len(found[0]), text)


def _wrong(text: str, claim: Claim, names: Mapping[str, str], unit: str | None = None) -> list[str]:
    visible = _blanked(text)
    if not re.search(r"\d", visible):
        return []
    values: set[float] = set()
    for pattern in claim.patterns or ("",):
        path = re.sub(r"\{([^}]+)\}", lambda found: names.get(found[1], "?"), pattern)
        values |= _selected(claim.file, tuple(path.split("/")) if path else ())
    wrong = [
        f"{found[0].strip()} is not in {claim.file}{_nearest(found, values)}, for: {claim.line}"
        for found in NUMBER.finditer(visible)
        if not _is_there(found, values, unit)
    ]
    if re.search(r"\d", NUMBER.sub("", visible)):
        wrong.append(f"digits that are no number, for: {claim.line}")
    return wrong


def _is_there(found: re.Match[str], values: set[float], unit: str | None) -> bool:
    sign, body, exponent, own_unit = found.groups()
    printed = Decimal(body.replace(",", "") + (exponent or ""))
    half = float(Decimal(1).scaleb(printed.as_tuple().exponent) / 2) * (1 + 1e-9)
    wanted = float(printed) * (-1 if sign in ("-", "−") else 1)
    # A gain has a sign and is in percent in the file; a share has none.
    for factor in (1,) if sign else FACTORS.get(own_unit or unit or "", (1,)):
        for value in values:
            scaled = value * factor if sign else abs(value * factor)
            if abs(scaled - wanted) <= half:
                return True
    return False


def _nearest(found: re.Match[str], values: set[float]) -> str:
    wanted = float(found[2].replace(",", "") + (found[3] or ""))
    near = sorted(values, key=lambda value: abs(abs(value) - wanted))[:2]
    return f" (nearest: {', '.join(f'{value:.6g}' for value in near)})"


@cache
def _file(name: str) -> Any:
    return json.loads((ROOT / name).read_text(encoding="utf-8"))


@cache
def _selected(name: str, path: Sequence[str]) -> frozenset[float]:
    """All numbers below the entries that a pattern selects, and the numbers of its path; empty if it selects none."""
    nodes, values = [_file(name)], set()
    for part in path:
        found = [(key, child) for node in nodes for key, child in _children(node) if _matches(part, key, child)]
        nodes = [child for _, child in found]
        values |= _keys(key for key, _ in found) | _keys(re.findall(r"=([^&]+)", part))
    return frozenset(values.union(*map(_numbers, nodes))) if nodes else frozenset()


def _children(node: Any) -> list[tuple[str, Any]]:
    if isinstance(node, dict):
        return list(node.items())
    return [("", child) for child in node] if isinstance(node, list) else []


def _matches(part: str, key: str, child: Any) -> bool:
    if "=" in part and isinstance(child, dict):
        return all(str(child.get(name)) == value for name, value in (entry.split("=") for entry in part.split("&")))
    return part in ("*", key)


def _keys(keys: Iterable[str]) -> set[float]:
    return {float(key) for key in keys if re.fullmatch(r"\d+", key)}


def _numbers(node: Any) -> set[float]:
    if isinstance(node, int | float) and not isinstance(node, bool):
        return {float(node)}
    if not isinstance(node, dict | list):
        return set()
    own = {float(len(node))} if isinstance(node, list) else _keys(node)
    return own.union(*(_numbers(child) for _, child in _children(node)))
