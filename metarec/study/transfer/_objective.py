"""One trial of a study of transfer: fit a strategy on sources and a few users, and score it on validation users."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import optuna
import torch

from metarec.episodes import Episodes
from metarec.evaluation.metrics import METAREC, base_unit_predictions
from metarec.study.networks import network_config
from metarec.study.records import FileKeeper, Files, RecordedObjective, TrialResult
from metarec.study.reporter import Reporter
from metarec.study.spec import StudySpec
from metarec.study.transfer_spec import STRATEGY
from metarec.tracking import StudyRun, TrialRun
from metarec.transfer import STRATEGIES, Round, Sources, TransferredModel, TransferSettings

__all__ = ["StrategyFiles", "TransferObjective", "TrialData", "transfer_settings"]


class TrialData(NamedTuple):
    """The data of a trial: sources and the target's few train users, and the validation users that score it.

    `few` and `validation` are on the common scale; `plain_few` and `plain_validation` are the same users on the
    target's own scale.
    """

    sources: Sources
    few: Episodes
    plain_few: Episodes
    validation: Episodes
    plain_validation: Episodes

    @classmethod
    def of(cls, given: Round) -> TrialData:
        """A round without its test users."""
        return cls(given.sources, given.few, given.plain_few, given.validation, given.plain_validation)


class TargetModel(NamedTuple):
    """A model of the target; `plain` models read the target's users on the target's own scale."""

    model: TransferredModel
    plain: bool

    def predict(self, common: Episodes, plain: Episodes) -> np.ndarray:
        """[T, N] predictions of the query rows on the unit scale of the target, from the users on both scales.

        In ranking they are scores of the candidates.
        """
        if plain.task == "ranking":
            return self.model.predict(plain if self.plain else common)
        if self.plain:
            return np.clip(self.model.predict(plain), 0.0, 1.0)
        ratings = common.scale.to_ratings(self.model.predict(common))
        return np.clip(plain.scale.to_unit(ratings), 0.0, 1.0)


@dataclass(frozen=True)
class StrategyFiles(Files):
    """The files of a strategy's trial, with the reasons for its choices as JSON values."""

    reasons: Mapping[str, Any]

    def write(self, folder: Path, reporter: Reporter) -> None:
        super().write(folder, reporter)
        (folder / "reasons.json").write_text(json.dumps(self.reasons, indent=2) + "\n")


def transfer_settings(spec: StudySpec, params: Mapping[str, Any]) -> TransferSettings:
    """The fusion network of a trial's parameters with its training; all other settings are defaults."""
    return TransferSettings(task=spec.task or "rating", **network_config(spec, params).model_dump())


class TransferObjective(RecordedObjective):
    """The validation error of a transfer strategy on the `data` of a trial. No test user is in it."""

    def __init__(
        self, spec: StudySpec, data: TrialData, run: StudyRun | None, keeper: FileKeeper | None = None
    ) -> None:
        super().__init__(spec, run, keeper)
        self.data = data

    def fit(self, params: Mapping[str, Any]) -> TargetModel:
        """The fitted strategy of a configuration. Without sources it reads the target on its own scale."""
        strategy = STRATEGIES.get(params[STRATEGY])(transfer_settings(self.spec, params), seed=self.spec.seed)
        if strategy.needs_sources:
            return TargetModel(strategy.fit(self.data.sources, self.data.few), plain=False)
        return TargetModel(strategy.fit(Sources({}), self.data.plain_few), plain=True)

    def value_of(self, params: Mapping[str, Any]) -> float:
        return self._error(self._predicted(self.fit(params)))

    @property
    def users(self) -> int:
        return len(self.data.validation)

    def _evaluate(self, trial: optuna.Trial, params: Mapping[str, Any], record: TrialRun) -> TrialResult:
        fitted = self.fit(params)
        predicted = self._predicted(fitted)
        files = self._files(params, fitted, predicted)
        return TrialResult(self._error(predicted), files, partial(self._predict_one, fitted))

    def _predict_one(self, fitted: TargetModel, user: int) -> int:
        common, plain = (
            side.select(torch.tensor([user])) for side in (self.data.validation, self.data.plain_validation)
        )
        fitted.predict(common, plain)
        return int(plain.batch.query.mask.sum())

    def _predicted(self, fitted: TargetModel) -> np.ndarray:
        return fitted.predict(self.data.validation, self.data.plain_validation)

    def _error(self, predicted: np.ndarray) -> float:
        """The validation error: the RMSE on the unit scale, in ranking 1 - nDCG@10."""
        measure = self.spec.measure
        # What is shown of an error is the value, and the other way round.
        return measure.shown(measure.unit_value(self.data.plain_validation, predicted))

    def _files(self, params: Mapping[str, Any], fitted: TargetModel, predicted: np.ndarray) -> StrategyFiles:
        plain = self.data.plain_validation
        return StrategyFiles(
            configuration={"parameters": dict(params), "study": self.spec.model_dump(mode="json")},
            reasons=fitted.model.reasons(),
            predictions=self.spec.measure.rows(plain, {METAREC: predicted, **base_unit_predictions(plain)}),
        )
