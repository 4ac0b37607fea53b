"""What a study records in MLflow: its trials with their files, and its table."""

from metarec.study.records._files import FileKeeper, Files
from metarec.study.records._table import record_table
from metarec.study.records._trial import (
    CURVES,
    EXPERIMENT_ID,
    RecordedObjective,
    TrialResult,
    facts_of,
    study_tags,
    trial_label,
    trial_tags,
)

__all__ = [
    "CURVES",
    "EXPERIMENT_ID",
    "FileKeeper",
    "Files",
    "RecordedObjective",
    "TrialResult",
    "facts_of",
    "record_table",
    "study_tags",
    "trial_label",
    "trial_tags",
]
