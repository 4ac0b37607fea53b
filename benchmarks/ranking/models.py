"""metarec as ``python -m metarec.study ranking`` proposes it, its parts, and its tuned opponents."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from benchmarks.cold.models import search_in
from benchmarks.common.folders import ROOT
from metarec.episodes.ranking import RankingEpisodes
from metarec.evaluation.metrics import METAREC
from metarec.fusion.ranks import standard_scores
from metarec.study.spec import load_spec

__all__ = ["ranking_predictions"]


def ranking_predictions(episodes: RankingEpisodes, seed: int) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Model -> [T, N] scores of the test users' candidates; and the settings that validation users chose."""
    spec = load_spec(str(ROOT / "studies" / "ranking.yaml"), {"seed": seed, "target": episodes.train.domain})
    with TemporaryDirectory(prefix="metarec-cell-") as name:
        searched = search_in(Path(name), spec, episodes)
        fusion = searched.fusion(episodes.train.domain)
        contrasts = searched.contrasts(episodes.train.domain, fusion)
    members = fusion.members(episodes.test)
    predictions = {METAREC: fusion.combine(members, episodes.test)}
    predictions |= {name: one.predict(episodes.test) for name, one in contrasts.items()}
    predictions |= {name: members[name] for name in fusion.stackers}
    predictions |= _bases(episodes)
    settings: dict[str, Mapping[str, Any]] = {
        **{name: one.weights for name, one in {METAREC: fusion, **contrasts}.items()},
        **{name: stacker.settings for name, stacker in fusion.stackers.items()},
    }
    return predictions, settings


def _bases(episodes: RankingEpisodes) -> dict[str, np.ndarray]:
    """Base -> [T, N] its scores; a base without scores for a user leaves the candidates in the order of their ids."""
    query = episodes.test.batch.query
    own = np.nan_to_num(query.predictions.numpy(), nan=0.5)
    scores = standard_scores(own, query.mask.numpy())
    return {name: scores[..., base] for base, name in enumerate(episodes.test.base_names)}
