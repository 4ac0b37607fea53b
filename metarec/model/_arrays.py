"""Arrays in a file that cannot hold code."""

from __future__ import annotations

import ast
import io
import math
import re
import struct
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.lib import format as npy
from scipy import sparse

from metarec.bases import Learned
from metarec.errors import InputError, shown
from metarec.files import Limit

__all__ = ["MODEL", "read_arrays", "write_arrays"]

MODEL = Limit("METAREC_MAX_MODEL_BYTES", 2 << 30)
"""Of a model: its files together, and the arrays of one file without compression."""

_SPARSE = ("data", "indices", "indptr", "shape")

_TYPE = re.compile(r"[<|](f[48]|[iu][1248]|b1|U\d{1,7})")
"""What is written: little-endian numbers, flags, and text."""

_DAMAGED = (
    *(zipfile.BadZipFile, zlib.error, struct.error, OSError, EOFError),
    *(ValueError, TypeError, LookupError, RuntimeError, SyntaxError, MemoryError, ArithmeticError),
)
"""What Python's and numpy's readers raise. Deep brackets are a MemoryError or, as a RuntimeError, a recursion."""


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


def read_arrays(content: bytes, whose: str) -> dict[str, Learned]:
    """The arrays in a file of :func:`write_arrays`; numbers are Python's.

    Args:
        whose: begins each error.

    Raises:
        InputError: the file is damaged, holds a pickle, grows above the limit `MODEL`, or has a sparse array that
            refers to entries that it does not have.
    """
    try:
        parts = _parts(content, whose)
    except _DAMAGED as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{whose}: no file of arrays that can be read: {shown(error, 200)}") from None
    arrays: dict[str, Learned] = {}
    for key, part in parts.items():
        name, divided, _ = key.partition("//")
        if divided:
            if name not in arrays:
                own = {one: parts.get(f"{name}//{one}") for one in _SPARSE}
                arrays[name] = _sparse(f'{whose}: "{shown(name)}"', own)
        else:
            arrays[name] = part if part.ndim or part.dtype.kind == "U" else part.item()
    return arrays


def _parts(content: bytes, whose: str) -> dict[str, np.ndarray]:
    parts = {}
    with zipfile.ZipFile(io.BytesIO(content)) as stored:
        # A few bytes can be a gigabyte of zeros, and entries can overlap.
        MODEL.check(sum(entry.file_size for entry in stored.infolist()), f"{whose}: the arrays without compression")
        for entry in stored.infolist():
            name = entry.filename.removesuffix(".npy")
            if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise InputError(f'{whose}: "{shown(name)}" must be compressed by deflate, or not at all')
            if name in parts:
                raise InputError(f'{whose}: "{shown(name)}" is there twice')
            with stored.open(entry) as file:
                parts[name] = _array(file.read(), f'{whose}: "{shown(name)}"')
    return parts


def _array(content: bytes, whose: str) -> np.ndarray:
    """One ``npy`` file. numpy's own reader makes room for an array before it looks whether there is one."""
    magic, length = content[:8], int.from_bytes(content[8:10], "little")
    if magic != npy.magic(1, 0):
        raise InputError(f"{whose} must be an array of numpy's format 1.0")
    start = 10 + length
    header = ast.literal_eval(content[10:start].decode("latin1"))
    dtype, shape = header["descr"], header["shape"]
    if not (isinstance(dtype, str) and _TYPE.fullmatch(dtype)):
        raise InputError(f"{whose} must be an array of numbers or of text but has the type {shown(dtype)}")
    count = math.prod(shape)
    size = count * np.dtype(dtype).itemsize
    if min(shape, default=0) < 0 or size != len(content) - start:
        raise InputError(f"{whose} must have the {shown(size)} bytes of its shape but has {len(content) - start:,}")
    if "U" in dtype and count and np.frombuffer(content, "<u4", offset=start).max() > 0x10FFFF:
        raise InputError(f"{whose} holds something that is no letter")
    array = np.frombuffer(content, dtype, count, start) if size else np.empty(count, dtype)
    return array.reshape(shape, order="F" if header["fortran_order"] else "C").copy()


def _sparse(whose: str, parts: Mapping[str, np.ndarray | None]) -> sparse.csr_array:
    """A sparse array. Compiled code reads it without a check of its own."""
    data, indices, indptr, shape = (parts[name] for name in _SPARSE)
    if data is None or indices is None or indptr is None or shape is None:
        raise InputError(f"{whose} must have the parts {', '.join(_SPARSE)}")
    whole = all(part.dtype.kind in "iu" and part.ndim == 1 for part in (indices, indptr, shape))
    if not (whole and data.dtype.kind in "fiu" and data.ndim == 1 and len(shape) == 2 and min(shape) >= 0):
        raise InputError(f"{whose} must be a sparse array of two axes")
    rows, columns = map(int, shape)
    inside = not len(indices) or (int(indices.min()) >= 0 and int(indices.max()) < columns)
    bounds = len(indptr) == rows + 1 and indptr[0] == 0 and indptr[-1] == len(indices) == len(data)
    if not (inside and bounds and (indptr[1:] >= indptr[:-1]).all()):
        raise InputError(f"{whose} must refer to entries within its shape [{rows}, {columns}]")
    return sparse.csr_array((data, indices, indptr), shape=(rows, columns))
