"""Domains from LensKit's datasets."""

from __future__ import annotations

import numpy as np
import pandas as pd
from lenskit.data import Dataset

from metarec.errors import InputError, shown
from metarec.ratings import Domain, RatingScale, ids_of, infer_scale, seconds_of

__all__ = ["domain_of"]


def domain_of(data: Dataset, scale: tuple[float, float] | None) -> Domain:
    """The ratings of a dataset, or its events where it has no ratings, with ids as text.

    Raises:
        InputError: the dataset is empty, some ratings are missing, or there is a scale but no ratings.
    """
    table = data.interactions().pandas(ids=True)
    if not len(table):
        raise InputError("a fusion learns from interactions, but the dataset has none")
    rows = pd.DataFrame({"user": ids_of(table["user_id"], "user"), "item": ids_of(table["item_id"])})
    if "timestamp" in table.columns:
        rows["timestamp"] = seconds_of(table["timestamp"], "timestamp")
    name, attributes = data.name or "lenskit", _attributes_of(data)
    if "rating" in table.columns:
        rows["rating"] = table["rating"].astype(np.float64)
        missing = rows["rating"].isna().to_numpy()
        if missing.any():
            first = rows.iloc[int(missing.argmax())]
            raise InputError(
                f"{missing.sum():,} of {len(rows):,} ratings are missing, the first one of user "
                f'"{shown(first["user"])}" for item "{shown(first["item"])}"; leave these interactions out'
            )
        bounds = infer_scale(rows["rating"]) if scale is None else RatingScale(*scale)
        return Domain(name, rows, bounds, attributes)
    if scale is not None:
        raise InputError(f"scale is {scale}, but the dataset has no ratings; give interactions a column rating")
    # LensKit adds up repeated interactions in a count.
    rows["weight"] = table["count"].astype(np.float64) if "count" in table.columns else 1.0
    return Domain(name, rows, items=attributes, feedback="implicit")


def _attributes_of(data: Dataset) -> pd.DataFrame | None:
    """Items' attributes that are a number, a text, or several texts; None if there are none."""
    items = data.entities("item")
    table = pd.DataFrame(index=pd.Index(items.ids()))
    for name in items.attributes:
        attribute = items.attribute(name)
        if attribute.is_list:
            values = attribute.pandas(missing="omit")
            table[name] = values.map(lambda texts: "|".join(map(str, texts)))
        elif attribute.is_scalar:
            table[name] = attribute.pandas(missing="omit")
    if table.columns.empty:
        return None
    return table.assign(item=ids_of(table.index.to_numpy()))
