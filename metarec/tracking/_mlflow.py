"""The tracker of MLflow. It passes run ids to a client and does not use MLflow's global or active run."""

from __future__ import annotations

import logging
import os
import shlex
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

from metarec.errors import InputError
from metarec.files import held, make_folder, remove_abandoned
from metarec.stores import announce_migration, sqlite_path, sqlite_uri
from metarec.tracking._address import check_uri, shown_uri
from metarec.tracking._base import ComparisonRun, StudyRun, Tracker, TrackingError, check_same
from metarec.tracking._deleted import restored
from metarec.tracking._limits import PARAM_LENGTH, clean_key, cut
from metarec.tracking._mlflow_runs import Parent, Tag, found_runs, reaching, write
from metarec.tracking._moved import mend_moved
from metarec.tracking.spool import SpooledComparisonRun, SpooledStudyRun

if TYPE_CHECKING:
    from mlflow import MlflowClient

__all__ = ["MlflowTracker", "leave_waiting_to_us"]

logger = logging.getLogger(__name__)


PATIENCE_S = 120.0
"""How long a locked SQLite store is waited for at the start; in the middle of a study records wait by themselves."""


class _StoreLocked(InputError):
    """Another process holds the lock of the store."""


class MlflowTracker(Tracker):
    """Records studies in MLflow: one experiment for all, a parent run per study, a child run per trial.

    A comparison is a parent run, too, and each of its cells a child run. All share one experiment because its table of
    runs is what people look at: a line for each study, which unfolds into its trials, and one address to remember.

    Nothing is opened or written before :meth:`open`, or else the start of a study. A new SQLite store takes some
    seconds to open.

    Args:
        tracking_uri: any MLflow tracking URI; see :meth:`in_folder` for the usual one.
        artifact_root: the folder or URI under which files are kept. It is used when the experiment is created
            in a database; a server decides for itself.
        spool: the folder where what was not sent yet is kept.
        experiment: the name of the experiment.
        client: the client to use instead of one that is made from `tracking_uri`.

    Raises:
        InputError: on opening or starting a study, if the store cannot be used or its experiment was deleted.
        TrackingError: on starting, if the store fails in the middle of it. What is recorded later waits for the store.
    """

    def __init__(
        self,
        tracking_uri: str,
        artifact_root: str | Path | None = None,
        *,
        spool: str | Path = "mlruns/spool",
        experiment: str = "metarec",
        client: MlflowClient | None = None,
    ) -> None:
        self.spool = Path(spool)
        self.tracking_uri: str = tracking_uri
        self.artifact_root = artifact_root
        self.experiment = experiment
        self._client = client

    @classmethod
    def in_folder(cls, folder: str | Path) -> MlflowTracker:
        """The tracker that keeps ``mlflow.db``, ``artifacts/`` and ``spool/`` in `folder`."""
        place = Path(folder)
        return cls(sqlite_uri(place / "mlflow.db"), place / "artifacts", spool=place / "spool")

    def __getstate__(self) -> dict[str, Any]:
        # A database connection must not be shared with a worker process: the worker opens its own.
        return {**self.__dict__, "_client": None}

    def open(self) -> None:
        self._open()

    def start_study(
        self,
        name: str,
        *,
        params: Mapping[str, Any],
        tags: Mapping[str, str] | None = None,
        description: str = "",
        run_id: str | None = None,
    ) -> StudyRun:
        parent = self._start("study", name, params, tags or {}, description, earlier=run_id)
        return SpooledStudyRun(parent, self.spool, starts=True)

    def start_comparison(
        self, name: str, *, params: Mapping[str, Any], fixed: Mapping[str, Any] | None = None, description: str = ""
    ) -> ComparisonRun:
        parent = self._start("comparison", name, params, {}, description, fixed or {})
        return SpooledComparisonRun(parent, self.spool, starts=True)

    def _start(
        self,
        role: Literal["study", "comparison"],
        name: str,
        params: Mapping[str, Any],
        tags: Mapping[str, str],
        description: str,
        fixed: Mapping[str, Any] = MappingProxyType({}),
        earlier: str | None = None,
    ) -> Parent:
        """The parent run of this name: a new one, or the one that goes on."""
        client, experiment_id = self._open()
        store = shown_uri(self.tracking_uri)
        before: Mapping[str, str] = {}
        with reaching(store, f'start {role} "{name}"'):
            parents = found_runs(client, experiment_id, f"tags.`{Tag.ROLE}` = '{role}'")
            # Names are compared here: queries cannot quote every one.
            found = next((run for run in parents if run.data.tags.get(Tag.STUDY) == name), None)
            if found is None and earlier is not None:
                found = restored(Parent(client, store, role, name, earlier, experiment_id))
            if found is None:
                ours = {Tag.STUDY: name, Tag.ROLE: role, Tag.SOURCE: "metarec"}
                run_id = client.create_run(experiment_id, tags=ours, run_name=name).info.run_id
            else:
                run_id, before = found.info.run_id, found.data.params
                now = {clean_key(key): cut(value, PARAM_LENGTH) for key, value in fixed.items()}
                check_same(name, before if fixed else {}, now)
                client.update_run(run_id, status="RUNNING", name=name)
                if Tag.REASON in found.data.tags:
                    client.delete_tag(run_id, Tag.REASON)
            note = {Tag.NOTE: description} if description else {}
            new = {key: value for key, value in params.items() if clean_key(key) not in before}
            labels = {Tag.STATE: "running", **note, **_changes(params, before), **tags}
            write(client, run_id, params=new, tags=labels)
        return Parent(client, store, role, name, run_id, experiment_id)

    def join_study(self, name: str, run_id: str | None, experiment_id: str | None) -> StudyRun:
        if run_id is None or experiment_id is None:
            raise ValueError(f"a study that was started has a run and an experiment but got {run_id}, {experiment_id}")
        store = shown_uri(self.tracking_uri)
        with self._usable():
            client = self._connected()
        return SpooledStudyRun(Parent(client, store, "study", name, run_id, experiment_id), self.spool, starts=False)

    def fetch(self, run_id: str, file: str, folder: Path) -> bool:
        from mlflow.exceptions import MlflowException

        with self._usable():
            client = self._connected()
            try:
                there = any(entry.path == file for entry in client.list_artifacts(run_id))
            except MlflowException as error:
                if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                    raise
                # The run is in another store, or was deleted.
                there = False
            if there:
                client.download_artifacts(run_id, file, str(folder))
        return there

    def _open(self) -> tuple[MlflowClient, str]:
        """The client and the experiment's id. A store that another process has locked is waited for."""
        until = time.monotonic() + PATIENCE_S
        while True:
            try:
                with self._usable():
                    client = self._connected()
                    return client, self._experiment_id(client)
            except _StoreLocked:
                if time.monotonic() > until:
                    raise
                logger.warning("another process writes to %s; waiting for it", shown_uri(self.tracking_uri))
                time.sleep(1)

    @contextmanager
    def _usable(self) -> Iterator[None]:
        store = shown_uri(self.tracking_uri)
        try:
            with reaching(store, "open the experiment"):
                yield
        except TrackingError as error:
            if "database is locked" in error.reason:
                raise _StoreLocked(f"another process writes to {store} all the time; try again") from None
            raise InputError(f"tracking URI {store} cannot be used: {error.reason}; give another one") from None

    def _connected(self) -> MlflowClient:
        """The client, which has not called a server yet."""
        leave_waiting_to_us()
        if self._client is None:
            check_uri(self.tracking_uri)
            _quieten_mlflow()
            from mlflow import MlflowClient

            path = sqlite_path(self.tracking_uri)
            if path is not None:
                # Also where there is a store by now: another process may have made it after one was killed.
                remove_abandoned(path.parent, f".{path.name}-*")
                if not path.exists():
                    _make_whole(path)
                else:
                    announce_migration(self.tracking_uri)
                    if isinstance(self.artifact_root, Path):
                        mend_moved(path, self.artifact_root, self.experiment)
            else:
                announce_migration(self.tracking_uri)
            self._client = MlflowClient(tracking_uri=self.tracking_uri)
        return self._client

    def _experiment_id(self, client: MlflowClient) -> str:
        experiment = client.get_experiment_by_name(self.experiment)
        if experiment is None:
            return str(client.create_experiment(self.experiment, artifact_location=self._artifact_location()))
        if experiment.lifecycle_stage != "active":
            raise InputError(
                f'experiment "{self.experiment}" of {shown_uri(self.tracking_uri)} was deleted; restore it: '
                f"MLFLOW_TRACKING_URI={shlex.quote(shown_uri(self.tracking_uri))} "
                f"mlflow experiments restore --experiment-id {experiment.experiment_id}"
            )
        return str(experiment.experiment_id)

    def _artifact_location(self) -> str | None:
        if self.artifact_root is None or urlsplit(self.tracking_uri).scheme in {"http", "https"}:
            return None
        root = self.artifact_root
        return root.resolve().as_uri() if isinstance(root, Path) else root


