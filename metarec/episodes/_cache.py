"""Base predictions on disk, under a hash of all that they depend on."""

from __future__ import annotations

import hashlib
import io
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from metarec.files import code_facts, content_key, write_whole

__all__ = ["cache_key", "load_arrays", "save_arrays"]

logger = logging.getLogger(__name__)

_CODE = ("ratings", "bases", "episodes")
_LIBRARIES = ("lenskit", "numpy", "scikit-learn", "torch")


def cache_key(facts: Mapping[str, Any]) -> str:
    """A hash of `facts` (data and settings), of the code that makes episodes, and of the libraries that it calls."""
    return content_key({**facts, **code_facts(_CODE, _LIBRARIES)})


def save_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays and their checksum in one atomic step."""
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    payload = buffer.getvalue()
    write_whole(path, hashlib.sha256(payload).digest() + payload)


def load_arrays(path: Path) -> dict[str, np.ndarray] | None:
    """The arrays; None where the file is missing, or damaged, which is logged as a warning."""
    if not path.exists():
        return None
    content = path.read_bytes()
    digest, payload = content[:32], content[32:]
    if hashlib.sha256(payload).digest() != digest:
        logger.warning("the cache entry %s is damaged or half-written; it is built again", path)
        return None
    with np.load(io.BytesIO(payload), allow_pickle=False) as stored:
        return dict(stored)
