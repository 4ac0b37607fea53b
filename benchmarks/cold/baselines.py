"""Every baseline, tuned on the same validation users, and their convex combination without networks."""

from __future__ import annotations

from typing import Any

import numpy as np

from metarec.episodes import DomainEpisodes
from metarec.fusion.stackers import STACKERS
from metarec.model import Fusion, FusionConfig, fit_stacker

__all__ = ["STACK", "baseline_predictions"]

STACK = "stack"
"""metarec without its networks: the fair opponent of a combination is a combination."""


def baseline_predictions(episodes: DomainEpisodes, seed: int) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Name -> [R] unit-scale predictions of the test query rows; and name -> the settings that were chosen."""
    fitted = {name: fit_stacker(name, episodes.train, episodes.validation, seed=seed) for name in STACKERS.names()}
    stack = Fusion(FusionConfig(networks={}, stackers=tuple(fitted)), seed=seed).fit(episodes, stackers=fitted)
    predictions = {name: stacker.predict(episodes.test) for name, stacker in fitted.items()}
    settings: dict[str, Any] = {
        name: {**stacker.settings, "validation_unit_rmse": stacker.validation_rmse} for name, stacker in fitted.items()
    }
    predictions[STACK], settings[STACK] = stack.predict(episodes.test), {"weights": stack.weights}
    mask = episodes.test.batch.query.mask.numpy()
    return {name: values[mask] for name, values in predictions.items()}, settings
