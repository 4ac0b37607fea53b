"""The candidates of new users, made as the ranking episodes of their domain: the inputs of a trained fusion in use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import pandas as pd
import torch

from metarec.bases import Learned, Stored, check_stored
from metarec.bases.ranking import RankingBase, fit_ranking_base
from metarec.episodes._episodes import EpisodeBatch, Episodes
from metarec.episodes._standards import Moments, standard_inputs
from metarec.episodes.ranking._features import (
    RANKING_FEATURE_NAMES,
    Catalogue,
    RankingStandards,
    UserPriors,
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

    def arrays(self) -> dict[str, Learned]:
        """The catalogue and the standards as plain arrays; :meth:`from_arrays` is the inverse."""
        standards = self.standards
        return {
            "items": self.catalogue.index.to_numpy().astype(np.str_),
            "facts": self.catalogue.facts,
            "percentile": standards.priors.percentile,
            "discount": standards.priors.discount,
            "algorithm_mean": standards.algorithm.mean,
            "algorithm_spread": standards.algorithm.spread,
            "context_mean": standards.context.mean,
            "context_spread": standards.context.spread,
            "damping": standards.damping,
        }

    @classmethod
    def from_arrays(
        cls, stored: Mapping[str, Any], bases: Mapping[str, RankingBase], settings: RankingSettings, *, seed: int
    ) -> Self:
        """The task maker with these fitted bases, from the arrays of :meth:`arrays`.

        Raises:
            InputError: an array is missing, or breaks its rule, or a base has another number of items.
        """
        features, contexts = f"bases {len(RANKING_FEATURE_NAMES)}", f"{len(context_names(settings))}"
        rules = {
            "items": Stored("items", kind="text", unique=True),
            "facts": Stored("items 3", low=0),
            "percentile": Stored("bases", low=0, high=1),
            "discount": Stored("bases", low=0, high=1),
            "algorithm_mean": Stored(features),
            "algorithm_spread": Stored(features, low=0),
            "context_mean": Stored(contexts),
            "context_spread": Stored(contexts, low=0),
            "damping": Stored(low=1e-9),
        }
        check_stored("the facts of the catalogue", stored, rules, {"bases": len(bases)})
        index = pd.Index(stored["items"].astype(object), dtype=object)
        for name, base in bases.items():
            if base.num_items != len(index):
                raise InputError(f"the ranking base {name} has {base.num_items:,} items, the catalogue {len(index):,}")
        standards = RankingStandards(
            UserPriors(stored["percentile"], stored["discount"]),
            Moments(stored["algorithm_mean"], stored["algorithm_spread"]),
            Moments(stored["context_mean"], stored["context_spread"]),
            float(stored["damping"]),
        )
        return cls(bases, Catalogue(index, stored["facts"]), standards, settings, seed)

    def users(self, histories: Sequence[UserHistory]) -> Episodes:
        """The candidates of T users, as episodes without targets.

        Args:
            histories: of each user, with item ids; may be empty. Items outside of the catalogue are left out.

        Raises:
            InputError: no histories, an item that is there twice, a weight that is not finite and > 0, or a count below
                1.
        """
        if not histories:
            raise InputError("histories must hold at least one user's but is empty")
        for items, weights, counts in histories:
            if len(set(items.tolist())) < len(items):
                raise InputError("a history must hold each item once, with the sum of its weights")
            if not (np.isfinite(weights) & (weights > 0)).all():
                wrong = weights[~(np.isfinite(weights) & (weights > 0))][0]
                raise InputError(f"every weight of a history must be finite and > 0 but got {wrong}")
            if (counts < 1).any():
                raise InputError(f"an item of a history must have at least 1 event but has {counts.min()}")
        arrays = make_tables(self.bases, self.catalogue, histories, self.settings, seed=self.seed)
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
