"""Remembers what a study or a comparison did: one parent run for it, one child run for each trial or cell.

Importing this package is cheap: MLflow is loaded when an :class:`MlflowTracker` opens its store.
"""

from metarec.tracking._address import check_uri, runs_address, shown_uri, sqlite_uri, ui_command
from metarec.tracking._base import (
    CellRecord,
    ComparisonRun,
    Dataset,
    NullTracker,
    Run,
    StudyRun,
    Tracker,
    TrackingError,
    TrialFacts,
    TrialRun,
)
from metarec.tracking._limits import TAG_LENGTH
from metarec.tracking._mlflow import MlflowTracker, leave_waiting_to_us
from metarec.tracking._notes import Markdown, markdown_code, markdown_table, markdown_text
from metarec.tracking._registry import CHAMPION, champion_uri, model_name

__all__ = [
    "CHAMPION",
    "TAG_LENGTH",
    "CellRecord",
    "ComparisonRun",
    "Dataset",
    "Markdown",
    "MlflowTracker",
    "NullTracker",
    "Run",
    "StudyRun",
    "Tracker",
    "TrackingError",
    "TrialFacts",
    "TrialRun",
    "champion_uri",
    "check_uri",
    "leave_waiting_to_us",
    "markdown_code",
    "markdown_table",
    "markdown_text",
    "model_name",
    "runs_address",
    "shown_uri",
    "sqlite_uri",
    "ui_command",
]
