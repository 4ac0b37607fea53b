"""Adaptation of a fusion network to a user's support ratings, and the training of its start."""

from metarec.meta._base import Adapted, AdaptedNetwork, MetaLearner
from metarec.meta._data import Shape
from metarec.meta.engines import ENGINES, make_engine
from metarec.meta.maml import BatchedMAML
from metarec.meta.network_config import NetworkConfig, OnEpoch, TrainedNetwork, judge_of
from metarec.meta.trainer import RMSE, Judge, MetaLearningTrainer, NonFiniteLossError, clipped_step, make_adam

__all__ = [
    "ENGINES",
    "RMSE",
    "Adapted",
    "AdaptedNetwork",
    "BatchedMAML",
    "Judge",
    "MetaLearner",
    "MetaLearningTrainer",
    "NetworkConfig",
    "NonFiniteLossError",
    "OnEpoch",
    "Shape",
    "TrainedNetwork",
    "clipped_step",
    "judge_of",
    "make_adam",
    "make_engine",
]
