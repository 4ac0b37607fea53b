"""Remembers what a study or a comparison did: one parent run for it, one child run for each trial or cell.

Importing this package is cheap: MLflow is loaded when an :class:`MlflowTracker` opens its store.
"""

from metarec.study.tracking._address import check_uri, runs_address, shown_uri, sqlite_uri, ui_command
from metarec.study.tracking._base import (
    CellRecord,
    ComparisonRun,
    Dataset,
    Run,
    StudyRun,
    Tracker,
    TrackingError,
    TrialFacts,
    TrialRun,
)
from metarec.study.tracking._limits import TAG_LENGTH
from metarec.study.tracking._mlflow import MlflowTracker
from metarec.study.tracking._notes import markdown_table
from metarec.study.tracking._null import NullTracker
from metarec.study.tracking._registry import CHAMPION

__all__ = [
    "CHAMPION",
    "TAG_LENGTH",
    "CellRecord",
    "ComparisonRun",
    "Dataset",
    "MlflowTracker",
    "NullTracker",
    "Run",
    "StudyRun",
    "Tracker",
    "TrackingError",
    "TrialFacts",
    "TrialRun",
    "check_uri",
    "markdown_table",
    "runs_address",
    "shown_uri",
    "sqlite_uri",
    "ui_command",
]
