"""Segments of test users by their support, and metarec's gain in each segment."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd

from metarec.episodes import Episodes
from metarec.evaluation.measures import ByUser, Measure
from metarec.evaluation.metrics import METAREC
from metarec.ratings import Domain

__all__ = ["FEW_USERS", "MEASURES", "UserMeasure", "behaviour_of", "reference_of", "segment_table", "thirds"]

FEW_USERS = 30
"""A segment of fewer users is marked, because its interval is unreliable."""

DAY = 86_400.0
"""Seconds."""

THIRDS = ("low", "middle", "high")

WEIGHT = "weight/"
"""The prefix of columns of bases' weights."""


class UserMeasure(NamedTuple):
    """A measure of a user from the support: its meaning and its unit."""

    meaning: str
    unit: str

    def of(self, data: str) -> UserMeasure:
        """The same, of this kind of data, which is ratings or events."""
        return UserMeasure(self.meaning.format(data=data), self.unit.format(data=data))


MEASURES: Mapping[str, UserMeasure] = {
    "activity": UserMeasure("pace of the support {data}, between the first and the last", "{data} a day"),
    "breadth": UserMeasure(
        "taste breadth: the effective number of kinds of the support items, exp(entropy), or, where items have no "
        "kinds, the spread of their popularity",
        "kinds, or the standard deviation of log popularity",
    ),
    "distance": UserMeasure("distance from the crowd: of the support ratings from the items' means", "points"),
    "days_known": UserMeasure("account age: from the first of the {data} to the first query", "days"),
}


def behaviour_of(domain: Domain, episodes: Episodes, crowd: Domain) -> pd.DataFrame:
    """Compute measures of users from their support sets; no query rating is used.

    Args:
        domain: the table that the episodes were cut from, for timestamps and kinds of items.
        crowd: the same domain without validation and test users, for the items' popularity and mean ratings.

    Returns:
        A row for each user, a column for each of MEASURES; NaN where it is undefined.
    """
    times = _times(domain, episodes)
    kinds = _kinds(domain)
    by_item = crowd.ratings.groupby("item")
    popularity = np.log1p(by_item.size())
    means = by_item["rating"].mean() if crowd.feedback == "explicit" else popularity * np.nan
    support, query = episodes.batch.support, episodes.batch.query
    rows = {}
    for task, user in enumerate(episodes.users):
        mask = support.mask[task].numpy()
        if crowd.feedback == "implicit":
            # Support rows of a ranking hold candidates that were not chosen, too.
            mask = mask & (support.targets[task].numpy() > 0)
        items = episodes.support_items[task][mask]
        if not len(items):
            rows[user] = [np.nan] * len(MEASURES)
            continue
        ratings = episodes.scale.to_ratings(support.targets[task].numpy().astype(np.float64))[mask]
        rated = times.reindex([(user, item) for item in items]).to_numpy()
        chosen = query.mask[task].numpy()
        if crowd.feedback == "implicit":
            # Candidates that were not chosen have no time. Those that were depend on what bases propose.
            own = times.loc[user].drop(items)
            queried = own[own >= np.max(rated)]
        else:
            queried = times.reindex([(user, item) for item in episodes.query_items[task][chosen]])
        popular = popularity.reindex(items).dropna()
        spread = float(popular.std()) if len(popular) > 1 else np.nan
        deviations = np.abs(ratings - means.reindex(items).to_numpy())
        rows[user] = [
            # The pace is undefined within less than a minute.
            len(items) * DAY / max(float(np.max(rated) - np.min(rated)), 60.0),
            spread if kinds is None else _number_of_kinds([kinds.get(item, set()) for item in items]),
            float(np.nanmean(deviations)) if np.isfinite(deviations).any() else np.nan,
            float(queried.min() - np.min(rated)) / DAY,
        ]
    return pd.DataFrame.from_dict(rows, orient="index", columns=list(MEASURES), dtype=np.float64)


def _number_of_kinds(kinds_of_items: list[set[str]]) -> float:
    """The effective number of kinds, exp(entropy) (Hill 1973); NaN where there are none."""
    counts = np.array(list(Counter(kind for kinds in kinds_of_items for kind in kinds).values()), dtype=float)
    shares = counts / max(counts.sum(), 1.0)
    return float(np.exp(-(shares * np.log(shares)).sum())) if len(counts) else np.nan


