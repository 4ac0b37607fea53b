"""Arrays in a file that cannot hold code."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from scipy import sparse

from metarec.bases import Learned

__all__ = ["read_arrays", "write_arrays"]

_SPARSE = ("data", "indices", "indptr", "shape")


def write_arrays(path: Path, arrays: Mapping[str, Learned]) -> None:
    """Write arrays, sparse arrays and numbers by name, as numpy's ``npz`` without pickles.

    Raises:
        TypeError: a value that numpy could only pickle.
    """
    parts: dict[str, np.ndarray] = {}
    for name, value in arrays.items():
        if sparse.issparse(value):
            rows = sparse.csr_array(value)
            parts |= {f"{name}//{part}": np.asarray(getattr(rows, part)) for part in _SPARSE}
        else:
            parts[name] = np.asarray(value)
        if any(part.dtype.hasobject for key, part in parts.items() if key.partition("//")[0] == name):
            raise TypeError(f'"{name}" must be an array of numbers or of text but holds objects')
    with path.open("wb") as file:
        np.savez_compressed(file, **parts)


def read_arrays(path: Path) -> dict[str, Learned]:
    """Read a file of :func:`write_arrays`; numbers are floats.

    Raises:
        ValueError: the file holds a pickle.
    """
    with np.load(path, allow_pickle=False) as stored:
        parts = dict(stored)
    arrays: dict[str, Learned] = {}
    for key, part in parts.items():
        name, divided, _ = key.partition("//")
        if divided:
            data, indices, indptr, shape = (parts[f"{name}//{piece}"] for piece in _SPARSE)
            arrays[name] = sparse.csr_array((data, indices, indptr), shape=tuple(shape))
        else:
            arrays[name] = part if part.ndim or part.dtype.kind == "U" else part.item()
    return arrays
