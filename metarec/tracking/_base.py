"""What studies and comparisons record. The classes here record nothing; those of a store override their methods."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any, Self

from metarec.errors import InputError, masked, shown
from metarec.tracking._facts import CellRecord, Dataset, Row, State, TrialFacts, View

__all__ = [
    "ComparisonRun",
    "NullTracker",
    "ParentRun",
    "Run",
    "StudyRun",
    "Tracker",
    "TrackingError",
    "TrialRun",
    "check_same",
]


class TrackingError(RuntimeError):
    """The store of the runs failed; the message says which store and why.

    Args:
        doing: what failed. store: its address as it may be shown. reason: one line.
    """

    def __init__(self, doing: str, store: str, reason: str) -> None:
        super().__init__(doing, store, reason)
        self.reason = reason

    def __str__(self) -> str:
        doing, store, reason = self.args
        return (
            f"could not {doing} in {store}: {reason}. What was computed so far is kept beside it: "
            "mend the store and run the same command again with the same name"
        )


class Run:
    """One run that is being recorded.

    In ``with`` it never stays open: an exception ends it as failed and Ctrl-C as interrupted, both with the reason;
    otherwise it is complete, unless :meth:`finish` was called before.

    Attributes:
        run_id: the store's id of this run; None where nothing is recorded.
        finished: whether :meth:`finish` was called.
    """

    run_id: str | None = None
    finished: bool = False

    def log_metrics(self, metrics: Mapping[str, float], *, step: int = 0) -> None:
        """Record numbers, by name. NaN and infinity are allowed."""

    def tag(self, name: str, text: str) -> None:
        """Record a text under a name, in place of an earlier one."""

    def describe(self, markdown: str) -> None:
        """Replace the run's description, which stands at the top of its page."""

    def finish(self, state: State, *, reason: str | None = None, value: float | None = None) -> None:
        """End the run.

        Args:
            state: how it ended.
            reason: in one line why, for every state but ``"complete"``.
            value: the one number that the run is judged by, if it got one.
        """
        self.finished = True

    def fail(self, error: BaseException) -> None:
        """End the run as failed, with the error as the reason."""
        self.finish("failed", reason=masked(f"{type(error).__name__}: {error}"))

    @contextmanager
    def artifacts(self) -> Iterator[Path]:
        """A temporary folder whose files are kept with the run when the block ends well, in one upload."""
        with TemporaryDirectory(prefix="metarec-artifacts-") as folder:
            yield Path(folder)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.finished:
            return
        if error is None:
            self.finish("complete")
        elif isinstance(error, KeyboardInterrupt):
            self.finish("interrupted", reason="interrupted")
        else:
            self.fail(error)


class TrialRun(Run):
    """The record of one trial."""

    def log_epoch(self, epoch: int, metrics: Mapping[str, float]) -> None:
        """Record one point of each curve; final numbers go to :meth:`log_metrics`, by names of their own."""

    def persist(self) -> None:
        """Make sure that the records so far survive this process and an absence of the store."""


class ParentRun(Run):
    """The record of a study or a comparison, which has child runs.

    It and its children neither wait for the store nor fail with it: what the store does not take now it gets later.
    In ``with`` it is closed at the end.

    Attributes:
        experiment_id: the store's id of the experiment; None where nothing is recorded.
    """

    experiment_id: str | None = None

    def flush(self, timeout: float) -> int:
        """Wait until the store has every record, at most so many seconds; how many records still wait."""
        return 0

    def close(self) -> None:
        """Wait a while until the store has every record, and let go of it."""

    def recorded_cells(self) -> set[str]:
        """The keys of the cells that are recorded, by this session or an earlier one."""
        return set()

    def record_cell(self, cell: CellRecord) -> None:
        """Record a cell. One that was left half recorded gets the rest."""

    def start_row(self, row: Row) -> Run:
        """Begin the record of a row of the table, or continue it where there is one of its key."""
        return Run()

    def show(self, view: View) -> None:
        """Let the page of a view show the child runs of its kind in this way; see :func:`runs_address`."""


