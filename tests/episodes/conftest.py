"""A small world whose episodes take seconds, and the pieces that tests swap."""

import numpy as np
import pandas as pd
import pytest

from metarec.episodes import EpisodeSettings
from metarec.ratings import Domain, RatingScale

BASES = {"bias": {}, "item-knn": {"neighbours": 10}}


def make_domain(name="tiny", *, users=40, items=25, seed=0, timestamps=True, prefix="u", with_items=True):
    """Users u00.. who rate a random share of the items on 1..5."""
    rng = np.random.default_rng(seed)
    quality, taste = rng.normal(size=items), rng.normal(size=users)
    rows = []
    for user in range(users):
        chosen = rng.permutation(items)[: rng.integers(12, items)]
        for place, item in enumerate(chosen):
            rating = float(np.clip(np.round(3 + quality[item] + 0.7 * taste[user] + rng.normal(0, 0.7)), 1, 5))
            rows.append((f"{prefix}{user:02d}", f"i{item:02d}", rating, 1000 + 10 * place))
    ratings = pd.DataFrame(rows, columns=["user", "item", "rating", "timestamp"])
    features = pd.DataFrame(
        {"item": [f"i{i:02d}" for i in range(items)], "genres": ["a|b", "b", "c", "a", "c|b"] * (items // 5)}
    )
    return Domain(
        name,
        ratings if timestamps else ratings.drop(columns="timestamp"),
        RatingScale(1, 5),
        items=features if with_items else None,
    )


@pytest.fixture
def domain():
    return make_domain()


@pytest.fixture
def settings():
    return EpisodeSettings(shots=5, min_query=3, max_query=8, folds=3)
