"""nDCG of each user's query items, as LensKit computes it."""

from __future__ import annotations

import numpy as np
import pandas as pd
from lenskit.data import ItemList
from lenskit.metrics import NDCG

from metarec.evaluation.metrics import KEYS

__all__ = ["ndcg_by_user"]


def ndcg_by_user(rows: pd.DataFrame, *, lowest: float, n: int = 10, seed: int = 0) -> pd.DataFrame:
    """nDCG@n of every model: one line a user, in order of appearance, a column a model.

    A model's list is the user's query items by its predictions; the gain is the rating (graded), the discount LensKit's
    own: log2 of the rank from the second on (Järvelin, Kekäläinen 2002). Where the scale goes below zero, gains are
    counted from its lowest rating, because a gain must not be negative. Equal predictions are put in a random order
    that is the same for all models, so that no model profits from how items are listed. A user all of whose gains are
    zero has no nDCG: NaN.

    Args:
        rows: domain, user, item, rating, and a column for each model.
        lowest: of the rating scale.
    """
    metric = NDCG(n, gain="rating")
    models = list(rows.columns.drop(KEYS))
    lottery = np.random.default_rng(seed).random(len(rows))
    gains = rows["rating"].to_numpy(float) - min(lowest, 0.0)
    predictions = rows[models].to_numpy(float)
    result = {}
    for user, places in rows.groupby("user", sort=False).indices.items():
        if not gains[places].any():
            result[user] = np.full(len(models), np.nan)
            continue
        items = rows["item"].to_numpy()[places]
        truth = ItemList(item_ids=items, rating=gains[places])
        orders = (np.lexsort((lottery[places], -predictions[places, model])) for model in range(len(models)))
        result[user] = np.array(
            [metric.measure_list(ItemList(item_ids=items[order[:n]], ordered=True), truth) for order in orders]
        )
    return pd.DataFrame.from_dict(result, orient="index", columns=models).rename_axis("user")
