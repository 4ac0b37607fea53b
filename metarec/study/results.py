"""What a study hands back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from optuna.trial import FrozenTrial, TrialState

from metarec.evaluation.engine_check import EngineCheck
from metarec.evaluation.insight import Insight
from metarec.evaluation.metrics import METAREC, Gain, Scores
from metarec.search import error_of
from metarec.study.recorded_trial import METRIC, RUN_ID, SECONDS
from metarec.study.transfer_spec import STRATEGY

__all__ = ["DomainResult", "FrontLine", "StrategyLine", "StudyResult", "microseconds"]

STATES = {TrialState.COMPLETE: "complete", TrialState.PRUNED: "pruned", TrialState.FAIL: "failed"}


@dataclass(frozen=True)
class DomainResult:
    """What came out on the test users of one domain; models in the order of the table."""

    scores: Mapping[str, Scores]
    gains: Mapping[str, Gain]
    scale: str


class StrategyLine(NamedTuple):
    """How a transfer strategy did in a search: the number and the value of its best trial, of so many that ended."""

    strategy: str
    trials: int
    best: int
    value: float


def microseconds(seconds: float) -> str:
    """A short time, to be read."""
    return f"{seconds * 1e6:,.0f} µs"


class FrontLine(NamedTuple):
    """A trial that no other beats in both: its error on validation users, and the seconds that a prediction takes."""

    trial: int
    error: float
    seconds: float


@dataclass(frozen=True)
class StudyResult:
    """A finished study.

    Attributes:
        best: the trial with the best network. test: domain -> scores of all models on its test users.
        settings: domain -> model -> what it chose on validation users; of metarec the weights of its members.
        engines: side by side; empty for a study of transfer.
        model: by which what it proposes is loaded; None where no model is kept.
        insight: what there is to know of the target's test users, and of the best network.
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

    @property
    def members(self) -> Mapping[str, float]:
        """What metarec is made of on the target: the weight of each trial's network and of each stacker."""
        return self.settings[self.target][METAREC]

    @property
    def strategies(self) -> list[StrategyLine]:
        """The transfer strategies that were tried, best first; none where no strategy was searched."""
        lines: dict[str, StrategyLine] = {}
        complete = [trial for trial in self.trials if trial.state == TrialState.COMPLETE and STRATEGY in trial.params]
        for trial in sorted(complete, key=lambda trial: (error_of(trial), trial.number)):
            name = trial.params[STRATEGY]
            best = lines.get(name, StrategyLine(name, 0, trial.number, error_of(trial)))
            lines[name] = best._replace(trials=best.trials + 1)
        return list(lines.values())

    @property
    def front(self) -> list[FrontLine]:
        """The Pareto front, least error first; empty where there is but one objective."""
        lines: list[FrontLine] = []
        for line in sorted(self.timed, key=lambda line: (line.error, line.seconds)):
            if not lines or line.seconds < lines[-1].seconds:
                lines.append(line)
        return lines

    @property
    def timed(self) -> list[FrontLine]:
        """Error and seconds of every complete trial that has both."""
        complete = [trial for trial in self.trials if trial.state == TrialState.COMPLETE and len(trial.values) > 1]
        return [FrontLine(trial.number, *map(float, trial.values)) for trial in complete]

    def _run_of(self, trial: FrozenTrial) -> str | None:
        # A store that does not answer at the end may have answered while the trial ran.
        return self.run_ids.get(trial.number, trial.user_attrs.get(RUN_ID))

    def to_json(self) -> dict[str, Any]:
        """The contract of ``--json``."""
        return {
            "study": self.name,
            "metric": METRIC,
            "direction": "minimize",
            "trials": [
                {
                    "number": trial.number,
                    "state": STATES.get(trial.state, trial.state.name.lower()),
                    "value": error_of(trial) if trial.state == TrialState.COMPLETE else None,
                    "params": trial.params,
                    "run_id": self._run_of(trial),
                    "duration_s": trial.duration.total_seconds() if trial.duration else None,
                }
                for trial in self.trials
            ],
            "best": {
                "number": self.best.number,
                "value": error_of(self.best),
                "params": self.best.params,
                "run_id": self._run_of(self.best),
            },
            **self._front_json(),
            "target": self.target,
            "test": {
                domain: {model: row.to_json() for model, row in result.scores.items()}
                for domain, result in self.test.items()
            },
            "gains": {
                domain: {model: gain._asdict() for model, gain in result.gains.items()}
                for domain, result in self.test.items()
            },
            "members": {domain: dict(chosen[METAREC]) for domain, chosen in self.settings.items()},
            "engines": [check._asdict() for check in self.engines],
            "predictions": str(self.predictions),
            "model": self.model,
        }

    def _front_json(self) -> dict[str, Any]:
        """Of a study with two objectives its front."""
        if not self.timed:
            return {}
        return {"front": [{"number": line.trial, "value": line.error, SECONDS: line.seconds} for line in self.front]}
