"""Where Optuna keeps a study: a journal file on one machine, or a database for many.

Both find the running trials that have lost their process, and neither is damaged by a process that is killed while it
writes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage
from sqlalchemy.exc import SQLAlchemyError

from metarec.errors import InputError, check_address, shown_address
from metarec.search.storage._database import PatientDatabase
from metarec.search.storage._journal import JournalStudies
from metarec.search.storage._optuna import OnStale, end_stale_trials, queued_params

__all__ = [
    "JournalStudies",
    "OnStale",
    "PatientDatabase",
    "end_stale_trials",
    "open_storage",
    "queued_params",
    "reaching",
]

PATIENCE_S = 1800.0
"""How long a database may be away before a study gives up."""


def open_storage(storage: str, on_stale: OnStale | None = None) -> BaseStorage:
    """The storage at the path of a journal file, or at the URL of a database.

    Raises:
        InputError: the address is malformed, or the storage does not answer.
    """
    # A journal is a path, which may hold any sign.
    if "://" in storage:
        check_address("--storage", storage)
    with reaching(storage):
        if "://" not in storage:
            return JournalStudies(Path(storage), on_stale)
        database = PatientDatabase(storage, on_stale)
    # A database that was never reached is not worth waiting for.
    database.patience = PATIENCE_S
    return database


@contextmanager
def reaching(storage: str) -> Iterator[None]:
    """Turn an error on the way to a storage into an InputError."""
    try:
        yield
    except (OSError, ImportError, ValueError, SQLAlchemyError, StorageInternalError) as error:
        reason = str(error.__cause__ or error).strip().split("\n")[0].rstrip(".")
        what = f"--storage {shown_address(storage)}" if "://" in storage else f"the journal {storage} of --out"
        raise InputError(f"{what} cannot be opened: {reason}; give another") from None
    except (AttributeError, KeyError, TypeError) as error:
        # Optuna reads each line of a journal as it was written.
        raise InputError(
            f"the journal {storage} of --out is damaged ({type(error).__name__}: {error}); "
            "put a copy of it in its place, or give another --out"
        ) from None
