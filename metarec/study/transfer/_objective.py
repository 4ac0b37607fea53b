"""One trial of a study of transfer: fit a strategy on sources and a few users, judge it on validation users."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import optuna
import pandas as pd
import torch
import yaml

from metarec.episodes import Episodes
from metarec.evaluation.metrics import METAREC, base_unit_predictions, prediction_rows
from metarec.study.networks import network_config
from metarec.study.recorded_trial import RecordedObjective, TrialResult
from metarec.study.reporter import Reporter
from metarec.study.spec import StudySpec
from metarec.study.transfer_spec import STRATEGY
from metarec.study.trial_files import FileKeeper
from metarec.tracking import StudyRun, TrialRun
from metarec.transfer import STRATEGIES, Round, Sources, TransferredModel, TransferSettings

__all__ = ["Known", "StrategyFiles", "TransferObjective", "transfer_settings"]


class Known(NamedTuple):
    """What a trial may look at: sources and the target's few users to learn from, validation users to be judged on.

    `few` and `validation` are on the common scale, and the plain ones are the same users on the target's own.
    """

    sources: Sources
    few: Episodes
    plain_few: Episodes
    validation: Episodes
    plain_validation: Episodes

    @classmethod
    def of(cls, given: Round) -> Known:
        """All of a round but its test users."""
        return cls(given.sources, given.few, given.plain_few, given.validation, given.plain_validation)


class TargetModel(NamedTuple):
    """A model of the target, and whether it reads the target's users on the target's own scale."""

    model: TransferredModel
    plain: bool

    def predict(self, common: Episodes, plain: Episodes) -> np.ndarray:
        """[T, N] predictions of users' queries on the unit scale of the target; the users on both scales are given."""
        if self.plain:
            return np.clip(self.model.predict(plain), 0.0, 1.0)
        ratings = common.scale.to_ratings(self.model.predict(common))
        return np.clip(plain.scale.to_unit(ratings), 0.0, 1.0)


@dataclass(frozen=True)
class StrategyFiles:
    """The files of a trial: its configuration, what its strategy chose and why, and its validation predictions.

    Attributes:
        configuration: plain values. reasons: values that JSON knows.
        predictions: a row for each query of the validation users.
    """

    configuration: Mapping[str, Any]
    reasons: Mapping[str, Any]
    predictions: pd.DataFrame

    def write(self, folder: Path, reporter: Reporter) -> None:
        (folder / "configuration.yaml").write_text(yaml.safe_dump(self.configuration, sort_keys=False))
        (folder / "reasons.json").write_text(json.dumps(self.reasons, indent=2) + "\n")
        self.predictions.to_parquet(folder / "validation_predictions.parquet")


def transfer_settings(spec: StudySpec, params: Mapping[str, Any]) -> TransferSettings:
    """The fusion network of a trial's parameters and its training; everything else has its default."""
    return TransferSettings(**network_config(spec, params).model_dump())


class TransferObjective(RecordedObjective):
    """What Optuna minimises. It is handed no test user: there is none in it to look at.

    Args:
        spec: the study.
        known: what its trials may look at.
        run: the record of the study.
        keeper: of the trials' files; by default one that keeps them at once.
    """

    def __init__(self, spec: StudySpec, known: Known, run: StudyRun | None, keeper: FileKeeper | None = None) -> None:
        super().__init__(spec, run, keeper)
        self.known = known

    def recorded_by(self, run: StudyRun | None) -> TransferObjective:
        return TransferObjective(self.spec, self.known, run, FileKeeper(reporter=self.keeper.reporter))

    def fit(self, params: Mapping[str, Any]) -> TargetModel:
        """The strategy of a configuration, fitted; the same each time. Without sources it sees the target plain."""
        strategy = STRATEGIES.get(params[STRATEGY])(transfer_settings(self.spec, params), seed=self.spec.seed)
        if strategy.needs_sources:
            return TargetModel(strategy.fit(self.known.sources, self.known.few), plain=False)
        return TargetModel(strategy.fit(Sources({}), self.known.plain_few), plain=True)

    def value_of(self, params: Mapping[str, Any]) -> float:
        return self._rmse(self._predicted(self.fit(params)))

    @property
    def users(self) -> int:
        return len(self.known.validation)

    def _evaluate(self, trial: optuna.Trial, params: Mapping[str, Any], record: TrialRun) -> TrialResult:
        fitted = self.fit(params)
        predicted = self._predicted(fitted)
        files = self._files(params, fitted, predicted)
        return TrialResult(self._rmse(predicted), files, partial(self._predict_one, fitted))

    def _predict_one(self, fitted: TargetModel, user: int) -> int:
        common, plain = (
            side.select(torch.tensor([user])) for side in (self.known.validation, self.known.plain_validation)
        )
        fitted.predict(common, plain)
        return int(plain.batch.query.mask.sum())

    def _predicted(self, fitted: TargetModel) -> np.ndarray:
        return fitted.predict(self.known.validation, self.known.plain_validation)

    def _rmse(self, predicted: np.ndarray) -> float:
        query = self.known.plain_validation.batch.query
        errors = (predicted - query.targets.numpy())[query.mask.numpy()]
        return float(np.sqrt(np.mean(errors**2)))

    def _files(self, params: Mapping[str, Any], fitted: TargetModel, predicted: np.ndarray) -> StrategyFiles:
        plain = self.known.plain_validation
        return StrategyFiles(
            configuration={"parameters": dict(params), "study": self.spec.model_dump(mode="json")},
            reasons=fitted.model.reasons(),
            predictions=prediction_rows(plain, {METAREC: predicted, **base_unit_predictions(plain)}),
        )
