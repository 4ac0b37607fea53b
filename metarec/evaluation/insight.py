"""A look into the best network: whom it trusts, when, and whether rightly. Nothing is chosen by what is seen."""

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
"""So many known ratings, as far as there are as many, are what weights are shown against."""


class Insight(NamedTuple):
    """What is known of the target's test users, and how the best network weighs the bases for them.

    Attributes:
        behaviour: user -> see :func:`~metarec.evaluation.segments.behaviour_of`.
        bases: the names of the A bases.
        rows: a row for each test query: ``user``, ``popularity`` (ratings of the item by people who are not judged on),
            and for each base ``weight/BASE``, ``confidence/BASE``, ``rightness/BASE``: 1 - its error, as a share of the
            largest error of any base there. Without columns that the network does not say; None for no network.
        shots: ``shots``, ``user``, and ``weight/BASE``: the mean over a user's queries with only so many known ratings.
    """

    behaviour: pd.DataFrame
    bases: tuple[str, ...] = ()
    rows: pd.DataFrame | None = None
    shots: pd.DataFrame | None = None

    @property
    def user_weights(self) -> pd.DataFrame | None:
        """User -> the mean weight of each base; None where the network has no weights."""
        columns = [f"weight/{base}" for base in self.bases]
        if self.rows is None or not set(columns) <= set(self.rows.columns):
            return None
        return self.rows.groupby("user")[columns].mean().set_axis(list(self.bases), axis=1)


def crowd_of(domain: Domain, *judged: Episodes) -> Domain:
    """The domain without the users of these episodes."""
    return domain.without({user for episodes in judged for user in episodes.users})


def look_into(domain: Domain, episodes: DomainEpisodes, learner: MetaLearner, maker: TaskMaker) -> Insight:
    """What a finished study's best learner makes of the test users.

    Args:
        domain: the target's table. episodes: its episodes.
        maker: makes tasks of the bases that predicted for the test users, to ask them after fewer ratings.
    """
    test = episodes.test
    crowd = crowd_of(domain, episodes.validation, test)
    said = learner.adapt(test.batch.support).fuse(test.batch.query)
    query, mask = test.batch.query, test.batch.query.mask
    popularity = crowd.ratings["item"].value_counts().reindex(test.query_items[mask.numpy()], fill_value=0)
    columns: dict[str, Any] = {
        "user": np.repeat(test.users, mask.sum(1).numpy()),
        "popularity": popularity.to_numpy(),
    }
    kinds = {"weight": said.weights, "confidence": said.confidences}
    if said.confidences is not None:
        rightness = confidence_target(query.predictions, query.targets)
        kinds["rightness"] = rightness.where(query.predictions.isfinite(), torch.nan)
    for kind, values in kinds.items():
        if values is not None:
            table = values[mask].detach().numpy()
            columns |= {f"{kind}/{base}": table[:, place] for place, base in enumerate(test.base_names)}
    shots = None
    if said.weights is not None:
        shots = _weights_by_shots(learner, test, maker)
    return Insight(behaviour_of(domain, test, crowd), test.base_names, pd.DataFrame(columns), shots)


def _weights_by_shots(learner: MetaLearner, test: Episodes, maker: TaskMaker) -> pd.DataFrame:
    """The same questions to the same users, of whom less is known."""
    support, query = test.batch.support, test.batch.query
    lengths = support.mask.sum(1).tolist()
    asked = [items[mask] for items, mask in zip(test.query_items, query.mask.numpy(), strict=True)]
    ratings = test.scale.to_ratings(support.targets.numpy().astype(np.float64))
    # Back from the unit scale in single precision.
    ratings = np.clip(ratings, test.scale.low, test.scale.high)
    frames = []
    for shots in [level for level in LEVELS if level < max(lengths)] + [max(lengths)]:
        known = [min(shots, length) for length in lengths]
        users = maker.users(
            [History(items[:k], own[:k]) for items, own, k in zip(test.support_items, ratings, known, strict=True)]
        )
        rows = users.query(asked)
        weights = learner.adapt(users.support).fuse(rows).weights
        assert weights is not None
        mask = rows.mask[..., None]
        means = ((weights * mask).sum(1) / mask.sum(1)).detach().numpy()
        table = pd.DataFrame(means, columns=[f"weight/{base}" for base in test.base_names])
        frames.append(table.assign(shots=shots, user=test.users))
    return pd.concat(frames, ignore_index=True)
