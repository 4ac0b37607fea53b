"""The result of a study."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from optuna.trial import FrozenTrial, TrialState

from metarec.evaluation.additions import Additions
from metarec.evaluation.engine_check import EngineCheck
from metarec.evaluation.insight import Insight
from metarec.evaluation.measures import ByUser, Judged, Measure
from metarec.evaluation.metrics import METAREC, Gain, Scores
from metarec.search import error_of, ranked
from metarec.study.transfer_spec import STRATEGY

__all__ = [
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


def microseconds(seconds: float) -> str:
    """A short time for people to read."""
    return f"{seconds * 1e6:,.0f} µs"


class FrontLine(NamedTuple):
    """A trial of the Pareto front: its error on validation users, and the seconds of a prediction."""

    trial: int
    error: float
    seconds: float


@dataclass(frozen=True)
class StudyResult:
    """A finished study.

    Attributes:
        best: the trial with the best network. test: domain -> scores of all models on its test users.
        settings: domain -> model -> its settings that validation users chose; for metarec the weights of its members.
        engines: their comparison; empty for a study of transfer.
        model: the URI of the proposed model; None where no model is kept.
        insight: about the target's test users and the best network.
        bases: the bases whose settings were tuned.
    """

    name: str
    target: str
    trials: list[FrozenTrial]
    best: FrozenTrial
    test: Mapping[str, DomainResult]
    settings: Mapping[str, Mapping[str, Mapping[str, Any]]]
    engines: list[EngineCheck]
    predictions: Path
    experiment_id: str | None = None
    run_id: str | None = None
    run_ids: Mapping[int, str] = field(default_factory=dict)
    insight: Insight | None = None
    model: str | None = None
    bases: Mapping[str, TunedBase] = field(default_factory=dict)

    @property
    def measure(self) -> Measure:
        """The measure of the models."""
        return self.test[self.target].measure

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
        for trial in ranked(trial for trial in complete_trials(self.trials) if STRATEGY in trial.params):
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
        timed = (trial for trial in complete_trials(self.trials) if len(trial.values) > 1)
        return [FrontLine(trial.number, *map(float, trial.values)) for trial in timed]

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
                for trial in self.trials
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
            "model": self.model,
        }
