"""The model that ``python -m metarec.study cold-start`` proposes, learned on episodes that are made already."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from benchmarks.common.folders import ROOT
from benchmarks.common.study import searched
from metarec.episodes import DomainEpisodes
from metarec.evaluation.metrics import METAREC
from metarec.meta import AdaptedNetwork, NetworkConfig
from metarec.model import Fusion
from metarec.model.contrasts import NETWORK_ALONE, NO_INNER_LOOP
from metarec.study.spec import StudySpec, load_spec

__all__ = [
    "PARTS",
    "Proposal",
    "metarec_predictions",
    "propose",
    "static_network_predictions",
    "weights_of",
]

PARTS = (NETWORK_ALONE, NO_INNER_LOOP)
"""The models that a search makes beside the proposed one, and that show what its gain is made of."""


def _spec_of(episodes: DomainEpisodes, seed: int) -> StudySpec:
    """The command's settings, for one domain and one seed."""
    spec = load_spec(str(ROOT / "studies" / "cold-start.yaml"), {"seed": seed})
    return spec.model_copy(update={"target": episodes.train.domain})


class Proposal(NamedTuple):
    """The model that the command proposes, and what its gain is made of: the best network, no inner loop."""

    fusion: Fusion
    parts: dict[str, Fusion]


def propose(episodes: DomainEpisodes, seed: int) -> Proposal:
    """Search as the command does, and combine the best trials with the stackers.

    Trials are judged, and weights chosen, on validation users; test users are not looked at.
    """
    fusion, contrasts = searched(episodes, _spec_of(episodes, seed))
    return Proposal(fusion, {name: contrasts[name] for name in PARTS if name in contrasts})


def metarec_predictions(episodes: DomainEpisodes, seed: int) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """metarec and :data:`PARTS`: name -> [R] unit-scale predictions of the test query rows; and how they were made."""
    fusion, parts = propose(episodes, seed)
    networks = {name: config.model_dump(mode="json") for name, config in fusion.config.networks.items()}
    mask = episodes.test.batch.query.mask.numpy()
    models = {METAREC: fusion, **parts}
    settings = {"weights": {name: one.weights for name, one in models.items()}, "members": networks}
    return {name: one.predict(episodes.test)[mask] for name, one in models.items()}, settings


def weights_of(fusion: Fusion, episodes: DomainEpisodes) -> np.ndarray:
    """[R, A] the weights that the networks of a fusion give the bases in the test query rows, on average."""
    support, query = episodes.test.batch
    weights = []
    for learner in fusion.networks.values():
        adapted = learner.adapt(support)
        assert isinstance(adapted, AdaptedNetwork), "the benchmark fits each member once"
        given = adapted.fuse(query).weights
        assert given is not None, "a gated network has a weight for each base"
        weights.append(given[query.mask].numpy())
    mean: np.ndarray = np.mean(weights, axis=0)
    return mean


def static_network_predictions(episodes: DomainEpisodes, seed: int) -> np.ndarray:
    """[T, N] unit-scale predictions of the test query rows by the default network without inner steps."""
    config = NetworkConfig(inner_steps=0, outer_lr=2e-3)
    learner = config.fit([episodes.train.batch], [episodes.validation.batch], seed=seed).learner
    return learner.adapt(episodes.test.batch.support).predict(episodes.test.batch.query).numpy()
