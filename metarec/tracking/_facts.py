"""What a tracker is given to record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

__all__ = ["CellRecord", "Dataset", "Row", "State", "TrialFacts", "View"]

State = Literal["complete", "pruned", "interrupted", "failed"]


class TrialFacts(NamedTuple):
    """The facts on a trial that was begun.

    Attributes:
        metrics: its scores, the most important first; none where it has no value.
        curve: step -> value of the metric `curve_metric`.
        began, ended: in milliseconds since 1970.
        label, tags: as in :meth:`StudyRun.start_trial`.
    """

    number: int
    state: State | Literal["running"]
    params: Mapping[str, Any]
    metrics: Mapping[str, float]
    reason: str | None
    curve_metric: str
    curve: Mapping[int, float]
    began: int | None
    ended: int | None
    label: str = ""
    tags: Mapping[str, str] = MappingProxyType({})

    @property
    def value(self) -> float | None:
        """The most important of its metrics."""
        return next(iter(self.metrics.values()), None)


class Dataset(NamedTuple):
    """A table of a study's data.

    Attributes:
        digest: a hash of its content. source: where it came from.
        profile: facts such as counts, as JSON values.
    """

    name: str
    digest: str
    source: str
    profile: Mapping[str, Any]


class CellRecord(NamedTuple):
    """One finished cell: of a comparison, or a trial of a base's settings in a study.

    Cells are many. Their runs are in an experiment of their own, where they hide no study.

    Attributes:
        key: identifies it when the study or comparison goes on. label: the name of its run.
        began: when its work began, in seconds since 1970. seconds: how long that took.
        files: name -> text of each file that is kept with it.
        reason: why it failed; None for a cell that has its metrics.
        row: the key of the row that it belongs to, where it has one.
    """

    key: str
    label: str
    params: Mapping[str, Any]
    metrics: Mapping[str, float]
    began: float
    seconds: float
    files: Mapping[str, str]
    reason: str | None = None
    row: str | None = None


class Row(NamedTuple):
    """A row of the table of a study or a comparison, which is a run of its own.

    All rows of a table have metrics of the same names, so that MLflow's charts compare them.

    Attributes:
        key: identifies it in its study or comparison. label: what follows the score in the name of its run.
        params: what never changes. tags: what may, where the study or comparison goes on.
    """

    key: str
    label: str
    params: Mapping[str, Any]
    tags: Mapping[str, str] = MappingProxyType({})


class View(NamedTuple):
    """How MLflow's table of runs shows the child runs of one kind.

    Attributes:
        metric: orders the runs. ascending: whether the smallest value is the first one.
        metrics, params, tags: the columns. where: tags that the shown runs have.
    """

    kind: Literal["row", "trial"]
    metric: str
    ascending: bool
    metrics: Sequence[str]
    params: Sequence[str] = ()
    tags: Sequence[str] = ()
    where: Mapping[str, str] = MappingProxyType({})
