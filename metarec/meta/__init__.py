"""Adaptation of a fusion network to a user's support ratings, and the training of its start."""

from metarec.meta._base import AdaptedNetwork, MetaLearner
from metarec.meta.engines import ENGINES, make_engine
from metarec.meta.learner_config import LearnerConfig
from metarec.meta.maml import BatchedMAML
from metarec.meta.trainer import MetaLearningTrainer, NonFiniteLossError

__all__ = [
    "ENGINES",
    "AdaptedNetwork",
    "BatchedMAML",
    "LearnerConfig",
    "MetaLearner",
    "MetaLearningTrainer",
    "NonFiniteLossError",
    "make_engine",
]
