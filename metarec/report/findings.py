"""The findings of a finished study as plain values. The description and the report are made from them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import optuna
import pandas as pd
import yaml
from optuna.trial import FrozenTrial

from metarec.evaluation.measures import RATING, Measure, measure_of
from metarec.evaluation.metrics import METAREC, Gain
from metarec.evaluation.segments import segment_table
from metarec.ratings import Domain
from metarec.search import error_of
from metarec.study.data import data_of
from metarec.study.results import DomainResult, StudyResult, complete_trials, state_of
from metarec.study.spec import StudySpec
from metarec.tracking import loading_code

__all__ = [
    "Findings",
    "enough_for_importances",
    "fanova",
    "findings_of",
    "importances_of",
    "measure_in",
    "segments_of",
    "study_of",
    "table_of",
]

Findings = dict[str, Any]
"""Values that JSON can hold."""

REPEAT = "python -m metarec.study study.yaml"
"""The command that repeats a study, with the file among its artifacts."""

ENOUGH_TRIALS = 10
"""The fewest complete trials for parameter importances."""


def findings_of(
    spec: StudySpec, result: StudyResult, domains: Mapping[str, Domain], segments: pd.DataFrame
) -> Findings:
    """Everything but the pictures.

    Args:
        segments: from :func:`segments_of`.
    """
    order = sorted(result.test, key=lambda name: name != result.target)
    return {
        "study": result.name,
        "task": result.measure.task,
        "description": spec.description,
        "repeat": REPEAT,
        # A study of transfer keeps no model.
        "use": loading_code(result.name, result.tracking_uri) if spec.transfer is None else None,
        "finished": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        "target": result.target,
        "transfer": None if spec.transfer is None else spec.transfer.model_dump(mode="json"),
        "protocol": spec.protocol,
        "network": str(spec.fusion),
        "engine": spec.engine,
        "spec": yaml.safe_dump(spec.model_dump(mode="json"), sort_keys=False),
        "data": data_of(domains),
        "best": {"number": result.best.number, "value": result.shown(result.best), "params": result.best.params},
        "members": dict(result.members),
        "tables": [table_of(name, result.test[name]) for name in order],
        "bases": result.tuned,
        "strategies": [line._asdict() for line in result.strategies],
        "front": [line._asdict() for line in result.front],
        "engines": [check._asdict() for check in result.engines],
        "importances": importances_of(result.ended, result.measure),
        "cost": _cost(spec, result.ended),
        "segments": segments.to_dict("records"),
    }


def measure_in(findings: Mapping[str, Any]) -> Measure:
    """The measure of a study. Findings without a task are older than other measures."""
    return measure_of(findings.get("task", RATING.task))


def segments_of(spec: StudySpec, result: StudyResult) -> pd.DataFrame:
    """The segments of the target's test users; empty for a study without insight."""
    insight = result.insight
    if insight is None:
        return pd.DataFrame()
    by_user = result.test[result.target].by_user
    return segment_table(by_user, insight.behaviour, insight.user_weights, measure=result.measure, seed=spec.seed)


def study_of(trials: Sequence[FrozenTrial], measure: Measure, *, objectives: int = 1) -> optuna.Study:
    """The complete trials, with their first objectives, as a study in memory for Optuna's analyses."""
    study = optuna.create_study(directions=[measure.direction, "minimize"][:objectives])
    for trial in complete_trials(trials):
        error, *others = trial.values[:objectives]
        values = [measure.shown(error), *others]
        study.add_trial(
            optuna.trial.create_trial(params=trial.params, distributions=trial.distributions, values=values)
        )
    return study


def enough_for_importances(trials: Sequence[FrozenTrial]) -> bool:
    """Whether there are enough complete trials for parameter importances."""
    return len(complete_trials(trials)) >= ENOUGH_TRIALS


def fanova() -> optuna.importance.BaseImportanceEvaluator:
    """The evaluator of parameter importance (Hutter et al. 2014), with a fixed seed."""
    return optuna.importance.FanovaImportanceEvaluator(seed=0)


def importances_of(trials: Sequence[FrozenTrial], measure: Measure) -> dict[str, Any]:
    """Parameter -> share of the error's variance (fANOVA) over complete trials, or the reason why there is none."""
    complete = complete_trials(trials)
    found: dict[str, Any] = {"trials": len(complete), "shares": {}, "reason": ""}
    if not enough_for_importances(trials):
        return {**found, "reason": f"{len(complete)} complete trials are too few; it takes {ENOUGH_TRIALS}"}
    if len({error_of(trial) for trial in complete}) == 1:
        return {**found, "reason": "all trials have the same error"}
    shares = optuna.importance.get_param_importances(study_of(complete, measure), evaluator=fanova())
    return {**found, "shares": {name: float(share) for name, share in shares.items() if math.isfinite(share)}}


def table_of(name: str, outcome: DomainResult) -> dict[str, Any]:
    """The table of one domain as plain values, the best model first."""
    some = outcome.scores[METAREC]
    models = [
        {
            "model": model,
            **{name: row.values[name] for name in outcome.measure.reported},
            "gain": _gain(outcome.gains.get(model)),
        }
        for model, row in outcome.best_first()
    ]
    return {
        "domain": name,
        "scale": outcome.scale,
        "n_users": some.n_users,
        "n_ratings": some.n_ratings,
        "models": models,
        "adds": outcome.adds,
    }


def _gain(gain: Gain | None) -> dict[str, Any] | None:
    return None if gain is None else {**gain._asdict(), "text": str(gain), "verdict": gain.verdict}


def _cost(spec: StudySpec, trials: Sequence[FrozenTrial]) -> dict[str, Any]:
    timed = [trial for trial in trials if trial.datetime_start and trial.datetime_complete]
    seconds = [trial.duration.total_seconds() for trial in timed if trial.duration]
    states = [state_of(trial) for trial in trials]
    began = min((trial.datetime_start for trial in timed if trial.datetime_start), default=None)
    ended = max((trial.datetime_complete for trial in timed if trial.datetime_complete), default=None)
    return {
        "trials": {state: states.count(state) for state in dict.fromkeys(states)},
        "workers": spec.workers,
        "wall_s": (ended - began).total_seconds() if began and ended else math.nan,
        "trial_s": sum(seconds) / len(seconds) if seconds else math.nan,
    }
