"""Remembers what a study did: one parent run for the study, one child run for each trial.

Importing this package is cheap: MLflow is loaded when an :class:`MlflowTracker` opens its store.
"""

from metarec.study.tracking._address import check_uri, runs_address, shown_uri, sqlite_uri, ui_command
from metarec.study.tracking._base import Run, StudyRun, Tracker, TrackingError, TrialRun
from metarec.study.tracking._mlflow import MlflowTracker
from metarec.study.tracking._notes import markdown_table
from metarec.study.tracking._null import NullTracker

__all__ = [
    "MlflowTracker",
    "NullTracker",
    "Run",
    "StudyRun",
    "Tracker",
    "TrackingError",
    "TrialRun",
    "check_uri",
    "markdown_table",
    "runs_address",
    "shown_uri",
    "sqlite_uri",
    "ui_command",
]
