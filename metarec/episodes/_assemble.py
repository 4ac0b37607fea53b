"""From predictions and facts in padded arrays to the episodes of each role."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from metarec.episodes._batch import EpisodeBatch, FusionInputs
from metarec.episodes._episodes import Episodes
from metarec.episodes._features import CONTEXT_NAMES, FEATURE_NAMES, Features, ItemFacts, Priors, Rows, make_features
from metarec.episodes._split import ROLES, Cut, Role
from metarec.episodes.settings import EpisodeSettings
from metarec.ratings import Domain

__all__ = ["DomainEpisodes", "assemble"]


@dataclass(frozen=True)
class DomainEpisodes:
    """One domain's episodes by the role of their users."""

    train: Episodes
    validation: Episodes
    test: Episodes


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
    unit = {side: np.clip(scale.to_unit(arrays[side].astype(np.float64)), 0.0, 1.0) for side in ("support", "query")}
    support_mask = np.broadcast_to(np.arange(max(shots, 1)) < shots, (len(users), max(shots, 1)))
    query_mask = np.arange(width) < lengths[:, None]
    support_items, support_ratings = _padded(
        [task.support_items for task in tasks],
        [scale.to_unit(task.support_ratings) for task in tasks],
        support_mask.shape[1],
    )
    query_items, query_ratings = _padded([task.query_items for task in tasks], [cut.ratings for cut in cuts], width)
    targets = scale.to_unit(query_ratings)
    support = Rows(unit["support"], arrays["support_evidence"], ItemFacts.of(arrays["support_facts"]), support_mask)
    query = Rows(
        unit["query"][:, :width],
        arrays["query_evidence"][:, :width],
        ItemFacts.of(arrays["query_facts"][:, :width]),
        query_mask,
    )

    train_rows = query_mask & (role == "train")[:, None]
    errors = np.abs(query.predictions - targets[..., None])[train_rows]
    said = np.isfinite(errors)
    # A base that never says anything on train users gets the error of a coin toss; its features are constant anyway.
    absolute_error = np.where(said.any(0), np.nansum(errors, 0) / np.maximum(said.sum(0), 1), 0.5)
    train_targets = [targets[row][query_mask[row]] for row in np.flatnonzero(role == "train")]
    priors = Priors(absolute_error, float(np.mean([ratings.var() for ratings in train_targets])))
    sides = make_features(support, support_ratings, query, priors, damping=settings.damping)
    scaled = [_standardised(side, sides[1], train_rows) for side in sides]

    def episodes(wanted: Role) -> Episodes:
        chosen = np.flatnonzero(role == wanted)
        return Episodes(
            domain=domain.name,
            scale=scale,
            base_names=base_names,
            feature_names=FEATURE_NAMES,
            context_names=CONTEXT_NAMES,
            batch=EpisodeBatch(
                _inputs(scaled[0], support_ratings, support_mask, chosen),
                _inputs(scaled[1], targets, query_mask, chosen),
            ),
            users=users[chosen],
            support_items=support_items[chosen],
            query_items=query_items[chosen],
            query_fallback=torch.from_numpy(sides[1].fallback[chosen]).float(),
            query_ratings=query_ratings[chosen],
        )

    return DomainEpisodes(*(episodes(wanted) for wanted in ROLES))


def _padded(items: Sequence[np.ndarray], ratings: Sequence[np.ndarray], width: int) -> tuple[np.ndarray, np.ndarray]:
    padded_items = np.full((len(items), width), "", dtype=object)
    padded_ratings = np.zeros((len(items), width))
    for row, (own_items, own_ratings) in enumerate(zip(items, ratings, strict=True)):
        padded_items[row, : len(own_items)] = own_items
        padded_ratings[row, : len(own_ratings)] = own_ratings
    return padded_items, padded_ratings


def _standardised(side: Features, reference: Features, train_rows: np.ndarray) -> Features:
    """Features with mean 0 and deviation 1 over the train users' query rows; what is constant there becomes 0."""

    def standardise(values: np.ndarray, known: np.ndarray) -> np.ndarray:
        mean, spread = known.mean(0), known.std(0)
        varies = spread > 1e-6
        # Far outside of what training saw a network only extrapolates; five deviations are far enough.
        return np.where(varies, np.clip((values - mean) / np.where(varies, spread, 1.0), -5, 5), 0.0)

    return side._replace(
        algorithm=standardise(side.algorithm, reference.algorithm[train_rows]),
        context=standardise(side.context, reference.context[train_rows]),
    )


def _inputs(side: Features, targets: np.ndarray, mask: np.ndarray, chosen: np.ndarray) -> FusionInputs:
    rows = mask[chosen]

    def tensor(values: np.ndarray, padding: float) -> torch.Tensor:
        kept = values[chosen]
        hidden = ~rows.reshape(rows.shape + (1,) * (kept.ndim - 2))
        return torch.from_numpy(np.where(hidden, padding, kept)).float()

    return FusionInputs(
        predictions=tensor(side.predictions, 0.5),
        algorithm_features=tensor(side.algorithm, 0.0),
        context=tensor(side.context, 0.0),
        targets=tensor(targets, 0.0),
        mask=torch.from_numpy(rows.copy()),
    )
