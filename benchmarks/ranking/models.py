"""metarec as ``python -m metarec.study ranking`` proposes it, its parts, and its tuned opponents."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from benchmarks.cold.models import searched
from benchmarks.common.folders import ROOT
from metarec.episodes.ranking import RankingEpisodes
from metarec.evaluation.metrics import METAREC, base_unit_predictions
from metarec.study.spec import load_spec

__all__ = ["ranking_predictions"]


def ranking_predictions(episodes: RankingEpisodes, seed: int) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Model -> [T, N] scores of the test users' candidates; and the settings that validation users chose."""
    spec = load_spec(str(ROOT / "studies" / "ranking.yaml"), {"seed": seed, "target": episodes.train.domain})
    fusion, contrasts = searched(episodes, spec)
    members = fusion.members(episodes.test)
    predictions = {METAREC: fusion.combine(members)}
    predictions |= {name: one.predict(episodes.test) for name, one in contrasts.items()}
    predictions |= {name: members[name] for name in fusion.stackers}
    predictions |= base_unit_predictions(episodes.test)
    settings: dict[str, Mapping[str, Any]] = {
        **{name: one.weights for name, one in {METAREC: fusion, **contrasts}.items()},
        **{name: stacker.settings for name, stacker in fusion.stackers.items()},
    }
    return predictions, settings
