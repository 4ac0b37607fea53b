"""How runs in MLflow are named, tagged, found and written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

from metarec.tracking._base import TrackingError
from metarec.tracking._facts import State
from metarec.tracking._limits import PARAM_LENGTH, RUN_NAME_LENGTH, TAG_LENGTH, batches, clean_key, cut, first_line

if TYPE_CHECKING:
    from mlflow import MlflowClient

__all__ = [
    "ROW",
    "STATUS",
    "Parent",
    "Point",
    "Tag",
    "content_of",
    "details_name",
    "final_name",
    "found_runs",
    "reaching",
    "trial_name",
    "write",
]

Point = tuple[str, float, int, int]
"""A metric's name and value, its time in milliseconds since 1970, and its step."""

STATUS: dict[State, str] = {
    "complete": "FINISHED",
    "pruned": "KILLED",
    "interrupted": "KILLED",
    "failed": "FAILED",
}


ROW = "row."
"""How the key of a row begins. Those of cells are hexadecimal."""

ENDING_LENGTH = 50
"""Room in the name of a run for what :func:`final_name` adds."""


class Tag:
    """The tags by which runs are found."""

    NAME = "mlflow.runName"
    NOTE = "mlflow.note.content"
    PARENT = "mlflow.parentRunId"
    OF = "metarec.parent"
    SOURCE = "mlflow.source.name"
    STUDY = "metarec.study"
    ROLE = "metarec.role"
    TRIAL = "metarec.trial"
    STATE = "state"
    REASON = "metarec.reason"


def trial_name(number: int, label: str = "") -> str:
    """What a trial's run is called, wherever it is made: names sort as trials do.

    >>> trial_name(17, "attention/batched product"), trial_name(3)
    ('trial-017 attention/batched product', 'trial-003')
    """
    return cut(f"trial-{number:03d} {label}".rstrip(), RUN_NAME_LENGTH - ENDING_LENGTH)


def final_name(name: str, state: State, value: float | None) -> str:
    """What a run of this name is called at its end: the score comes first, as columns of metrics are out of sight.

    >>> final_name("trial-003", "pruned", None), final_name("trial-004 gated/batched", "complete", 0.91234)
    ('trial-003 · pruned', '0.9123 · trial-004 gated/batched')
    """
    result = f"{value:.4f}" if value is not None else ""
    ending = "" if state == "complete" else state
    return " · ".join(part for part in (result, name, ending) if part)


def details_name(experiment: str) -> str:
    """The name of the experiment with the cells of another one.

    >>> details_name("metarec")
    'metarec-details'
    """
    return f"{experiment}-details"


@contextmanager
def reaching(store: str, doing: str) -> Iterator[None]:
    """Turn what MLflow and its transports raise into one error that says what was being done, and where."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (MlflowException, SQLAlchemyError, OSError) as error:
        # The errors of the libraries name the whole address, so they are not shown above this one.
        raise TrackingError(doing, store, first_line(error)) from None


def found_runs(client: MlflowClient, experiment_id: str, query: str, *, deleted: bool = False) -> Iterator[Any]:
    """All runs that a query finds, page by page: those that are there, or those that were deleted."""
    from mlflow.entities import ViewType

    kind = ViewType.DELETED_ONLY if deleted else ViewType.ACTIVE_ONLY
    token = None
    while True:
        page = client.search_runs([experiment_id], query, kind, page_token=token)
        yield from page
        token = page.token
        if not token:
            return


def content_of(run: Any) -> tuple[bool, int, int]:
    """The order of runs of one child; the last one has the most in it."""
    return run.info.status == "FINISHED", len(run.data.metrics), -run.info.start_time


def write(
    client: MlflowClient,
    run_id: str,
    metrics: Sequence[Point] = (),
    params: Mapping[str, Any] = MappingProxyType({}),
    tags: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Write to a run in as few calls as possible: each costs a transaction."""
    from mlflow.entities import Metric, Param, RunTag

    points = [Metric(clean_key(name), value, moment, step) for name, value, moment, step in metrics]
    columns = [Param(clean_key(key), cut(value, PARAM_LENGTH)) for key, value in params.items()]
    labels = [RunTag(clean_key(key), cut(value, TAG_LENGTH)) for key, value in tags.items()]
    for batch in batches(points, columns, labels):
        client.log_batch(run_id, *batch)


