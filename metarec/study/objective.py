"""One trial: build a fusion network, meta-learn it on train users, judge it on validation users."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import torch

from metarec.episodes import DomainEpisodes, EpisodeBatch, Episodes, FusionInputs
from metarec.meta import LearnerConfig, MetaLearner, MetaLearningTrainer
from metarec.study.evaluation import METAREC, base_unit_predictions, prediction_rows
from metarec.study.pruning import progress_of
from metarec.study.recorded_trial import CURVES, Judged, RecordedObjective
from metarec.study.space import own_parameters
from metarec.study.spec import StudySpec
from metarec.study.tracking import StudyRun, TrialRun
from metarec.study.trial_files import FileKeeper, TrialFiles

__all__ = ["Objective", "learner_config", "make_learner"]

OnEpoch = Callable[[MetaLearner, int, Mapping[str, float]], None]
"""Called with the learner, the epoch from 0, and its metrics."""


def learner_config(spec: StudySpec, episodes: Episodes, params: Mapping[str, Any]) -> LearnerConfig:
    """The fusion network of a configuration and its engine, as plain values."""
    inputs = episodes.batch.query
    searched = own_parameters(spec.fusion.network)
    return LearnerConfig(
        network=spec.fusion.network,
        options={**spec.fusion.options, **{name: params[name] for name in searched if name in params}},
        num_algorithms=inputs.algorithm_features.shape[-2],
        feature_dim=inputs.algorithm_features.shape[-1],
        context_dim=inputs.context.shape[-1],
        engine=spec.engine,
        inner_lr=params["inner_lr"],
        inner_steps=params["inner_steps"],
        first_order=spec.training.first_order,
        loss=params["loss"],
        learn_rates=params["learn_rates"],
        adapted=params["adapted"],
    )


def make_learner(spec: StudySpec, episodes: Episodes, params: Mapping[str, Any], *, engine: str) -> MetaLearner:
    """The fusion network of a configuration, freshly started from the study's seed, in an engine."""
    return learner_config(spec, episodes, params).model_copy(update={"engine": engine}).build(spec.seed)


class Objective(RecordedObjective):
    """What Optuna minimises. It is handed no test user: there is none in it to look at.

    Args:
        spec: the study.
        train: the train episodes of every domain.
        validation: the validation episodes of the target.
        run: the record of the study.
        networks: a folder for the weights of each trial.
        keeper: of the trials' files; by default one that keeps them at once.
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

    def recorded_by(self, run: StudyRun | None) -> Objective:
        return Objective(self.spec, self.train, self.validation, run, self.networks)

    @classmethod
    def of(
        cls,
        spec: StudySpec,
        episodes: Mapping[str, DomainEpisodes],
        run: StudyRun,
        networks: Path,
        keeper: FileKeeper | None = None,
    ) -> Objective:
        """The objective of a study on these episodes."""
        assert spec.target is not None
        train = {name: domain.train for name, domain in episodes.items()}
        return cls(spec, train, episodes[spec.target].validation, run, networks, keeper)

    @property
    def users(self) -> int:
        return len(self.validation)

    def fit(
        self, params: Mapping[str, Any], on_epoch: OnEpoch = lambda learner, epoch, metrics: None
    ) -> tuple[MetaLearner, dict[str, list[float]], float]:
        """Meta-learn one configuration: the learner, its curves, and its score on the validation users."""
        training = self.spec.training
        learner = make_learner(self.spec, self.validation, params, engine=self.spec.engine)
        trainer = MetaLearningTrainer(learner, seed=self.spec.seed)
        batches: list[EpisodeBatch] = [episodes.batch for episodes in self.train.values()]
        best = trainer.fit(
            batches,
            self.validation.batch,
            num_epochs=training.epochs,
            learning_rate=params["outer_lr"],
            batch_size=training.batch_size,
            patience=training.patience,
            on_epoch=partial(on_epoch, learner),
        )
        return learner, trainer.training_history, best

    def weights(self, number: int) -> Path:
        """Where a finished trial keeps its network, and with it the inner rates where they are learned."""
        return self.networks / f"trial-{number}.pt"

    def value_of(self, params: Mapping[str, Any]) -> float:
        return self.fit(params)[2]

    def _judge(self, trial: optuna.Trial, params: Mapping[str, Any], record: TrialRun) -> Judged:
        spec = self.spec
        progress = progress_of(trial, spec.pruner, self.validation, epochs=spec.training.epochs, seed=spec.seed)

        def on_epoch(learner: MetaLearner, epoch: int, metrics: Mapping[str, float]) -> None:
            record.log_epoch(epoch, metrics)
            progress.after_epoch(epoch, metrics["val_rmse"], learner)

        learner, curves, error = self.fit(params, on_epoch)
        progress.at_end(learner)
        kept = {name: [float(f"{value:.5g}") for value in curve] for name, curve in curves.items() if curve}
        trial.set_user_attr(CURVES, kept)
        _save(learner, self.weights(trial.number))
        return Judged(error, self.files(learner, params, curves), partial(_answer, learner, self.validation.batch))

    def files(self, learner: MetaLearner, params: Mapping[str, Any], curves: Mapping[str, list[float]]) -> TrialFiles:
        """What the trial keeps beside its numbers."""
        validation = self.validation
        output = learner.adapt(validation.batch.support).fuse(validation.batch.query)
        unit = {METAREC: output.prediction.detach().numpy(), **base_unit_predictions(validation)}
        mask = validation.batch.query.mask
        return TrialFiles(
            configuration={"parameters": dict(params), "study": self.spec.model_dump(mode="json")},
            predictions=prediction_rows(validation, unit),
            curves={name: curve for name, curve in curves.items() if curve},
            best_epoch=int(np.argmin(curves["val_rmse"])),
            weights=None if output.weights is None else output.weights[mask].detach().numpy(),
            base_names=validation.base_names,
        )


def _answer(learner: MetaLearner, batch: EpisodeBatch, user: int) -> int:
    support, query = batch.select(torch.tensor([user]))
    known, asked = int(support.mask.sum()), int(query.mask.sum())
    # Padding is at the end, and nobody who asks for one user has any.
    learner.adapt(FusionInputs(*(tensor[:, :known] for tensor in support))).predict(
        FusionInputs(*(tensor[:, :asked] for tensor in query))
    )
    return asked


def _save(learner: MetaLearner, path: Path) -> None:
    """Keep what was learned, whole or not at all; a full disk is an OSError, which torch's own writing hides."""
    # On another machine nobody has made it.
    path.parent.mkdir(parents=True, exist_ok=True)
    content = io.BytesIO()
    torch.save(learner.state_dict(), content)
    temporary = path.with_name(f"{path.name}.part")
    temporary.write_bytes(content.getvalue())
    os.replace(temporary, path)
