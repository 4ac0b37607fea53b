"""The stages of a study as values: checked input, prepared episodes, a finished search, and its test results."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from optuna.trial import FrozenTrial

from metarec.episodes import Progress
from metarec.evaluation.engine_check import EngineCheck
from metarec.evaluation.insight import Insight
from metarec.study.records import FileKeeper, RecordedObjective
from metarec.study.results import DomainResult
from metarec.tracking import StudyRun

__all__ = ["Keep", "Outcome", "Prepared", "RunTrials", "Searched", "StudyInput", "Workspace", "member_name"]

Keep = Callable[[Path], str]
"""Writes the proposed model to a folder that does not exist yet, as an MLflow model, and returns its digest."""

RunTrials = Callable[[RecordedObjective], Sequence[FrozenTrial]]
"""Runs the trials of a search, and returns those that are complete; at least one."""


class Workspace(NamedTuple):
    """Where a study works.

    Attributes:
        cache: the folder of the bases' predictions. networks: the folder of the trials' networks, for this study alone.
        jobs: processes that fit bases.
        on_progress: called with (done, of how many, what) after fits. on_stage: called when another stage begins.
    """

    cache: Path
    networks: Path
    jobs: int = 1
    on_progress: Progress = lambda done, total, what: None
    on_stage: Callable[[str], None] = lambda what: None


class Outcome(NamedTuple):
    """The results on test users.

    Attributes:
        test: domain -> the errors of every model, the target first.
        settings: domain -> model -> its settings that validation users chose; for metarec the weights of its members.
        rows: one for each test query, a column for each model.
        engines: the engines side by side; empty where no engine was compared.
        insight: about the target's test users and the best network.
        keep: None where no model is kept.
    """

    test: Mapping[str, DomainResult]
    settings: Mapping[str, Mapping[str, Mapping[str, Any]]]
    rows: pd.DataFrame
    engines: list[EngineCheck]
    insight: Insight
    keep: Keep | None = None


class Searched(ABC):
    """A finished search. Nothing of it can change any more, so that the test users may be looked at."""

    @abstractmethod
    def score(self) -> Outcome:
        """Score the proposed model and the baselines on the test users."""


class Prepared(ABC):
    """Fitted bases and episodes."""

    @abstractmethod
    def objective(self, run: StudyRun | None, keeper: FileKeeper) -> RecordedObjective:
        """The function that the search minimises. No test user is in it."""

    @abstractmethod
    def search(
        self, run_trials: RunTrials, *, run: StudyRun | None, keeper: FileKeeper, processes: Executor | None = None
    ) -> Searched:
        """Run the trials.

        Args:
            run: the record of the study. keeper: of the trials' files.
            processes: they fit the baselines meanwhile, which need nothing of the search.
        """


class StudyInput(ABC):
    """A spec and its domains, checked before anything is written. Making one raises InputError."""

    @abstractmethod
    def prepare(self) -> Prepared:
        """Fit the bases and make the episodes."""


def member_name(trial: FrozenTrial) -> str:
    """The name of a trial among the members of a fusion."""
    return f"trial {trial.number}"
