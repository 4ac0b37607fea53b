"""Every baseline, tuned on the same validation users, and their combinations without networks."""

from __future__ import annotations

from typing import Any

import numpy as np

from metarec.episodes import DomainEpisodes
from metarec.fusion.stackers import STACKERS
from metarec.model import Fusion, FusionConfig
from metarec.model.contrasts import stacks_of

__all__ = ["baseline_predictions"]


def baseline_predictions(episodes: DomainEpisodes, seed: int) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Name -> [R] unit-scale predictions of the test query rows; and name -> the settings that were chosen."""
    stackers = tuple(STACKERS.names())
    fusion = Fusion(FusionConfig(networks={}, stackers=stackers), seed=seed).fit(episodes)
    fitted: dict[str, Any] = fusion.stackers
    predictions = {name: stacker.predict(episodes.test) for name, stacker in fitted.items()}
    settings: dict[str, Any] = {
        name: {**stacker.settings, "validation_unit_rmse": stacker.validation_rmse} for name, stacker in fitted.items()
    }
    for name, stack in stacks_of(fusion).items():
        predictions[name], settings[name] = stack.predict(episodes.test), {"weights": stack.weights}
    mask = episodes.test.batch.query.mask.numpy()
    return {name: values[mask] for name, values in predictions.items()}, settings
