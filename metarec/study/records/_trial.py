"""A recorded trial: its parameters, its evaluation, its result, and the name and tags of its run."""

from __future__ import annotations

import copy
import math
from abc import abstractmethod
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, NamedTuple, Self

import optuna
from optuna.trial import FrozenTrial, TrialState

from metarec.evaluation.latency import seconds_per_prediction
from metarec.evaluation.measures import RATING
from metarec.meta import NonFiniteLossError
from metarec.search import NETWORK, REASON, Objective, SearchSettings, error_of, suggest_parameters
from metarec.search.pruning import reports_epochs
from metarec.search.trials import SPEC
from metarec.study.records._files import FileKeeper, Files
from metarec.study.results import RUN_ID, trial_metrics
from metarec.study.spec import StudySpec, stored_spec
from metarec.study.transfer_spec import STRATEGY
from metarec.tracking import StudyRun, TrialFacts, TrialRun

__all__ = [
    "CURVES",
    "EXPERIMENT_ID",
    "RecordedObjective",
    "TrialResult",
    "facts_of",
    "study_tags",
    "trial_label",
    "trial_tags",
]

EXPERIMENT_ID = "experiment_id"
"""An attribute of a study: the experiment of its run."""

CURVES = "curves"
"""An attribute of a trial: name -> a number for each epoch. Every process can read Optuna's storage."""


def facts_of(study: optuna.Study) -> list[TrialFacts]:
    """The state of every begun trial in Optuna, to compare with the runs."""
    by_epoch = reports_epochs(study.pruner)
    content = study.user_attrs.get(SPEC)
    spec = None if content is None else stored_spec(content, study.study_name)
    begun = [trial for trial in study.get_trials(deepcopy=False) if trial.state != TrialState.WAITING]
    return [_facts(trial, trial.intermediate_values if by_epoch else {}, spec) for trial in begun]


def _facts(trial: FrozenTrial, curve: Mapping[int, float], spec: StudySpec | None) -> TrialFacts:
    states: dict[TrialState, Any] = {
        TrialState.COMPLETE: "complete",
        TrialState.PRUNED: "pruned",
        TrialState.FAIL: "failed" if REASON in trial.user_attrs else "interrupted",
        TrialState.RUNNING: "running",
    }
    # Studies without a spec in the storage are older than other measures.
    measure = RATING if spec is None else spec.measure
    return TrialFacts(
        number=trial.number,
        state=states[trial.state],
        params=trial.params,
        metrics=trial_metrics(measure, trial.values) if trial.state == TrialState.COMPLETE else {},
        reason=trial.user_attrs.get(REASON),
        curve_metric=measure.curve,
        curve={epoch: measure.shown(error) for epoch, error in curve.items()},
        began=_milliseconds(trial.datetime_start),
        ended=_milliseconds(trial.datetime_complete),
        label="" if spec is None else trial_label(spec, trial.params),
        tags={} if spec is None else trial_tags(spec, trial.params),
    )


def _milliseconds(moment: datetime | None) -> int | None:
    return None if moment is None else int(moment.timestamp() * 1000)


class TrialResult(NamedTuple):
    """The result of a trial.

    Attributes:
        error: on validation users. files: of the trial.
        predict_one: adapts to one validation user, by number, and returns the number of predictions.
    """

    error: float
    files: Files
    predict_one: Callable[[int], int]


NO_STRATEGY = "none"
"""The strategy tag of a study without transfer."""


def trial_label(spec: StudySpec, params: Mapping[str, Any]) -> str:
    """The label of a trial: its network or strategy, the engine, and its categorical parameters.

    >>> trial_label(StudySpec(fusion={"network": "attention"}), {"inner_lr": 0.1, "combine": "product"})
    'attention/batched product'
    """
    choices = [value for name, value in params.items() if isinstance(value, str) and name not in (STRATEGY, NETWORK)]
    return " ".join([f"{params.get(STRATEGY, _network(spec, params))}/{spec.engine}", *choices])


def _network(spec: StudySpec, params: Mapping[str, Any]) -> str:
    return spec.chosen(params)[0]


