"""Base predictions on disk, under a key made of everything that they depend on."""

from __future__ import annotations

import hashlib
import io
import json
import logging
import os
import tempfile
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

import metarec

__all__ = ["cache_key", "load_arrays", "save_arrays"]

logger = logging.getLogger(__name__)

_CODE = ("ratings", "bases", "episodes")
_LIBRARIES = ("lenskit", "numpy", "scikit-learn", "torch")


def cache_key(facts: Mapping[str, Any]) -> str:
    """A hash of `facts` (data and settings), of the code that makes episodes, and of the libraries that it calls."""
    code = hashlib.sha256()
    root = Path(metarec.__file__).parent
    for path in sorted(path for folder in _CODE for path in (root / folder).rglob("*.py")):
        code.update(path.relative_to(root).as_posix().encode() + path.read_bytes())
    whole = {**facts, "code": code.hexdigest(), "libraries": {name: version(name) for name in _LIBRARIES}}
    return hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()[:24]


def save_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays and their checksum, so that the file is there whole or not at all."""
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    payload = buffer.getvalue()
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(hashlib.sha256(payload).digest() + payload)
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