@dataclass(frozen=True)
class Parent:
    """The run of a study or a comparison, and how it is reached.

    Attributes:
        store: the address as it is shown in messages.
    """

    client: MlflowClient
    store: str
    role: Literal["study", "comparison"]
    name: str
    run_id: str
    experiment_id: str
    _known: dict[str, str] = field(default_factory=dict, repr=False, compare=False)

    @property
    def cell_role(self) -> str:
        """The role of the child runs of its cells; in a study these are trials of bases' settings."""
        return "base-trial" if self.role == "study" else "cell"

    def child_role(self, key: int | str) -> str:
        """The role of the child run of a trial's number, or of the key of a cell or a row."""
        if isinstance(key, int):
            return "trial"
        return "row" if key.startswith(ROW) else self.cell_role

    def child_tags(self, key: int | str) -> dict[str, str]:
        """The tags that identify the child run of a trial's number, or of the key of a cell or a row."""
        role = self.child_role(key)
        own = {Tag.PARENT: self.run_id, Tag.OF: self.run_id, Tag.STUDY: self.name, Tag.ROLE: role}
        own[Tag.SOURCE] = "metarec"
        return {**own, f"metarec.{role}": str(key)}

    def place_of(self, key: int | str) -> str:
        """The experiment of the child run of a trial's number, or of the key of a cell or a row.

        Cells have one of their own, which is made here if it is missing.
        """
        if self.child_role(key) != self.cell_role:
            return self.experiment_id
        return self._details() or self._make_details()

    def _details(self) -> str | None:
        """The experiment of the cells, which is looked for until it is there; None if there is none."""
        if "details" not in self._known:
            found = self.client.get_experiment_by_name(details_name(self._experiment.name))
            if found is None:
                return None
            self._known["details"] = str(found.experiment_id)
        return self._known["details"]

    def _make_details(self) -> str:
        from mlflow.exceptions import MlflowException

        # Files lie in folders by run, so the two experiments can share a place.
        own = self._experiment
        try:
            made = self.client.create_experiment(details_name(own.name), own.artifact_location)
            return self._known.setdefault("details", str(made))
        except MlflowException as error:
            # Another process has been faster.
            found = self._details()
            if error.error_code != "RESOURCE_ALREADY_EXISTS" or found is None:
                raise
            return found

    @property
    def _experiment(self) -> Any:
        return self.client.get_experiment(self.experiment_id)

    @property
    def child_roles(self) -> tuple[str, ...]:
        """The roles that child runs may have."""
        return ("trial", "row", self.cell_role)

    def trials(self) -> list[Any]:
        """The runs of all trials of a study, whatever their state."""
        return self.runs_of("trial")

    def cells(self) -> list[Any]:
        """The runs of all cells, whatever their state."""
        return self.runs_of(self.cell_role)

    def children(self, key: int | str) -> list[Any]:
        """The child runs of a trial's number, or of the key of a cell or a row, whatever their state."""
        role = self.child_role(key)
        return self.runs_of(role, f" and tags.`metarec.{role}` = '{key}'")

    def runs_of(self, role: str, more: str = "", *, deleted: bool = False) -> list[Any]:
        """The child runs of a role that the rest of a query finds; instead of them, those that were deleted."""
        same = f"= '{self.run_id}' and tags.`{Tag.ROLE}` = '{role}'{more}"
        # In earlier versions cells were there, too.
        found = list(found_runs(self.client, self.experiment_id, f"tags.`{Tag.PARENT}` {same}", deleted=deleted))
        if role == self.cell_role and (details := self._details()) is not None:
            # The parent of a cell may be a row.
            found += found_runs(self.client, details, f"tags.`{Tag.OF}` {same}", deleted=deleted)
        return found
