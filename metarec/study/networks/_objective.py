"""One trial: meta-learn a fusion network on train users, and score it on validation users."""

from __future__ import annotations

import io
import logging
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import torch
from optuna.trial import FrozenTrial

from metarec.episodes import EpisodeBatch, Episodes, FusionInputs
from metarec.evaluation.metrics import METAREC, base_unit_predictions
from metarec.files import read_kept, write_kept
from metarec.meta import MetaLearner, NetworkConfig, OnEpoch, Shape, TrainedNetwork, judge_of
from metarec.search.pruning import progress_of
from metarec.study.records import CURVES, FileKeeper, Files, RecordedObjective, TrialResult
from metarec.study.reporter import TrialPictures
from metarec.study.spec import StudySpec
from metarec.tracking import StudyRun, TrialRun

__all__ = ["NetworkObjective", "network_config"]

logger = logging.getLogger(__name__)


def network_config(spec: StudySpec, params: Mapping[str, Any]) -> NetworkConfig:
    """The fusion network of a trial's parameters, with the spec's training."""
    network, options = spec.chosen(params)
    return NetworkConfig(
        network=network,
        options=options,
        engine=spec.engine,
        **{name: params[name] for name in ("inner_lr", "inner_steps", "loss", "learn_rates", "adapted", "outer_lr")},
        **spec.training.model_dump(),
    )


class NetworkObjective(RecordedObjective):
    """The validation error of a fusion network. No test user is in it.

    Args:
        train: the train episodes of every domain. validation: the validation episodes of the target.
        networks: a folder for the weights of each trial. The others are those of :class:`RecordedObjective`.
    """

    def __init__(
        self,
        spec: StudySpec,
        train: Mapping[str, Episodes],
        validation: Episodes,
        run: StudyRun | None,
        networks: Path,
        keeper: FileKeeper | None = None,
    ) -> None:
        super().__init__(spec, run, keeper)
        self.train = train
        self.validation = validation
        self.networks = networks

    @property
    def users(self) -> int:
        return len(self.validation)

    def fit(self, params: Mapping[str, Any], on_epoch: OnEpoch | None = None) -> TrainedNetwork:
        """Meta-learn the network of these parameters with early stopping on the validation users."""
        train = [episodes.batch for episodes in self.train.values()]
        config = network_config(self.spec, params)
        judge = judge_of([self.validation])
        return config.fit(train, [self.validation.batch], seed=self.spec.seed, judge=judge, on_epoch=on_epoch)

    def weights(self, number: int) -> Path:
        """The file of a finished trial's network, with its inner rates if they are learned."""
        return self.networks / f"trial-{number}.pt"

    def network(self, trial: FrozenTrial) -> MetaLearner:
        """The network of a finished trial: from its file, or trained again if there is no whole file."""
        weights = self.weights(trial.number)
        content = read_kept(weights)
        if content is None:
            logger.warning("the network of trial %d is not in %s; it is trained again", trial.number, weights.parent)
            learner = self.fit(trial.params).learner
            _save(learner, weights)
            return learner
        learner = network_config(self.spec, trial.params).build(Shape.of(self.validation.batch), self.spec.seed)
        learner.load_state_dict(torch.load(io.BytesIO(content), weights_only=True))
        return learner

    def value_of(self, params: Mapping[str, Any]) -> float:
        return self.fit(params).error

    def _evaluate(self, trial: optuna.Trial, params: Mapping[str, Any], record: TrialRun) -> TrialResult:
        spec, measure = self.spec, self.spec.measure
        progress = progress_of(trial, spec.pruner, self.validation, epochs=spec.training.epochs, seed=spec.seed)

        def on_epoch(learner: MetaLearner, epoch: int, metrics: Mapping[str, float]) -> None:
            error = metrics[measure.curve]
            record.log_epoch(epoch, {**metrics, measure.curve: measure.shown(error)})
            progress.after_epoch(epoch, error, learner)

        learner, curves, error = self.fit(params, on_epoch)
        curves = {**curves, measure.curve: [measure.shown(own) for own in curves[measure.curve]]}
        progress.at_end(learner)
        kept = {name: [float(f"{value:.5g}") for value in curve] for name, curve in curves.items() if curve}
        trial.set_user_attr(CURVES, kept)
        _save(learner, self.weights(trial.number))
        predict_one = partial(_predict_one, learner, self.validation.batch)
        return TrialResult(error, self.files(learner, params, curves), predict_one)

    def files(self, learner: MetaLearner, params: Mapping[str, Any], curves: Mapping[str, list[float]]) -> Files:
        """The files of the trial."""
        validation, measure = self.validation, self.spec.measure
        output = learner.adapt(validation.batch.support).fuse(validation.batch.query)
        unit = {METAREC: output.prediction.detach().numpy(), **base_unit_predictions(validation)}
        mask = validation.batch.query.mask
        pictures = TrialPictures(
            {name: curve for name, curve in curves.items() if curve},
            best_epoch=int(np.argmin([measure.cost(value) for value in curves[measure.curve]])),
            weights=None if output.weights is None else output.weights[mask].detach().numpy(),
            base_names=validation.base_names,
        )
        configuration = {"parameters": dict(params), "study": self.spec.model_dump(mode="json")}
        return Files(configuration, measure.rows(validation, unit), pictures=pictures)


def _predict_one(learner: MetaLearner, batch: EpisodeBatch, user: int) -> int:
    """Adapt to one user and predict; returns the number of predictions."""
    # Padding is at the end of the rows; a single user needs none.
    support, query = (
        FusionInputs(*(tensor[:, : int(part.mask.sum())] for tensor in part))
        for part in batch.select(torch.tensor([user]))
    )
    learner.adapt(support).predict(query)
    return query.mask.shape[1]


def _save(learner: MetaLearner, path: Path) -> None:
    """Write the weights completely or not at all. A full disk raises OSError, which torch.save to a path hides."""
    content = io.BytesIO()
    torch.save(learner.state_dict(), content)
    write_kept(path, content.getvalue())
