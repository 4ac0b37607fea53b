"""A job's folders, and who may read what is in them."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from metarec.errors import InputError

__all__ = ["is_shared", "keep_private", "make_folder", "make_folders"]

_SHARED = stat.S_ISGID | stat.S_IWGRP
"""The bits of a folder that its owner shares with a group, as ``chmod 2770`` sets them."""


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
    try:
        folder.mkdir(mode=0o700)
    except FileExistsError:
        if folder.is_dir():
            # Another process has made it meanwhile.
            return
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder)) from None
    if is_shared(folder.parent):
        folder.chmod(0o2770)


def keep_private(place: Path) -> None:
    """Let this process, and those that it starts, make files for their owner alone.

    If `place`, or the nearest folder above it that exists, is shared with a group, they are for the group, too. Only
    commands call it: the process of a library's user is not ours to change.
    """
    os.umask(0o007 if is_shared(place) else 0o077)


def is_shared(folder: Path) -> bool:
    """Whether the folder, or the nearest one above it that exists, is shared with a group."""
    there = next(place for place in (folder, *folder.absolute().parents) if os.path.exists(place))
    return there.stat().st_mode & _SHARED == _SHARED
