"""The result of a study."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from optuna.trial import FrozenTrial, TrialState

from metarec.errors import InputError
from metarec.evaluation.additions import Additions
from metarec.evaluation.engine_check import EngineCheck
from metarec.evaluation.insight import Insight
from metarec.evaluation.measures import ByUser, Judged, Measure
from metarec.evaluation.metrics import METAREC, Gain, Scores
from metarec.model import FusedRecommender, RankingRecommender
from metarec.model.mlflow_model import load_from
from metarec.registry import suggest
from metarec.search import error_of, ranked
from metarec.study.transfer_spec import STRATEGY

__all__ = [
    "REPORT",
    "RUN_ID",
    "SECONDS",
    "DomainResult",
    "FrontLine",
    "StrategyLine",
    "StudyResult",
    "TunedBase",
    "complete_trials",
    "microseconds",
    "state_of",
    "trial_metrics",
]

SECONDS = "seconds_per_prediction"
"""The optional second objective."""

RUN_ID = "run_id"
"""An attribute of a trial: its run."""

REPORT = "report.html"
"""The page of a study, beside its predictions and among the artifacts of its run."""


def state_of(trial: FrozenTrial) -> str:
    """A trial's state: "complete", "pruned" or "failed"."""
    return "failed" if trial.state == TrialState.FAIL else trial.state.name.lower()


def complete_trials(trials: Iterable[FrozenTrial]) -> list[FrozenTrial]:
    """The complete trials, in their order."""
    return [trial for trial in trials if trial.state == TrialState.COMPLETE]


def trial_metrics(measure: Measure, values: Sequence[float]) -> dict[str, float]:
    """The metrics of a trial's run, from its values: the error, and the seconds of a prediction if they are there."""
    metrics = {measure.validation: measure.shown(values[0])}
    return metrics | {SECONDS: values[1]} if len(values) > 1 else metrics


@dataclass(frozen=True)
class DomainResult:
    """The scores and gains of all models on the test users of one domain, in a study of networks or of transfer."""

    measure: Measure
    scores: Mapping[str, Scores]
    gains: Mapping[str, Gain]
    by_user: ByUser
    scale: str
    transfer: bool = False

    @classmethod
    def of(cls, measure: Measure, judged: Judged, *, seed: int, transfer: bool = False) -> DomainResult:
        """From the judged models; `seed`: of the bootstrap over users."""
        gains = measure.gains(judged.by_user, seed=seed)
        return cls(measure, judged.scores, gains, judged.by_user, judged.scale, transfer)

    @property
    def additions(self) -> Additions:
        """What meta-learning and the inner loop add, or the sources' models."""
        return Additions.of(self.gains, transfer=self.transfer)

    @property
    def adds(self) -> str:
        """The same in sentences; empty if there are none."""
        return self.additions.text(self.measure)

    def best_first(self) -> list[tuple[str, Scores]]:
        """The models with their scores, the best first."""
        return self.measure.best_first(self.scores)


class TunedBase(NamedTuple):
    """The search of the settings of one base, alone, before that of the fusion.

    Attributes:
        trials: those that count. usual: the one with the defaults. best: the one with the smallest validation error.
        options: all options of the best one, those that the spec fixes among them.
    """

    trials: Sequence[FrozenTrial]
    usual: FrozenTrial
    best: FrozenTrial
    options: Mapping[str, Any]

    def to_json(self, measure: Measure) -> dict[str, Any]:
        """The numbers of trials, the values on validation users, and the chosen options."""
        return {
            "trials": len(self.trials),
            "default": measure.shown(error_of(self.usual)),
            "value": measure.shown(error_of(self.best)),
            "options": dict(self.options),
        }


class StrategyLine(NamedTuple):
    """A transfer strategy in a search: its complete trials, and the number and value of the best one."""

    strategy: str
    trials: int
    best: int
    value: float


def _columns_of(gain: Gain) -> dict[str, float]:
    return {"gain_percent": gain.percent, "gain_low": gain.low, "gain_high": gain.high}


def microseconds(seconds: float) -> str:
    """A short time for people to read."""
    return f"{seconds * 1e6:,.0f} µs"


class FrontLine(NamedTuple):
    """A trial of the Pareto front: its error on validation users, and the seconds of a prediction."""

    trial: int
    error: float
    seconds: float


