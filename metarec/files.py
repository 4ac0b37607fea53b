"""Atomic writing of files, who may read them, cache keys, dotted keys, and a job's folders."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import tempfile
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import metarec
from metarec.errors import InputError

__all__ = ["code_facts", "content_key", "dotted", "keep_private", "make_folder", "make_folders", "write_whole"]

_SHARED = stat.S_ISGID | stat.S_IWGRP
"""The bits of a folder that its owner shares with a group, as ``chmod 2770`` sets them."""


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


def write_whole(path: Path, content: bytes) -> None:
    """Write a file completely or not at all."""
    make_folder(path.parent)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".part")
    try:
        if _shared(path.parent):
            os.fchmod(handle, 0o660)
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
            make_folder(folder)
        except OSError as error:
            raise InputError(f"--out {out}: cannot be written: {error.strerror}; give another folder") from None
    if not os.access(out, os.W_OK):
        raise InputError(f"--out {out}: cannot be written: no permission; give another folder")


def make_folder(folder: Path) -> None:
    """Make a folder, and those above it that are missing, for their owner alone.

    Inside of a folder that is shared with a group they belong to the group, too. An existing folder keeps its mode.
    """
    if folder.is_dir():
        return
    make_folder(folder.parent)
    folder.mkdir(mode=0o700, exist_ok=True)
    if _shared(folder.parent):
        folder.chmod(0o2770)


def keep_private(place: Path) -> None:
    """Let this process, and those that it starts, make files for their owner alone.

    If `place`, or the nearest folder above it that exists, is shared with a group, they are for the group, too. Only
    commands call it: the process of a library's user is not ours to change.
    """
    os.umask(0o007 if _shared(place) else 0o077)


def _shared(folder: Path) -> bool:
    """Whether the folder, or the nearest one above it that exists, is shared with a group."""
    there = next(place for place in (folder, *folder.absolute().parents) if os.path.exists(place))
    return there.stat().st_mode & _SHARED == _SHARED
