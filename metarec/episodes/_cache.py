"""Base predictions on disk, under a hash of all that they depend on."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from metarec.files import code_facts, content_key, read_kept, write_kept

__all__ = ["cache_key", "load_arrays", "save_arrays"]

_CODE = ("ratings", "bases", "episodes")
_LIBRARIES = ("lenskit", "numpy", "scikit-learn", "torch")


def cache_key(facts: Mapping[str, Any]) -> str:
    """A hash of `facts` (data and settings), of the code that makes episodes, and of the libraries that it calls."""
    return content_key({**facts, **code_facts(_CODE, _LIBRARIES)})


def save_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays and their checksum in one atomic step."""
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    write_kept(path, buffer.getvalue())


def load_arrays(path: Path) -> dict[str, np.ndarray] | None:
    """The arrays; None where the file is missing, or damaged, which is logged as a warning."""
    content = read_kept(path)
    if content is None:
        return None
    with np.load(io.BytesIO(content), allow_pickle=False) as stored:
        return dict(stored)
