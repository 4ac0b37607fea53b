"""The interface of a study to its reports. The default reporter writes nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from metarec.ratings import Domain
from metarec.study.results import StudyResult
from metarec.study.spec import StudySpec
from metarec.tracking import StudyRun

__all__ = ["Reporter", "TrialPictures"]


class TrialPictures(NamedTuple):
    """The data of a trial's pictures.

    Attributes:
        curves: name -> a number for each epoch; best_epoch: the kept epoch.
        weights: [R, A] of each base in each row; None for a network without weights. base_names: the A names.
    """

    curves: Mapping[str, Sequence[float]]
    best_epoch: int
    weights: np.ndarray | None
    base_names: Sequence[str]


class Reporter:
    """Writes nothing. :class:`metarec.report.StudyReporter` writes descriptions, pictures and pages.

    It is pickled into worker processes.
    """

    def prepare(self) -> None:
        """Import the libraries of :meth:`report`, in a thread while the bases are fitted."""

    def description(self, spec: StudySpec, domains: Mapping[str, Domain], name: str) -> str:
        """The description of the study's run while the search runs, in Markdown."""
        return ""

    def describe_model(self, result: StudyResult, domains: Mapping[str, Domain]) -> str:
        """The description of the model in the registry, in Markdown."""
        return ""

    def draw_trial(self, pictures: TrialPictures, folder: Path) -> None:
        """Draw the pictures of a trial into the folder of its files."""

    def report(self, run: StudyRun, spec: StudySpec, result: StudyResult, domains: Mapping[str, Domain]) -> None:
        """Write the report of a finished study to the folder of its predictions and to its run."""
