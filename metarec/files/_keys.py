"""Keys of content, and dotted keys."""

from __future__ import annotations

import ast
import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import metarec

__all__ = ["code_facts", "content_key", "dotted"]


def content_key(facts: Mapping[str, Any]) -> str:
    """A hash of `facts`, which are JSON values: what some content depends on."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:24]


def code_facts(
    parts: Sequence[str], libraries: Sequence[str], root: Path = Path(metarec.__file__).parent
) -> dict[str, Any]:
    """What content depends on that code computes: the code of `parts`, and the versions of the libraries it calls.

    Comments, docstrings and the layout of the code do not count.

    Args:
        parts: Python files below `root`, and folders with all Python files in them.
        libraries: names of distributions.
    """
    return {
        "code": {part: _code_digest(root, root / part) for part in parts},
        "libraries": {n: version(n) for n in libraries},
    }


def _code_digest(root: Path, part: Path) -> str:
    digest = hashlib.sha256()
    for path in [part] if part.is_file() else sorted(part.rglob("*.py")):
        digest.update(path.relative_to(root).as_posix().encode() + _code_of(path.read_bytes()).encode())
    return digest.hexdigest()[:12]


@lru_cache(maxsize=1024)
def _code_of(source: bytes) -> str:
    """What Python executes of a file: a docstring or a comment that is reworded changes no result."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            node.body = [one for one in body if not _is_text(one)]  # type: ignore[attr-defined]
    return ast.dump(tree)


def _is_text(statement: ast.stmt) -> bool:
    return (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    )


def dotted(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one with dotted keys.

    >>> dotted({"a": 1, "b": {"c": 2, "d": {}}})
    {'a': 1, 'b.c': 2, 'b.d': {}}
    """
    flat: dict[str, Any] = {}
    for key, value in values.items():
        nested = isinstance(value, Mapping) and value
        flat |= dotted(value, f"{prefix}{key}.") if nested else {f"{prefix}{key}": value}
    return flat
