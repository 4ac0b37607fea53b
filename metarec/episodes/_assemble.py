"""From predictions and facts in padded arrays to the episodes of each role."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from metarec.episodes._batch import EpisodeBatch, FusionInputs
from metarec.episodes._episodes import Episodes
from metarec.episodes._features import CONTEXT_NAMES, FEATURE_NAMES, Features, Priors, Rows, make_features
from metarec.episodes._split import ROLES, Cut, Role
from metarec.episodes._standards import Moments, Standards, unit_rows
from metarec.episodes.settings import EpisodeSettings
from metarec.ratings import Domain

__all__ = ["DomainEpisodes", "assemble"]


@dataclass(frozen=True)
class DomainEpisodes:
    """One domain's episodes by the role of their users.

    `standards` is what their features were measured against, and so must be a new user's; None where the episodes were
    not made from ratings.
    """

    train: Episodes
    validation: Episodes
    test: Episodes
    standards: Standards | None = field(default=None, kw_only=True)


def assemble(
    domain: Domain,
    roles: Mapping[str, Role],
    cuts: Sequence[Cut],
    settings: EpisodeSettings,
    base_names: tuple[str, ...],
    arrays: Mapping[str, np.ndarray],
) -> DomainEpisodes:
    """Features and tensors. Statistics of any kind come from the train users' rows.

    Args:
        roles: user -> role, of every user with an episode. cuts: T episodes; draws above 0 of train users only.
        arrays: in the order of `cuts`; "support" [T, K, A] and "query" [T, N, A] predictions in the domain's units,
            "support_evidence" and "query_evidence" of the same shapes, "support_facts" [T, K, 5] and "query_facts"
            [T, N, 5] (see :class:`ItemFacts`).
    """
    shots, scale = settings.shots, domain.scale
    tasks = [cut.task for cut in cuts]
    users = np.array([task.user for task in tasks], dtype=object)
    role = np.array([roles[user] for user in users], dtype=object)
    lengths = np.array([len(task.query_items) for task in tasks])
    width = int(lengths.max())
    support_mask = np.broadcast_to(np.arange(max(shots, 1)) < shots, (len(users), max(shots, 1)))
    query_mask = np.arange(width) < lengths[:, None]
    support_items, support_ratings = _padded(
        [task.support_items for task in tasks],
        [scale.to_unit(task.support_ratings) for task in tasks],
        support_mask.shape[1],
    )
    query_items, query_ratings = _padded([task.query_items for task in tasks], [cut.ratings for cut in cuts], width)
    targets = scale.to_unit(query_ratings)

    def rows(side: str, mask: np.ndarray) -> Rows:
        predictions, evidence, facts = (
            arrays[f"{side}{what}"][:, : mask.shape[1]] for what in ("", "_evidence", "_facts")
        )
        return unit_rows(predictions, evidence, facts, mask, scale)

    support, query = rows("support", support_mask), rows("query", query_mask)
    train_rows = query_mask & (role == "train")[:, None]
    errors = np.abs(query.predictions - targets[..., None])[train_rows]
    said = np.isfinite(errors)
    # A base that never says anything on train users gets the error of a coin toss; its features are constant anyway.
    absolute_error = np.where(said.any(0), np.nansum(errors, 0) / np.maximum(said.sum(0), 1), 0.5)
    train_targets = [targets[row][query_mask[row]] for row in np.flatnonzero(role == "train")]
    priors = Priors(absolute_error, float(np.mean([ratings.var() for ratings in train_targets])))
    sides = make_features(support, support_ratings, query, priors, damping=settings.damping)
    known = sides[1]
    standards = Standards(
        priors, Moments.of(known.algorithm[train_rows]), Moments.of(known.context[train_rows]), settings.damping
    )

    def episodes(wanted: Role) -> Episodes:
        chosen = np.flatnonzero(role == wanted)

        def inputs(side: Features, ratings: np.ndarray, mask: np.ndarray) -> FusionInputs:
            return standards.inputs(Features(*(values[chosen] for values in side)), ratings[chosen], mask[chosen])

        return Episodes(
            domain=domain.name,
            scale=scale,
            base_names=base_names,
            feature_names=FEATURE_NAMES,
            context_names=CONTEXT_NAMES,
            batch=EpisodeBatch(
                inputs(sides[0], support_ratings, support_mask),
                inputs(sides[1], targets, query_mask),
            ),
            users=users[chosen],
            support_items=support_items[chosen],
            query_items=query_items[chosen],
            query_fallback=torch.from_numpy(sides[1].fallback[chosen]).float(),
            query_ratings=query_ratings[chosen],
        )

    return DomainEpisodes(*(episodes(wanted) for wanted in ROLES), standards=standards)


def _padded(items: Sequence[np.ndarray], ratings: Sequence[np.ndarray], width: int) -> tuple[np.ndarray, np.ndarray]:
    padded_items = np.full((len(items), width), "", dtype=object)
    padded_ratings = np.zeros((len(items), width))
    for row, (own_items, own_ratings) in enumerate(zip(items, ratings, strict=True)):
        padded_items[row, : len(own_items)] = own_items
        padded_ratings[row, : len(own_ratings)] = own_ratings
    return padded_items, padded_ratings
