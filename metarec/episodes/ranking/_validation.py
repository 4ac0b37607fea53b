"""The lists of one ranking base alone for validation users, by which its settings are tuned."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from metarec.bases import base_errors
from metarec.bases.ranking import Histories, fit_ranking_base
from metarec.episodes._predictions import QueryScores
from metarec.episodes._split import UserRoles, validation_cuts
from metarec.episodes.ranking._build import ALL
from metarec.episodes.ranking._evidence import BUDGET
from metarec.episodes.ranking._lists import top_items
from metarec.episodes.settings import EpisodeSettings
from metarec.ratings import Domain
from metarec.threads import one_thread

__all__ = ["MOST", "validation_lists"]

MOST = 20
"""The length of the lists: nDCG@10 needs no more, and the best of equal scores at its end are among them."""


def validation_lists(
    domain: Domain, roles: UserRoles, settings: EpisodeSettings, name: str, options: Mapping[str, Any], *, seed: int
) -> QueryScores:
    """Fit one base on the train users, and make its lists for the validation users, as in ranking episodes.

    A user without a relevant item in the catalogue is left out. A base without scores for a user proposes nothing.

    Raises:
        InputError: the base raised an error.
    """
    fit_on = domain.without(roles.held_out(None))
    catalogue = fit_on.item_index
    users = []
    for cut in validation_cuts(domain, roles, settings.model_copy(update={"max_query": ALL}), seed):
        support, query = (catalogue.get_indexer(items) for items in (cut.task.support_items, cut.task.query_items))
        if (query >= 0).any():
            users.append((support[support >= 0], cut.task.support_ratings[support >= 0], query[query >= 0]))
    shape = len(users), min(MOST, len(catalogue))
    scores, targets, mask = np.zeros(shape), np.zeros(shape), np.zeros(shape, dtype=bool)
    with one_thread(), base_errors(name, f'domain "{domain.name}"'):
        base = fit_ranking_base(name, fit_on, options, seed=seed)
        step = max(1, BUDGET // len(catalogue))
        for first in range(0, len(users), step):
            part = slice(first, first + step)
            own = users[part]
            histories = Histories(
                np.array([len(items) for items, _, _ in own]),
                np.concatenate([items for items, _, _ in own]).astype(np.int64),
                np.concatenate([weights for _, weights, _ in own]).astype(np.float32),
            )
            table = base.score(histories)
            tops, proposed = top_items(table, [items for items, _, _ in own], MOST)
            # In the order of the items, which breaks ties in the metrics.
            order = np.argsort(tops, axis=1)
            tops, mask[part] = (np.take_along_axis(side, order, axis=1) for side in (tops, proposed))
            scores[part] = np.where(mask[part], np.take_along_axis(table, tops, axis=1), 0.0)
            targets[part] = np.stack([np.isin(top, query) for top, (_, _, query) in zip(tops, own, strict=True)])
    return QueryScores(scores, targets * mask, mask, np.array([len(query) for _, _, query in users]))
