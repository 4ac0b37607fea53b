"""The best network's weights and confidences on test users. No choice depends on them."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch

from metarec.episodes import DomainEpisodes, Episodes, History, TaskMaker
from metarec.evaluation.segments import behaviour_of
from metarec.fusion.losses import confidence_target
from metarec.meta import MetaLearner
from metarec.ratings import Domain

__all__ = ["Insight", "crowd_of", "look_into"]

LEVELS = (0, 1, 2, 5, 10, 20, 50)
"""Numbers of support ratings at which weights are computed, up to the longest support."""


class Insight(NamedTuple):
    """Measures of the target's test users, and the best network's weights of the bases for them.

    Attributes:
        behaviour: user -> see :func:`~metarec.evaluation.segments.behaviour_of`.
        bases: the names of the A bases.
        rows: a row for each test query: ``user``, ``popularity`` (the item's ratings by train users), and for each
            base ``weight/BASE``, ``confidence/BASE``, ``rightness/BASE``: 1 - its error, as a share of the largest
            error of any base there. Only columns that the network has; None for no network.
        shots: ``shots``, ``user``, and ``weight/BASE``: the mean over a user's queries with this many support ratings.
    """

    behaviour: pd.DataFrame
    bases: tuple[str, ...] = ()
    rows: pd.DataFrame | None = None
    shots: pd.DataFrame | None = None

    @property
    def user_weights(self) -> pd.DataFrame | None:
        """User -> the mean weight of each base; None if the network has no weights."""
        columns = [f"weight/{base}" for base in self.bases]
        if self.rows is None or not set(columns) <= set(self.rows.columns):
            return None
        return self.rows.groupby("user")[columns].mean().set_axis(list(self.bases), axis=1)


def crowd_of(domain: Domain, *held_out: Episodes) -> Domain:
    """The domain without the users of these episodes."""
    return domain.without({user for episodes in held_out for user in episodes.users})


def look_into(
    domain: Domain, crowd: Domain, episodes: DomainEpisodes, learner: MetaLearner, maker: TaskMaker
) -> Insight:
    """Compute the best learner's weights and confidences for the test users.

    Args:
        domain: the target's table. crowd: what its bases were fitted on. episodes: its episodes.
        maker: makes tasks with the bases that predicted for the test users, to predict after fewer ratings.
    """
    test = episodes.test
    fused = learner.adapt(test.batch.support).fuse(test.batch.query)
    query, mask = test.batch.query, test.batch.query.mask
    popularity = crowd.ratings["item"].value_counts().reindex(test.query_items[mask.numpy()], fill_value=0)
    columns: dict[str, Any] = {
        "user": np.repeat(test.users, mask.sum(1).numpy()),
        "popularity": popularity.to_numpy(),
    }
    kinds = {"weight": fused.weights, "confidence": fused.confidences}
    if fused.confidences is not None:
        rightness = confidence_target(query.predictions, query.targets)
        kinds["rightness"] = rightness.where(query.predictions.isfinite(), torch.nan)
    for kind, values in kinds.items():
        if values is not None:
            table = values[mask].detach().numpy()
            columns |= {f"{kind}/{base}": table[:, place] for place, base in enumerate(test.base_names)}
    shots = None if fused.weights is None else _weights_by_shots(learner, test, maker)
    return Insight(behaviour_of(domain, test, crowd), test.base_names, pd.DataFrame(columns), shots)


def _weights_by_shots(learner: MetaLearner, test: Episodes, maker: TaskMaker) -> pd.DataFrame:
    """The weights for the same queries of the same users, after fewer support ratings."""
    support, query = test.batch.support, test.batch.query
    lengths = support.mask.sum(1).tolist()
    queries = [items[mask] for items, mask in zip(test.query_items, query.mask.numpy(), strict=True)]
    ratings = test.scale.to_ratings(support.targets.numpy().astype(np.float64))
    # Ratings on the unit scale have single precision and may round beyond the limits.
    ratings = np.clip(ratings, test.scale.low, test.scale.high)
    frames = []
    for shots in [level for level in LEVELS if level < max(lengths)] + [max(lengths)]:
        cuts = [min(shots, length) for length in lengths]
        users = maker.users(
            [History(items[:cut], own[:cut]) for items, own, cut in zip(test.support_items, ratings, cuts, strict=True)]
        )
        rows = users.query(queries)
        weights = learner.adapt(users.support).fuse(rows).weights
        assert weights is not None
        mask = rows.mask[..., None]
        means = ((weights * mask).sum(1) / mask.sum(1)).detach().numpy()
        table = pd.DataFrame(means, columns=[f"weight/{base}" for base in test.base_names])
        frames.append(table.assign(shots=shots, user=test.users))
    return pd.concat(frames, ignore_index=True)
