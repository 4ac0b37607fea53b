"""Makes the runs of a study agree with its trials in Optuna."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import Any

from metarec.tracking._facts import TrialFacts
from metarec.tracking._limits import clean_key
from metarec.tracking._mlflow_runs import STATUS, Parent, Tag, content_of, final_name, trial_name, write

__all__ = ["reconciled"]

SETTLED_MS = 60_000
"""How long after its end a trial's run may still be on its way from another machine; so long none is made for it."""


def reconciled(study: Parent, trials: Iterable[TrialFacts]) -> list[str]:
    """Mend what differs; returns a line for each change, none if it is called again.

    Args:
        trials: Optuna's facts on every trial that was begun.
    """
    facts = {trial.number: trial for trial in trials}
    runs: dict[int | None, list[Any]] = {}
    for run in study.trials():
        number = run.data.tags.get(Tag.TRIAL)
        runs.setdefault(None if number is None else int(number), []).append(run)
    done: list[str] = []
    for number, own in runs.items():
        trial = facts.get(number) if number is not None else None
        if trial is None:
            done += _end_unknown(study, own)
            continue
        if trial.state == "running":
            # Its process may be writing to any of them.
            continue
        run, *others = sorted(own, key=content_of, reverse=True)
        for other in others:
            study.client.delete_run(other.info.run_id)
            done.append(f"trial {trial.number} had a second run: deleted")
        done += _mend(study, run, trial)
    for number, trial in facts.items():
        if number not in runs and trial.state not in ("running", "interrupted"):
            done += _make(study, trial)
    return done


def _end_unknown(study: Parent, unknown: list[Any]) -> Iterator[str]:
    for run in unknown:
        if run.info.status == "RUNNING":
            study.client.set_tag(run.info.run_id, Tag.STATE, "interrupted")
            study.client.set_terminated(run.info.run_id, STATUS["interrupted"])
            yield f"run {run.info.run_name} of an unknown trial was left open: ended as interrupted"


def _mend(study: Parent, run: Any, trial: TrialFacts) -> Iterator[str]:
    """The run of a trial that is over says so, and has its value."""
    assert trial.state != "running"
    allowed = {STATUS[trial.state]} | ({"FAILED"} if trial.state == "interrupted" else set())
    missing = not {clean_key(name) for name in trial.metrics} <= run.data.metrics.keys()
    if run.info.status in allowed and not missing:
        return
    _end(study, run.info.run_id, trial, with_numbers=missing)
    was = "left open" if run.info.status == "RUNNING" else f"{run.info.status}"
    yield f"run of trial {trial.number} was {was}: ended as {trial.state}"


def _make(study: Parent, trial: TrialFacts) -> Iterator[str]:
    """A trial that counts has a run."""
    if trial.ended is None or time.time() * 1000 - trial.ended < SETTLED_MS:
        return
    created = study.client.create_run(
        study.experiment_id,
        start_time=trial.began,
        tags={**trial.tags, **study.child_tags(trial.number), "metarec.repaired": "true"},
        run_name=trial_name(trial.number, trial.label),
    )
    _end(study, created.info.run_id, trial, with_numbers=True)
    yield f"trial {trial.number} had no run: made from what Optuna knows"


def _end(study: Parent, run_id: str, trial: TrialFacts, *, with_numbers: bool) -> None:
    assert trial.state != "running"
    if with_numbers:
        at = trial.ended or int(time.time() * 1000)
        points = [(trial.curve_metric, value, at, step) for step, value in trial.curve.items()]
        points += [(name, value, at, 0) for name, value in trial.metrics.items()]
        write(study.client, run_id, points, trial.params)
    study.client.set_tag(run_id, Tag.STATE, trial.state)
    if trial.reason is not None:
        study.client.set_tag(run_id, Tag.REASON, trial.reason)
    study.client.update_run(run_id, name=final_name(trial_name(trial.number, trial.label), trial.state, trial.value))
    study.client.set_terminated(run_id, STATUS[trial.state], end_time=trial.ended)