@dataclass(frozen=True, repr=False)
class StudyResult:
    """A finished study.

    Attributes:
        ended: the trials that have ended. best: the one with the best network.
        test: domain -> scores of all models on its test users.
        settings: domain -> model -> its settings that validation users chose; for metarec the weights of its members.
        engines: their comparison; empty for a study of transfer.
        model_uri: of the proposed model; None where no model is kept. tracking_uri: of the store of the runs.
        insight: about the target's test users and the best network.
        bases: the bases whose settings were tuned.
    """

    name: str
    target: str
    ended: list[FrozenTrial]
    best: FrozenTrial
    test: Mapping[str, DomainResult]
    settings: Mapping[str, Mapping[str, Mapping[str, Any]]]
    engines: list[EngineCheck]
    predictions: Path
    experiment_id: str | None = None
    run_id: str | None = None
    run_ids: Mapping[int, str] = field(default_factory=dict)
    insight: Insight | None = None
    model_uri: str | None = None
    tracking_uri: str | None = None
    bases: Mapping[str, TunedBase] = field(default_factory=dict)

    @property
    def measure(self) -> Measure:
        """The measure of the models."""
        return self.test[self.target].measure

    @property
    def value(self) -> float:
        """The first metric of metarec on the target's test users."""
        return self.test[self.target].scores[METAREC].values[self.measure.key]

    def shown(self, trial: FrozenTrial) -> float:
        """The value of a complete trial on validation users."""
        return self.measure.shown(error_of(trial))

    @property
    def members(self) -> Mapping[str, float]:
        """The weights of the members on the target: networks of trials, and stackers."""
        return self.settings[self.target][METAREC]

    @property
    def tuned(self) -> dict[str, dict[str, Any]]:
        """The tuned bases, as JSON values."""
        return {name: own.to_json(self.measure) for name, own in self.bases.items()}

    @property
    def strategies(self) -> list[StrategyLine]:
        """The searched transfer strategies, the best first."""
        lines: dict[str, StrategyLine] = {}
        for trial in ranked(trial for trial in complete_trials(self.ended) if STRATEGY in trial.params):
            name = trial.params[STRATEGY]
            best = lines.get(name, StrategyLine(name, 0, trial.number, self.shown(trial)))
            lines[name] = best._replace(trials=best.trials + 1)
        return list(lines.values())

    @property
    def front(self) -> list[FrontLine]:
        """The Pareto front, the smallest error first; empty for a single objective."""
        lines: list[FrontLine] = []
        for line in sorted(self.timed, key=lambda line: (line.error, line.seconds)):
            if not lines or line.seconds < lines[-1].seconds:
                lines.append(line)
        return lines

    @property
    def timed(self) -> list[FrontLine]:
        """Error and seconds of every complete trial with both objectives."""
        timed = (trial for trial in complete_trials(self.ended) if len(trial.values) > 1)
        return [FrontLine(trial.number, *map(float, trial.values)) for trial in timed]

    def __repr__(self) -> str:
        numbers = f"trials={len(self.ended)}, {self.measure.key}={self.value:.4f}"
        return f"StudyResult(name={self.name!r}, target={self.target!r}, {numbers})"

    def leaderboard(self, domain: str | None = None) -> pd.DataFrame:
        """The models on the test users of a domain, the best first.

        Args:
            domain: by default the target.

        Returns:
            ``model``; its metrics, such as ``rmse`` or ``ndcg@10``; and in percent how much better metarec is, with
            its 95 % interval: ``gain_percent``, ``gain_low``, ``gain_high``, which are missing for metarec itself.

        Raises:
            InputError: the study has no such domain.
        """
        name = self.target if domain is None else domain
        if name not in self.test:
            raise InputError(f'study "{self.name}" has no domain "{name}"; {suggest(name, self.test)}')
        outcome = self.test[name]
        none = Gain(math.nan, math.nan, math.nan)
        rows = [
            {"model": model, **row.values, **_columns_of(outcome.gains.get(model, none))}
            for model, row in outcome.best_first()
        ]
        return pd.DataFrame(rows)

    def trials(self) -> pd.DataFrame:
        """The trials that have ended: ``number``, ``state``, metrics on validation users, ``seconds``, parameters.

        The names of parameters begin with ``params_``, as in Optuna. Values that a trial does not have are missing.
        """
        rows = [
            {
                "number": trial.number,
                "state": state_of(trial),
                **(trial_metrics(self.measure, trial.values) if trial.state == TrialState.COMPLETE else {}),
                "seconds": trial.duration.total_seconds() if trial.duration else None,
                **{f"params_{name}": value for name, value in trial.params.items()},
            }
            for trial in self.ended
        ]
        return pd.DataFrame(rows)

    @cached_property
    def model(self) -> FusedRecommender | RankingRecommender:
        """The proposed model, loaded from the store when it is first asked for.

        Raises:
            InputError: the study keeps no model, or it cannot be loaded.
        """
        if self.model_uri is None:
            raise InputError(
                f'study "{self.name}" keeps no model: studies of transfer strategies, and those with a plug-in '
                "that cannot be kept, have none; a warning names the plug-in"
            )
        return load_from(self.model_uri, tracking_uri=self.tracking_uri)

    @property
    def report(self) -> Path:
        """The page with the tables and pictures of the study."""
        return self.predictions.parent / REPORT

    def _run_of(self, trial: FrozenTrial) -> str | None:
        # The store may have answered during the trial, even if it does not answer at the end.
        return self.run_ids.get(trial.number, trial.user_attrs.get(RUN_ID))

    def to_json(self) -> dict[str, Any]:
        """The contract of ``--json``."""
        return {
            "study": self.name,
            "metric": self.measure.metric,
            "direction": self.measure.direction,
            "trials": [
                {
                    "number": trial.number,
                    "state": state_of(trial),
                    "value": self.shown(trial) if trial.state == TrialState.COMPLETE else None,
                    "params": trial.params,
                    "run_id": self._run_of(trial),
                    "duration_s": trial.duration.total_seconds() if trial.duration else None,
                }
                for trial in self.ended
            ],
            "best": {
                "number": self.best.number,
                "value": self.shown(self.best),
                "params": self.best.params,
                "run_id": self._run_of(self.best),
            },
            **(
                {
                    "front": [
                        {"number": line.trial, "value": self.measure.shown(line.error), SECONDS: line.seconds}
                        for line in self.front
                    ]
                }
                if self.timed
                else {}
            ),
            **({"bases": self.tuned} if self.bases else {}),
            "target": self.target,
            "test": {
                domain: {model: row.to_json() for model, row in result.scores.items()}
                for domain, result in self.test.items()
            },
            "gains": {
                domain: {model: gain._asdict() for model, gain in result.gains.items()}
                for domain, result in self.test.items()
            },
            "adds": {domain: result.additions.to_json(result.measure) for domain, result in self.test.items()},
            "members": {domain: dict(chosen[METAREC]) for domain, chosen in self.settings.items()},
            "engines": [check._asdict() for check in self.engines],
            "predictions": str(self.predictions),
            "model": self.model_uri,
        }