def _times(domain: Domain, episodes: Episodes) -> pd.Series:
    """(user, item) -> seconds; NaN without timestamps."""
    own = domain.ratings[domain.ratings["user"].isin(set(episodes.users))]
    values = own["timestamp"].astype(np.float64) if domain.has_timestamps else np.full(len(own), np.nan)
    return pd.Series(np.asarray(values), index=pd.MultiIndex.from_frame(own[["user", "item"]]))


def _kinds(domain: Domain) -> dict[str, set[str]] | None:
    """Item -> its kinds, such as genres; None if no item feature is a list."""
    if domain.items is None:
        return None
    features = domain.items.drop(columns="item").select_dtypes(object)
    texts = [features[name].fillna("").astype(str) for name in features]
    lists = [text for text in texts if text.str.contains("|", regex=False).any()]
    if not lists:
        return None
    kinds: dict[str, set[str]] = {item: set() for item in domain.items["item"]}
    for column in lists:
        for item, text in zip(domain.items["item"], column, strict=True):
            # A weight after a colon is not part of the name.
            kinds[item] |= {part.partition(":")[0].strip().lower() for part in text.split("|") if part.strip()}
    return kinds


def thirds(values: pd.Series) -> pd.Series:
    """0, 1 or 2 for the lower, middle and upper third; equal values are together, and NaN stays NaN.

    >>> thirds(pd.Series([5.0, 1.0, 9.0, float("nan")])).tolist()
    [1.0, 0.0, 2.0, nan]
    """
    finite = values.dropna()
    if finite.empty:
        return values
    low, high = np.quantile(finite, [1 / 3, 2 / 3])
    return ((values > low).astype(float) + (values > high)).where(values.notna())


def reference_of(models: list[str]) -> str | None:
    """The model that metarec is compared with: the best single base, else the first baseline; None without any.

    >>> reference_of(["metarec", "mean", "best-single"]), reference_of(["metarec", "mean"])
    ('best-single', 'mean')
    """
    others = [model for model in models if model != METAREC]
    return "best-single" if "best-single" in others else next(iter(others), None)


def segment_table(
    by_user: ByUser,
    behaviour: pd.DataFrame,
    weights: pd.DataFrame | None = None,
    *,
    measure: Measure,
    seed: int = 0,
) -> pd.DataFrame:
    """metarec's gain over the best single base in each third of each measure of users.

    Args:
        by_user: the models of one domain, by test user. behaviour: of these users, see :func:`behaviour_of`.
        weights: user -> the mean weight of each base, a column each.
        measure: of the models. seed: of the bootstrap over users.

    Returns:
        A row for each segment: measure, segment, low, high (the values in it), n_users, n_ratings (not in ranking),
        METRIC (metarec's; the key of the first metric), reference, reference_METRIC, gain, gain_low, gain_high
        (percent; a 95 % interval), few (fewer than FEW_USERS), and ``weight/BASE`` for each base. A measure that is
        constant or undefined has no row.
    """
    reference = reference_of(list(by_user.sums.columns))
    lines = []
    for name in behaviour.columns if reference is not None else []:
        places = thirds(behaviour[name])
        if places.nunique() < 2:
            continue
        for place in sorted(places.dropna().unique()):
            users = places.index[places == place]
            own = by_user.of(users)
            if own.sums.empty:
                continue
            sums, rows = own.sums, int(own.rows.sum())
            gains = measure.paired_gains(sums[METAREC].to_numpy(), sums[[reference]], seed=seed)
            if reference not in gains:
                continue
            gain = gains[reference]
            values = behaviour.loc[users, name]
            mean_weights = {} if weights is None else weights.reindex(users).mean().add_prefix(WEIGHT).to_dict()
            lines.append(
                {
                    "measure": name,
                    "segment": THIRDS[int(place)],
                    "low": values.min(),
                    "high": values.max(),
                    "n_users": len(sums),
                    **({"n_ratings": rows} if measure.data == "ratings" else {}),
                    measure.key: measure.value(sums[METAREC].sum(), rows),
                    "reference": reference,
                    f"reference_{measure.key}": measure.value(sums[reference].sum(), rows),
                    "gain": gain.percent,
                    "gain_low": gain.low,
                    "gain_high": gain.high,
                    "few": len(sums) < FEW_USERS,
                    **mean_weights,
                }
            )
    return pd.DataFrame(lines)
