"""Every baseline at its best."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from metarec.episodes import DomainEpisodes, Episodes
from metarec.fusion.stackers import STACKERS

__all__ = ["Stacked", "baseline_predictions"]


class Stacked(NamedTuple):
    """What the baselines say: name -> [R] unit-scale predictions of the query rows, row by row and user by user."""

    validation: Mapping[str, np.ndarray]
    test: Mapping[str, np.ndarray]


def baseline_predictions(episodes: DomainEpisodes, seed: int) -> tuple[Stacked, dict[str, Any]]:
    """Every baseline, tuned on the validation users: its predictions, and what was chosen."""
    stacked, settings = Stacked({}, {}), {}
    for name in STACKERS.names():
        stacker = STACKERS.get(name)().fit(episodes.train, episodes.validation, seed=seed)
        settings[name] = {**stacker.settings, "validation_unit_rmse": stacker.validation_rmse}
        for role in Stacked._fields:
            part: Episodes = getattr(episodes, role)
            getattr(stacked, role)[name] = stacker.predict(part)[part.batch.query.mask.numpy()]
    return stacked, settings
