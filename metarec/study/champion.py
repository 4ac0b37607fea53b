"""The model of a study in its record, and in the registry."""

from __future__ import annotations

import shutil

from metarec.model.mlflow_model import DIGEST
from metarec.study.subject import Keep
from metarec.study.tracking import CHAMPION, StudyRun

__all__ = ["MODEL", "champion_uri", "keep_model", "model_name"]

MODEL = "model"
"""The folder of the model among the artifacts of a study's run."""


def model_name(study: str) -> str:
    """What the model of a study is called in the registry, where names have no colons."""
    return f"metarec-{study.replace(':', '-')}"


def champion_uri(study: str) -> str:
    """By which the latest model of a study is loaded."""
    return f"models:/{model_name(study)}@{CHAMPION}"


def keep_model(run: StudyRun, study: str, keep: Keep) -> None:
    """Keep what a study proposes as the artifact ``model``, and register it as the champion of its name."""
    with run.artifacts() as folder:
        digest = keep(folder / MODEL)
        # What it was made from lies beside it.
        for other in folder.iterdir():
            if other.name != MODEL:
                shutil.rmtree(other)
    run.register(MODEL, model_name(study), {DIGEST: digest, "study": study})
