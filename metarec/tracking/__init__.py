"""Remembers what a study or a comparison did: one parent run for it, one child run for each trial or cell.

Importing this package is cheap: MLflow is loaded when an :class:`MlflowTracker` opens its store.
"""

from metarec.stores import sqlite_uri
from metarec.tracking._address import check_uri, runs_address, shown_uri, ui_command
from metarec.tracking._base import (
    ComparisonRun,
    NullTracker,
    ParentRun,
    Run,
    StudyRun,
    Tracker,
    TrackingError,
    TrialRun,
    check_same,
)
from metarec.tracking._facts import CellRecord, Dataset, Row, TrialFacts, View
from metarec.tracking._limits import TAG_LENGTH
from metarec.tracking._mlflow import MlflowTracker, leave_waiting_to_us
from metarec.tracking._notes import Markdown, markdown_code, markdown_table, markdown_text
from metarec.tracking._optuna import TrackedStudy, track
from metarec.tracking._registry import CHAMPION, champion_uri, loading_code, model_name

__all__ = [
    "CHAMPION",
    "TAG_LENGTH",
    "CellRecord",
    "ComparisonRun",
    "Dataset",
    "Markdown",
    "MlflowTracker",
    "NullTracker",
    "ParentRun",
    "Row",
    "Run",
    "StudyRun",
    "TrackedStudy",
    "Tracker",
    "TrackingError",
    "TrialFacts",
    "TrialRun",
    "View",
    "champion_uri",
    "check_same",
    "check_uri",
    "leave_waiting_to_us",
    "loading_code",
    "markdown_code",
    "markdown_table",
    "markdown_text",
    "model_name",
    "runs_address",
    "shown_uri",
    "sqlite_uri",
    "track",
    "ui_command",
]
