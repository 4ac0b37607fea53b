"""A store that was moved or copied with its folder: MLflow keeps the whole addresses of files."""

from __future__ import annotations

import logging
import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.parse import unquote, urlsplit

__all__ = ["mend_moved"]

logger = logging.getLogger(__name__)

_ADDRESSES = {
    "experiments": ("artifact_location",),
    "runs": ("artifact_uri",),
    "model_versions": ("source", "storage_location"),
    "logged_models": ("artifact_location",),
}
"""Table -> its columns with addresses of files."""


def mend_moved(database: Path, files: Path, experiment: str) -> None:
    """Make the addresses in a SQLite store name its folder of files, if both were moved or copied together.

    Only a store that lies beside its files is mended. The old place must be gone, or hold the store that this one is a
    copy of.

    Args:
        database: the file of the store. files: the folder ``artifacts`` beside it. experiment: whose address shows
            where the files are expected.

    Raises:
        OSError: the store is locked or damaged.
    """
    try:
        _mend(database, files, experiment)
    except sqlite3.Error as error:
        raise OSError(str(error)) from error


def _mend(database: Path, files: Path, experiment: str) -> None:
    if not database.is_file() or database.resolve().parent != files.resolve().parent or not files.is_dir():
        return
    new = files.resolve()
    with closing(sqlite3.connect(f"{database.resolve().as_uri()}?mode=ro", uri=True)) as store:
        if not _columns(store, "experiments"):
            return
        row = store.execute("SELECT artifact_location FROM experiments WHERE name = ?", (experiment,)).fetchone()
    address = urlsplit(row[0] or "") if row else None
    if address is None or address.scheme not in ("", "file"):
        return
    old = Path(unquote(address.path))
    if old == new or old.name != new.name or (old.exists() and not (old.parent / database.name).exists()):
        return
    with closing(sqlite3.connect(database, timeout=60)) as store, store:
        for table, wanted in _ADDRESSES.items():
            for column in _columns(store, table) & set(wanted):
                for before, after in ((old.as_uri(), new.as_uri()), (str(old), str(new))):
                    store.execute(
                        f"UPDATE {table} SET {column} = ? || substr({column}, ?) WHERE substr({column}, 1, ?) = ?",
                        (f"{after}/", len(before) + 2, len(before) + 1, f"{before}/"),
                    )
                    store.execute(f"UPDATE {table} SET {column} = ? WHERE {column} = ?", (after, before))
    logger.warning("the store was moved from %s: its files are expected in %s from now on", old.parent, new)


def _columns(store: sqlite3.Connection, table: str) -> set[str]:
    return {row[1] for row in store.execute(f"PRAGMA table_info({table})")}
