"""Databases of MLflow: the addresses of SQLite files, and a warning before a newer MLflow changes a schema."""

from __future__ import annotations

import logging
from pathlib import Path
from urllib.parse import quote, unquote

from metarec.errors import shown_address

__all__ = ["announce_migration", "sqlite_path", "sqlite_uri"]

logger = logging.getLogger(__name__)

_SQLITE = "sqlite:///"


def sqlite_uri(path: Path) -> str:
    """The tracking URI of a SQLite file.

    >>> sqlite_uri(Path("/home/ada/mlruns/mlflow.db"))
    'sqlite:////home/ada/mlruns/mlflow.db'
    """
    # SQLAlchemy decodes these two; all others stay as people write them.
    return f"{_SQLITE}{path.resolve()}".replace("%", "%25").replace("?", "%3F")


def sqlite_path(tracking_uri: str) -> Path | None:
    """The file behind a SQLite tracking URI; None for any other store."""
    return Path(unquote(tracking_uri.removeprefix(_SQLITE))) if tracking_uri.startswith(_SQLITE) else None


def announce_migration(tracking_uri: str) -> None:
    """Log a warning if a database has an older schema than the installed MLflow, which changes it when it opens it.

    Nothing is logged for a store that is no database, such as a server of MLflow, or that does not answer.

    Raises:
        OSError: a SQLite file is missing, locked or damaged.
    """
    from alembic.script import ScriptDirectory
    from mlflow import __file__ as package
    from mlflow import __version__ as version
    from mlflow.store.db.db_types import DATABASE_ENGINES

    if tracking_uri.split(":")[0].split("+")[0] not in DATABASE_ENGINES:
        return
    revision = _revision(tracking_uri)
    scripts = ScriptDirectory(str(Path(package).parent / "store" / "db_migrations"))
    older = {script.revision for script in scripts.walk_revisions()} - {scripts.get_current_head()}
    # MLflow itself refuses a store of a newer version.
    if revision in older:
        logger.warning(
            "%s was made by an older MLflow: MLflow %s changes its schema now, and an older one can no longer open it "
            "afterwards; if one is still to read it, make a copy of the %s before",
            *(sqlite_path(tracking_uri) or shown_address(tracking_uri), version),
            "file" if sqlite_path(tracking_uri) else "database",
        )


def _revision(tracking_uri: str) -> str | None:
    """The schema's version in a database; None if it has none."""
    from sqlalchemy import create_engine, inspect, text
    from sqlalchemy.exc import SQLAlchemyError
    from sqlalchemy.pool import NullPool

    path = sqlite_path(tracking_uri)
    if path is not None:
        tracking_uri = f"{_SQLITE}{quote(path.resolve().as_uri(), safe=':/')}?mode=ro&uri=true"
    try:
        with create_engine(tracking_uri, poolclass=NullPool).connect() as database:
            if not inspect(database).has_table("alembic_version"):
                return None
            return database.scalar(text("SELECT version_num FROM alembic_version"))
    except SQLAlchemyError as error:
        if path is None:
            logger.debug("the schema of %s is unknown: %s", shown_address(tracking_uri), type(error).__name__)
            return None
        raise OSError(str(getattr(error, "orig", None) or error)) from error
