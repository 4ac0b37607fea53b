"""What a study searches, as far as the job has to know: its data, its trials, and its test table."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from optuna.trial import FrozenTrial

from metarec.episodes.settings import Progress
from metarec.ratings import Domain
from metarec.study.engine_check import EngineCheck
from metarec.study.insight import Insight
from metarec.study.recorded_trial import RecordedObjective
from metarec.study.results import DomainResult
from metarec.study.spec import StudySpec
from metarec.study.tracking import StudyRun
from metarec.study.trial_files import FileKeeper

__all__ = ["Keep", "Outcome", "Subject", "Surroundings"]


Keep = Callable[[Path], str]
"""Writes what a study proposes to a folder that is not there yet, as an MLflow model, and returns its digest."""


class Surroundings(NamedTuple):
    """What a subject is given to work with.

    Attributes:
        cache: the folder of what bases predict. networks: the folder of what trials learn, for this study alone.
        jobs: processes that fit bases.
        on_progress: called with (done, of how many, what) after fits. on_stage: called when something else begins.
    """

    cache: Path
    networks: Path
    jobs: int
    on_progress: Progress
    on_stage: Callable[[str], None]


class Outcome(NamedTuple):
    """What came out on test users.

    Attributes:
        test: domain -> the errors of every model, the target first.
        settings: domain -> model -> what it chose; of metarec the weights of its members.
        rows: one for each test query, a column for each model.
        engines: the engines side by side; empty where no engine was compared.
        insight: what there is to know of the target's test users, and of the best network.
        keep: None where nothing is to be kept.
    """

    test: Mapping[str, DomainResult]
    settings: Mapping[str, Mapping[str, Mapping[str, Any]]]
    rows: pd.DataFrame
    engines: list[EngineCheck]
    insight: Insight
    keep: Keep | None = None


class Subject(ABC):
    """What a study searches. Its methods are called once, in their order.

    Making one checks the input, before anything is written; it raises InputError.
    """

    @abstractmethod
    def __init__(self, spec: StudySpec, domains: Mapping[str, Domain], around: Surroundings) -> None: ...

    @abstractmethod
    def prepare(self) -> None:
        """Fit the bases and make the episodes."""

    @abstractmethod
    def objective(self, run: StudyRun, keeper: FileKeeper, processes: Executor | None) -> RecordedObjective:
        """What is minimised, without a test user. What needs nothing of the search is handed to the processes."""

    @abstractmethod
    def score(self, complete: Sequence[FrozenTrial]) -> Outcome:
        """Look at the test users, once, with what these trials propose and with the baselines."""
