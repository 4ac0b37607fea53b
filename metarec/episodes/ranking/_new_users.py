"""The candidates of new users, made as the ranking episodes of their domain: the inputs of a trained fusion in use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch

from metarec.bases.ranking import RankingBase, fit_ranking_base
from metarec.episodes._episodes import EpisodeBatch, Episodes
from metarec.episodes._standards import standard_inputs
from metarec.episodes.ranking._features import (
    RANKING_FEATURE_NAMES,
    Catalogue,
    RankingStandards,
    context_names,
    make_tables,
    query_side,
    support_side,
)
from metarec.episodes.ranking._tasks import UserHistory
from metarec.episodes.ranking.settings import RankingSettings
from metarec.errors import InputError
from metarec.ratings import Domain, RatingScale

__all__ = ["RankingTaskMaker"]


@dataclass(frozen=True)
class RankingTaskMaker:
    """Makes the lists of new users exactly as the ranking episodes of a domain.

    Attributes:
        bases: name -> fitted base, in the order of the tensors' axis.
        catalogue: the items that the bases were fitted on.
        standards: the standardisation of features, from :attr:`RankingEpisodes.ranking_standards`.
        settings: how lists are made. seed: of the drawn candidates beside the support.
    """

    bases: Mapping[str, RankingBase]
    catalogue: Catalogue
    standards: RankingStandards
    settings: RankingSettings
    seed: int = 0

    @classmethod
    def fit(
        cls,
        domain: Domain,
        bases: Mapping[str, Mapping[str, Any]],
        standards: RankingStandards,
        settings: RankingSettings,
        *,
        seed: int = 0,
    ) -> Self:
        """Fit the bases on all events of `domain`, which must not hold those of test users.

        Args:
            bases: name -> options of each base. seed: of the bases and of the draws, as in the episodes.
        """
        fitted = {name: fit_ranking_base(name, domain, options, seed=seed) for name, options in bases.items()}
        return cls(fitted, Catalogue.of(domain), standards, settings, seed)

    def users(self, histories: Sequence[tuple[np.ndarray, np.ndarray]]) -> Episodes:
        """The candidates of T users, as episodes without targets.

        Args:
            histories: [k] item ids in the order of time, and [k] weights > 0, for each user; may be empty. Items
                outside of the catalogue are left out. Where repeats are included, an item is there for each of its
                events, which have different times; otherwise it is there once, with the sum of the weights.

        Raises:
            InputError: no histories, an item that is there twice where repeats are excluded, or a weight that is not
                finite and > 0.
        """
        if not histories:
            raise InputError("histories must hold at least one user's but is empty")
        for items, weights in histories:
            if self.settings.repeats == "exclude" and len(set(items.tolist())) < len(items):
                raise InputError("a history must hold each item once, with the sum of its weights")
            if not (np.isfinite(weights) & (weights > 0)).all():
                wrong = weights[~(np.isfinite(weights) & (weights > 0))][0]
                raise InputError(f"every weight of a history must be finite and > 0 but got {wrong}")
        known = [UserHistory.of_events(items, weights) for items, weights in histories]
        arrays = make_tables(self.bases, self.catalogue, known, self.settings, seed=self.seed)
        arrays["most"] = np.array(self.settings.candidates)
        standards = self.standards
        support = support_side(arrays, standards.priors)
        query = query_side(arrays, standards.priors, damping=standards.damping)
        masks = {side: arrays[f"{side}-items"] >= 0 for side in ("query", "support")}
        moments = standards.algorithm, standards.context
        nothing = np.zeros(masks["query"].shape)
        ids = self.catalogue.index.to_numpy()
        return Episodes(
            domain="",
            scale=RatingScale(0, 1),
            base_names=tuple(self.bases),
            feature_names=RANKING_FEATURE_NAMES,
            context_names=context_names(self.settings),
            batch=EpisodeBatch(
                standard_inputs(support, *moments, arrays["support-targets"], masks["support"]),
                standard_inputs(query, *moments, nothing, masks["query"]),
            ),
            users=np.full(len(histories), "", dtype=object),
            support_items=np.where(masks["support"], ids[arrays["support-items"]], ""),
            query_items=np.where(masks["query"], ids[arrays["query-items"]], ""),
            query_fallback=torch.from_numpy(query.fallback).float(),
            query_ratings=nothing,
            relevant=np.zeros(len(histories), dtype=int),
        )
