"""Base predictions on disk, under a key made of everything that they depend on."""

from __future__ import annotations

import hashlib
import io
import json
import logging
import os
import tempfile
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

import metarec

__all__ = ["cache_key", "load_arrays", "save_arrays", "write_whole"]

logger = logging.getLogger(__name__)

_CODE = ("ratings/**/*.py", "bases/**/*.py", "episodes/**/*.py")
_LIBRARIES = ("lenskit", "numpy", "scikit-learn", "torch")


def cache_key(facts: Mapping[str, Any], code: Sequence[str] = _CODE, libraries: Sequence[str] = _LIBRARIES) -> str:
    """A hash of `facts` (data and settings), of code, and of the libraries that it calls.

    Args:
        code: patterns of our files; by default those that make episodes.
        libraries: their names; by default those that make episodes need.
    """
    hashed = hashlib.sha256()
    root = Path(metarec.__file__).parent
    for path in sorted(path for pattern in code for path in root.glob(pattern)):
        hashed.update(path.relative_to(root).as_posix().encode() + path.read_bytes())
    whole = {**facts, "code": hashed.hexdigest(), "libraries": {name: version(name) for name in libraries}}
    return hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()[:24]


def save_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays and their checksum, so that the file is there whole or not at all."""
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    payload = buffer.getvalue()
    write_whole(path, hashlib.sha256(payload).digest() + payload)


def write_whole(path: Path, content: bytes) -> None:
    """Write a file, so that it is there whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def load_arrays(path: Path) -> dict[str, np.ndarray] | None:
    """The arrays, or None where the file is not there or is not what was written (then it is said aloud)."""
    if not path.exists():
        return None
    content = path.read_bytes()
    digest, payload = content[:32], content[32:]
    if hashlib.sha256(payload).digest() != digest:
        logger.warning("the cache entry %s is damaged or half-written; it is built again", path)
        return None
    with np.load(io.BytesIO(payload), allow_pickle=False) as stored:
        return dict(stored)