def study_tags(spec: StudySpec) -> dict[str, str]:
    """The tags of a study's own run, with all its strategies."""
    searched = spec.transfer.strategies if spec.transfer is not None else [NO_STRATEGY]
    return {
        "domain": spec.target or NO_STRATEGY,
        "strategy": ", ".join(searched),
        "fusion": str(spec.fusion),
        "engine": spec.engine,
    }


def trial_tags(spec: StudySpec, params: Mapping[str, Any]) -> dict[str, str]:
    """The tags of a trial's run; its record adds ``state``."""
    own = {"strategy": params.get(STRATEGY, NO_STRATEGY), "fusion": _network(spec, params)}
    return {**study_tags(spec), **own}


class RecordedObjective(Objective):
    """The objective of a study, which also records each trial.

    A trial ends in two steps, so that a kill between them does no harm. Its result is recorded before Optuna has its
    value, and :meth:`ended` closes the record afterwards. So a trial that counts is recorded completely, and no other
    trial is closed as complete.

    Args:
        spec: the study. run: its record. keeper: of the trials' files; by default one that writes them at once.
    """

    def __init__(self, spec: StudySpec, run: StudyRun | None, keeper: FileKeeper | None = None) -> None:
        self.spec = spec
        self.run = run
        self.keeper = keeper or FileKeeper()
        self._open: dict[int, TrialRun] = {}

    def __call__(self, trial: optuna.Trial) -> list[float]:
        """The trial's values, one for each objective of the study."""
        assert self.run is not None, "an objective needs the record of its study before it runs"
        params = suggest_parameters(trial, self.spec.space)
        label, tags = trial_label(self.spec, params), trial_tags(self.spec, params)
        record = self.run.start_trial(trial.number, params, label=label, tags=tags)
        self._open[trial.number] = record
        try:
            result = self._evaluate(trial, params, record)
            values = [result.error]
            if "seconds" in self.spec.objectives:
                values.append(seconds_per_prediction(result.predict_one, self.users))
            self.keeper.keep(result.files, record)
            record.log_metrics(trial_metrics(self.spec.measure, values))
            record.persist()
        except (optuna.TrialPruned, NonFiniteLossError) as reason:
            self._note_run(trial, record)
            trial.set_user_attr(REASON, str(reason))
            raise
        except BaseException as error:
            # Optuna does not report this end, so it is recorded here.
            with self._open.pop(trial.number):
                raise error
        self._note_run(trial, record)
        if math.isnan(result.error):
            # Optuna marks it as failed. Without a reason it would not count and would be drawn again for ever.
            trial.set_user_attr(REASON, "its value is not a number")
        return values

    def ended(self, trial: FrozenTrial) -> None:
        """Close the record of a trial of this objective with its state in Optuna."""
        record = self._open.pop(trial.number, None)
        if record is None:
            return
        if trial.state == TrialState.COMPLETE:
            record.finish("complete", value=self.spec.measure.shown(error_of(trial)))
        else:
            state = "pruned" if trial.state == TrialState.PRUNED else "failed"
            record.finish(state, reason=trial.user_attrs[REASON])  # type: ignore[arg-type]  # one of two states

    def _note_run(self, trial: optuna.Trial, record: TrialRun) -> None:
        if record.run_id is not None:
            trial.set_user_attr(RUN_ID, record.run_id)

    @property
    def settings(self) -> SearchSettings:
        return self.spec.search_settings

    @property
    @abstractmethod
    def users(self) -> int:
        """The number of validation users."""

    def recorded_by(self, run: StudyRun | None) -> Self:
        """The same objective with another run as its record, in this process alone."""
        other = copy.copy(self)
        other.run, other.keeper, other._open = run, FileKeeper(reporter=self.keeper.reporter), {}
        return other

    @abstractmethod
    def value_of(self, params: Mapping[str, Any]) -> float:
        """The error of a configuration, computed without a record."""

    @abstractmethod
    def _evaluate(self, trial: optuna.Trial, params: Mapping[str, Any], record: TrialRun) -> TrialResult:
        """The result of a trial with these parameters."""
