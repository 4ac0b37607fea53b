"""One trial: build a fusion network, meta-learn it on train users, judge it on validation users."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import torch
import yaml

from metarec.episodes import DomainEpisodes, EpisodeBatch, Episodes
from metarec.fusion import NETWORKS, FusionNetwork
from metarec.meta import MetaLearner, MetaLearningTrainer, NonFiniteLossError, make_engine
from metarec.study import figures
from metarec.study.evaluation import METAREC, base_unit_predictions, prediction_rows
from metarec.study.space import NETWORK_PARAMETERS, suggest_parameters
from metarec.study.spec import StudySpec
from metarec.study.tracking import StudyRun, TrialRun

__all__ = ["METRIC", "Objective", "make_learner"]

METRIC = "validation_unit_rmse"
"""What a study minimises: the RMSE on the unit scale over all query rows of the target's validation users."""

RUN_ID = "run_id"


def make_learner(spec: StudySpec, episodes: Episodes, params: Mapping[str, Any], *, engine: str) -> MetaLearner:
    """The fusion network of a configuration, freshly started from the study's seed, in an engine."""
    inputs = episodes.batch.query
    searched = NETWORK_PARAMETERS.get(spec.fusion.network, {})
    options = {**spec.fusion.options, **{name: params[name] for name in searched if name in params}}
    with torch.random.fork_rng():
        torch.manual_seed(spec.seed)
        network: FusionNetwork = NETWORKS.get(spec.fusion.network).for_episodes(
            inputs.algorithm_features.shape[-2],
            inputs.algorithm_features.shape[-1],
            inputs.context.shape[-1],
            **options,
        )
    return make_engine(
        engine,
        network,
        inner_lr=params["inner_lr"],
        inner_steps=params["inner_steps"],
        first_order=spec.training.first_order,
        loss=params["loss"],
        learn_rates=params["learn_rates"],
        adapted=params["adapted"],
    )


class Objective:
    """What Optuna minimises. It is handed no test user: there is none in it to look at.

    Args:
        spec: the study.
        train: the train episodes of every domain.
        validation: the validation episodes of the target.
        run: the record of the study.
        networks: a folder for the weights of each trial.
    """

    def __init__(
        self, spec: StudySpec, train: Mapping[str, Episodes], validation: Episodes, run: StudyRun | None, networks: Path
    ) -> None:
        self.spec = spec
        self.train = train
        self.validation = validation
        self.run = run
        self.networks = networks

    def recorded_by(self, run: StudyRun | None) -> Objective:
        """The same objective, recorded by another run."""
        return Objective(self.spec, self.train, self.validation, run, self.networks)

    @classmethod
    def of(cls, spec: StudySpec, episodes: Mapping[str, DomainEpisodes], run: StudyRun, networks: Path) -> Objective:
        """The objective of a study on these episodes."""
        assert spec.target is not None
        train = {name: domain.train for name, domain in episodes.items()}
        return cls(spec, train, episodes[spec.target].validation, run, networks)

    def __call__(self, trial: optuna.Trial) -> float:
        assert self.run is not None, "an objective needs the record of its study before it runs"
        params = suggest_parameters(trial, self.spec.space)
        with self.run.start_trial(trial.number, params) as record:
            if record.run_id is not None:
                trial.set_user_attr(RUN_ID, record.run_id)
            try:
                learner, value = self._train(trial, params, record)
            except optuna.TrialPruned as reason:
                record.finish("pruned", reason=str(reason))
                raise
            except NonFiniteLossError as reason:
                record.finish("failed", reason=str(reason))
                raise
            self._keep(learner, params, record)
            record.log_metrics({METRIC: value})
            record.finish("complete", value=value)
        torch.save(learner.state_dict(), self.weights(trial.number))
        return value

    def fit(self, params: Mapping[str, Any], on_epoch: Any = None) -> tuple[MetaLearner, dict[str, list[float]], float]:
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
            on_epoch=on_epoch,
        )
        return learner, trainer.training_history, best

    def weights(self, number: int) -> Path:
        """Where a finished trial keeps its network, and with it the inner rates where they are learned."""
        return self.networks / f"trial-{number}.pt"

    def _train(self, trial: optuna.Trial, params: Mapping[str, Any], record: TrialRun) -> tuple[MetaLearner, float]:
        best = math.inf

        def on_epoch(epoch: int, metrics: Mapping[str, float]) -> None:
            nonlocal best
            record.log_epoch(epoch, metrics)
            # The best so far, not the latest: a trial is judged by its best epoch, and so are those it is compared to.
            best = min(best, metrics["val_rmse"])
            trial.report(best, epoch)
            if trial.should_prune():
                raise optuna.TrialPruned(f"behind the median of the other trials after epoch {epoch}: {best:.5f}")

        learner, self._history, value = self.fit(params, on_epoch)
        return learner, value

    def _keep(self, learner: MetaLearner, params: Mapping[str, Any], record: TrialRun) -> None:
        """The trial's artifacts: configuration, validation predictions, and two pictures."""
        validation = self.validation
        adapted = learner.adapt(validation.batch.support)
        output = adapted.fuse(validation.batch.query)
        unit = {METAREC: output.prediction.detach().numpy(), **base_unit_predictions(validation)}
        with record.artifacts() as folder:
            configuration = {"parameters": dict(params), "study": self.spec.model_dump(mode="json")}
            (folder / "configuration.yaml").write_text(yaml.safe_dump(configuration, sort_keys=False))
            prediction_rows(validation, unit).to_parquet(folder / "validation_predictions.parquet")
            best_epoch = int(np.argmin(self._history["val_rmse"]))
            figures.learning_curve({name: curve for name, curve in self._history.items() if curve}, best_epoch).savefig(
                folder / "learning_curve.png"
            )
            if output.weights is not None:
                weights = output.weights[validation.batch.query.mask].detach().numpy()
                figures.base_weights(weights, validation.base_names).savefig(folder / "base_weights.png")
