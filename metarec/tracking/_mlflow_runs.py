"""How runs in MLflow are named, tagged, found and written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from metarec.tracking._base import State, TrackingError
from metarec.tracking._limits import PARAM_LENGTH, RUN_NAME_LENGTH, TAG_LENGTH, batches, clean_key, cut, first_line

if TYPE_CHECKING:
    from mlflow import MlflowClient

__all__ = ["STATUS", "Parent", "Point", "Tag", "final_name", "found_runs", "reaching", "trial_name", "write"]

Point = tuple[str, float, int, int]
"""A metric's name and value, its time in milliseconds since 1970, and its step."""

STATUS: dict[State, str] = {
    "complete": "FINISHED",
    "pruned": "KILLED",
    "interrupted": "KILLED",
    "failed": "FAILED",
}


ENDING_LENGTH = 50
"""Room in the name of a trial's run for what :func:`final_name` adds."""


class Tag:
    """The tags by which runs are found."""

    NAME = "mlflow.runName"
    NOTE = "mlflow.note.content"
    PARENT = "mlflow.parentRunId"
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
    """What a trial's run of this name is called at its end.

    Metric columns are out of sight in the table of runs, so the name says what came out.

    >>> final_name("trial-003", "pruned", None), final_name("trial-004 gated/batched", "complete", 0.91234)
    ('trial-003 · pruned', 'trial-004 gated/batched · 0.9123')
    """
    result = f"{value:.4f}" if value is not None else ""
    ending = "" if state == "complete" else state
    return " · ".join(part for part in (name, result, ending) if part)


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


def found_runs(client: MlflowClient, experiment_id: str, query: str) -> Iterator[Any]:
    """All runs that a query finds, page by page."""
    token = None
    while True:
        page = client.search_runs([experiment_id], query, page_token=token)
        yield from page
        token = page.token
        if not token:
            return


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


class Parent(NamedTuple):
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

    @property
    def cell_role(self) -> str:
        """The role of the child runs of its cells; in a study these are trials of bases' settings."""
        return "base-trial" if self.role == "study" else "cell"

    def child_role(self, key: int | str) -> str:
        """The role of the child run of a trial's number or a cell's key."""
        return "trial" if isinstance(key, int) else self.cell_role

    def child_tags(self, key: int | str) -> dict[str, str]:
        """The tags that identify the child run of a trial's number or a cell's key."""
        role = self.child_role(key)
        own = {Tag.PARENT: self.run_id, Tag.STUDY: self.name, Tag.ROLE: role, Tag.SOURCE: "metarec"}
        return {**own, f"metarec.{role}": str(key)}

    def trials(self) -> list[Any]:
        """The runs of all trials of a study, whatever their state."""
        return self._runs("trial")

    def cells(self) -> list[Any]:
        """The runs of all cells, whatever their state."""
        return self._runs(self.cell_role)

    def children(self, key: int | str) -> list[Any]:
        """The child runs of a trial's number or a cell's key, whatever their state."""
        role = self.child_role(key)
        return self._runs(role, f" and tags.`metarec.{role}` = '{key}'")

    def _runs(self, role: str, more: str = "") -> list[Any]:
        query = f"tags.`{Tag.PARENT}` = '{self.run_id}' and tags.`{Tag.ROLE}` = '{role}'{more}"
        return list(found_runs(self.client, self.experiment_id, query))