def default_uri(folder: Path) -> str:
    """What MLflow is set to, or else ``mlflow.db`` in a folder."""
    import mlflow

    return str(mlflow.get_tracking_uri()) if mlflow.is_tracking_uri_set() else sqlite_uri(folder / "mlflow.db")


def _make_whole(path: Path) -> None:
    """Make a new SQLite store elsewhere, and move it: MLflow needs many steps, and a process that is killed between two
    of them would leave one that cannot be opened."""
    from mlflow import MlflowClient

    make_folder(path.parent)
    with TemporaryDirectory(dir=path.parent, prefix=f".{path.name}-") as folder, held(Path(folder)):
        made = Path(folder) / path.name
        MlflowClient(tracking_uri=sqlite_uri(made)).search_experiments(max_results=1)
        # Another process may have been faster, and have runs in it.
        with suppress(FileExistsError):
            os.link(made, path)


def leave_waiting_to_us() -> None:
    """Let each call to an MLflow server end within ten seconds, unless the user's environment says otherwise."""
    # MLflow would try for minutes by itself. And it repeats a call whose answer was lost: it would create a run twice.
    for name, value in (("MAX_RETRIES", "0"), ("TIMEOUT", "10")):
        os.environ.setdefault(f"MLFLOW_HTTP_REQUEST_{name}", value)


def _quieten_mlflow() -> None:
    # MLflow reports its use to its makers, prints an address for every run that ends on a server, and a bar for
    # every file that is fetched. All are off unless the user's environment says otherwise; reporting would start
    # with the import.
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    import mlflow  # noqa: F401  # the import sets its loggers' levels, so ours come after it

    # It logs each migration of a new store.
    logging.getLogger("alembic").setLevel(logging.WARNING)
    # It reports each check of a model that is saved.
    logging.getLogger("mlflow.pyfunc").setLevel(logging.WARNING)
    # This logs a traceback for each error that it raises, which its callers report in a line.
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)


def _changes(params: Mapping[str, Any], older: Mapping[str, str]) -> dict[str, str]:
    """A tag for each parameter that a continued study changed: a parameter itself keeps its first value."""
    changed = {}
    for key, value in params.items():
        before, now = older.get(clean_key(key)), cut(value, PARAM_LENGTH)
        if before is not None and before != now:
            changed[f"metarec.changed/{key}"] = f"{before} → {now}"
    return changed
