"""The runs of the trials of bases."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from optuna.trial import FrozenTrial, TrialState

from metarec.evaluation.measures import Measure
from metarec.files import content_key
from metarec.search import REASON
from metarec.study.results import TunedBase, trial_metrics
from metarec.tracking import CellRecord

__all__ = ["base_cells"]


def base_cells(tuned: Mapping[str, TunedBase], measure: Measure) -> Iterator[CellRecord]:
    """The child run of each trial: its settings, and the metric that trials of the fusion have too."""
    for name, own in tuned.items():
        for trial in own.trials:
            yield _cell(name, trial, measure)


def _cell(base: str, trial: FrozenTrial, measure: Measure) -> CellRecord:
    metrics = trial_metrics(measure, trial.values) if trial.state == TrialState.COMPLETE else {}
    scores = [f"{value:.4f}" for value in metrics.values()]
    name = f"{base}-{trial.number:03d}"
    return CellRecord(
        content_key({"base": base, "trial": trial.number}),
        " · ".join([*scores, name]) if scores else f"{name} · failed",
        {"base": base, **trial.params},
        metrics,
        0.0 if trial.datetime_start is None else trial.datetime_start.timestamp(),
        0.0 if trial.duration is None else trial.duration.total_seconds(),
        {},
        trial.user_attrs.get(REASON),
    )