class StudyRun(ParentRun):
    """The record of one study, and where its trials begin."""

    def start_trial(
        self, number: int, params: Mapping[str, Any], *, label: str = "", tags: Mapping[str, str] | None = None
    ) -> TrialRun:
        """Begin the record of trial `number` with these parameters.

        Args:
            label: what follows the number in the name of its run.
        """
        return TrialRun()

    def record_trial(self, trial: TrialFacts) -> None:
        """Record a trial that is over, with its times. One that was left half recorded gets the rest."""

    def is_shared(self) -> bool:
        """Whether another process of this folder records the study."""
        return False

    def log_datasets(self, datasets: Sequence[Dataset]) -> None:
        """Record which data the study was given."""

    def register(self, path: str, name: str, tags: Mapping[str, str], about: str = "") -> None:
        """Register the model in the folder `path` of the run's artifacts, as the latest version and the champion.

        Args:
            name: of the registered model. tags: of the version. about: its description, in Markdown.
        """

    def run_ids(self) -> dict[int, str]:
        """Trial -> id of its run, for those in the store; none if the store does not answer."""
        return {}

    def reconcile(self, trials: Iterable[TrialFacts]) -> list[str]:
        """Send the records of dead processes, then make the runs agree with the trials.

        Returns:
            A line for each change; none where all was right, or where the store does not answer.
        """
        return []

    def end_if_abandoned(self) -> list[str]:
        """End the study's own run as interrupted, if it is open and no process of this folder records the study.

        Returns:
            A line if it did.
        """
        return []


class ComparisonRun(ParentRun):
    """The record of one comparison and of its cells."""


def check_same(name: str, before: Mapping[str, str], now: Mapping[str, str]) -> None:
    """Raises :class:`InputError` for a comparison that would go on with other data or another value of a parameter.

    A parameter that only one of them has is of another version, but a domain is not.
    """
    for key in {**before, **now}:
        both = key in before and key in now
        if before.get(key) != now.get(key) and (both or key.startswith("domains.")):
            was, is_now = (shown(values.get(key, "not there")) for values in (before, now))
            raise InputError(
                f'comparison "{name}" has other data or settings: {key} was {was} and is {is_now} now; give this one '
                "another --name"
            )


class Tracker:
    """Where studies and comparisons are remembered.

    Attributes:
        tracking_uri: of its store; None where it has none.
    """

    tracking_uri: str | None = None

    def open(self) -> None:
        """Reach the store, which takes seconds where it is new. Starting a run does it, unless it was done before."""

    def start_study(
        self,
        name: str,
        *,
        params: Mapping[str, Any],
        tags: Mapping[str, str] | None = None,
        description: str = "",
        run_id: str | None = None,
    ) -> StudyRun:
        """Begin the record of the study `name`, or continue it where one of this name exists.

        Args:
            run_id: of the run that the study had when it was recorded last. If it was deleted, it is restored.
        """
        return StudyRun()

    def join_study(self, name: str, run_id: str | None, experiment_id: str | None) -> StudyRun:
        """The study that another process has started, for a worker that adds trials but must not end it.

        A server need not answer now.

        Args:
            run_id, experiment_id: of the run that was started.
        """
        return StudyRun()

    def fetch(self, run_id: str, file: str, folder: Path) -> bool:
        """Copy a file that is kept with a run into `folder`; whether there is one.

        Raises:
            InputError: the store cannot be used.
        """
        return False

    def start_comparison(
        self, name: str, *, params: Mapping[str, Any], fixed: Mapping[str, Any] | None = None, description: str = ""
    ) -> ComparisonRun:
        """Begin the record of the comparison `name`, or continue it where one of this name exists.

        Args:
            fixed: the parameters that must not differ where it goes on.

        Raises:
            InputError: one of them differs.
        """
        return ComparisonRun()


class NullTracker(Tracker):
    """Records nothing: the default, so that the library runs without MLflow.

    >>> with NullTracker().start_study("quickstart", params={}) as study, study.start_trial(0, {}) as trial:
    ...     trial.log_epoch(0, {"val_rmse": 0.2})
    >>> trial.finished, trial.run_id
    (True, None)
    """
