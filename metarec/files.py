"""Atomic writing of files, cache keys, and a job's folders."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import metarec
from metarec.errors import InputError

__all__ = ["content_key", "make_folders", "write_whole"]


def content_key(facts: Mapping[str, Any], *, code: Sequence[str], libraries: Sequence[str]) -> str:
    """A hash of `facts` (data and settings), of code, and of the versions of libraries.

    Args:
        code: patterns of files below this package's folder.
        libraries: names of distributions.
    """
    hashed = hashlib.sha256()
    root = Path(metarec.__file__).parent
    for path in sorted(path for pattern in code for path in root.glob(pattern)):
        hashed.update(path.relative_to(root).as_posix().encode() + path.read_bytes())
    whole = {**facts, "code": hashed.hexdigest(), "libraries": {name: version(name) for name in libraries}}
    return hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()[:24]


def write_whole(path: Path, content: bytes) -> None:
    """Write a file completely or not at all."""
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


def make_folders(out: Path, *inside: Path) -> None:
    """Make the folder of ``--out`` and folders inside it.

    Raises:
        InputError: a folder cannot be made or written.
    """
    for folder in (out, *inside):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"--out {out}: cannot be written: {error.strerror}; give another folder") from None
    if not os.access(out, os.W_OK):
        raise InputError(f"--out {out}: cannot be written: no permission; give another folder")
