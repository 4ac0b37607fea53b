"""metarec as ``python -m metarec.study ranking`` proposes it, its parts, and its tuned opponents."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from benchmarks.common.folders import ROOT
from benchmarks.common.study import study_predictions
from metarec.episodes.ranking import RankingEpisodes
from metarec.study.spec import load_spec

__all__ = ["ranking_predictions"]


def ranking_predictions(
    episodes: RankingEpisodes, seed: int
) -> tuple[dict[str, np.ndarray], dict[str, Mapping[str, Any]]]:
    """Model -> [T, N] scores of the test users' candidates; and the settings that validation users chose."""
    spec = load_spec(str(ROOT / "studies" / "ranking.yaml"), {"seed": seed, "target": episodes.train.domain})
    return study_predictions(episodes, spec)
