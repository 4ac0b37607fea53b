"""metarec as it is proposed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch

from benchmarks.cold.baselines import Stacked
from metarec.episodes import DomainEpisodes, Episodes
from metarec.fusion import NETWORKS
from metarec.fusion.blend import convex_weights
from metarec.meta import MetaLearner, MetaLearningTrainer, make_engine

__all__ = [
    "MEMBERS",
    "metarec_predictions",
    "metarec_with_weights",
    "network_predictions",
]


class Member(NamedTuple):
    """One fusion network of metarec's: its options, and how it is meta-learned."""

    hidden_dim: int
    dropout: float
    inner_steps: int
    inner_lr: float = 0.02
    outer_lr: float = 2e-3


MEMBERS: Mapping[str, Member] = {
    "static": Member(hidden_dim=64, dropout=0.5, inner_steps=0),
    "adaptive": Member(hidden_dim=32, dropout=0.2, inner_steps=1),
}
"""Gated networks, the same for every set and every number of shots. One trusts the features alone, one takes a step on
the user's support; their errors differ, so their mean is better than each."""

STACKED = ("ridge", "fwls", "greedy", "gbm")
"""The stackers that metarec may lean on: where there is little to learn from, they are hard to beat."""

EPOCHS = 60
BATCH_SIZE = 128
PATIENCE = range(4, 13)
"""Epochs without progress after which training stops: as many as make PATIENCE_STEPS steps, but one of these."""
PATIENCE_STEPS = 100


def metarec_predictions(episodes: DomainEpisodes, seed: int, stacked: Stacked) -> tuple[np.ndarray, dict[str, Any]]:
    """metarec: [R] unit-scale predictions of the test query rows, and how they were made.

    Its networks are meta-learned on train users and stopped by validation users; what they and the stackers say is
    combined with convex weights that validation users choose.
    """
    return _combined(episodes, _learners(episodes, seed), stacked)


def metarec_with_weights(episodes: DomainEpisodes, seed: int, stacked: Stacked) -> tuple[np.ndarray, np.ndarray]:
    """metarec's predictions of the test query rows [R], and how far its networks trusted each base there [R, A]."""
    learners = _learners(episodes, seed)
    support, query = episodes.test.batch
    weights = []
    for learner in learners.values():
        given = learner.adapt(support).fuse(query).weights
        assert given is not None, "a gated network says how far it trusts each base"
        weights.append(given[query.mask].numpy())
    return _combined(episodes, learners, stacked)[0], np.mean(weights, axis=0)


def network_predictions(name: str, episodes: DomainEpisodes, seed: int) -> np.ndarray:
    """[T, N] unit-scale predictions of the test query rows by one of `MEMBERS` alone."""
    learner = _meta_learn(MEMBERS[name], episodes, seed)
    return learner.adapt(episodes.test.batch.support).predict(episodes.test.batch.query).numpy()


def _learners(episodes: DomainEpisodes, seed: int) -> dict[str, MetaLearner]:
    return {
        name: _meta_learn(member, episodes, seed * len(MEMBERS) + place)
        for place, (name, member) in enumerate(MEMBERS.items())
    }


def _combined(
    episodes: DomainEpisodes, learners: Mapping[str, MetaLearner], stacked: Stacked
) -> tuple[np.ndarray, dict[str, Any]]:
    columns: dict[str, dict[str, np.ndarray]] = {}
    for role in Stacked._fields:
        part: Episodes = getattr(episodes, role)
        own = {name: _predict(learner, part) for name, learner in learners.items()}
        columns[role] = own | {name: getattr(stacked, role)[name] for name in STACKED}
    validation = episodes.validation.batch.query
    weights = convex_weights(
        np.stack(list(columns["validation"].values()), axis=1), validation.targets[validation.mask].numpy()
    )
    return np.stack(list(columns["test"].values()), axis=1) @ weights, {
        "weights": dict(zip(columns["test"], weights.tolist(), strict=True)),
        "members": {name: member._asdict() for name, member in MEMBERS.items()},
    }


def _meta_learn(member: Member, episodes: DomainEpisodes, seed: int) -> MetaLearner:
    inputs = episodes.train.batch.query
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = NETWORKS.get("gated").for_episodes(
            inputs.predictions.shape[-1],
            inputs.algorithm_features.shape[-1],
            inputs.context.shape[-1],
            hidden_dim=member.hidden_dim,
            dropout=member.dropout,
        )
    learner = make_engine("batched", network, inner_lr=member.inner_lr, inner_steps=member.inner_steps)
    epochs_of_patience = round(PATIENCE_STEPS * BATCH_SIZE / len(episodes.train))
    MetaLearningTrainer(learner, seed=seed).fit(
        episodes.train.batch,
        episodes.validation.batch,
        num_epochs=EPOCHS,
        learning_rate=member.outer_lr,
        batch_size=BATCH_SIZE,
        patience=min(max(epochs_of_patience, PATIENCE[0]), PATIENCE[-1]),
    )
    return learner


def _predict(learner: MetaLearner, episodes: Episodes) -> np.ndarray:
    query = episodes.batch.query
    predicted = learner.adapt(episodes.batch.support).predict(query)[query.mask]
    return predicted.numpy().astype(np.float64)
