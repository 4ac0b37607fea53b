"""Keys of content, and dotted keys."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
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
        digest.update(path.relative_to(root).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()[:12]


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
