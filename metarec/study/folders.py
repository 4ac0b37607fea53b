"""Where a job writes."""

from __future__ import annotations

import os
from pathlib import Path

from metarec.errors import InputError

__all__ = ["make_folders"]


def make_folders(out: Path, *inside: Path) -> None:
    """Make the folder of ``--out`` and those inside of it that a job needs.

    Raises:
        InputError: one cannot be made or written.
    """
    for folder in (out, *inside):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"--out {out}: cannot be written: {error.strerror}; give another folder") from None
    if not os.access(out, os.W_OK):
        raise InputError(f"--out {out}: cannot be written: no permission; give another folder")
