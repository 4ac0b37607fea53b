"""The LensKit adapters against LensKit asked directly."""

import numpy as np
import pandas as pd
import pytest
from lenskit.basic import BiasScorer
from lenskit.data import ItemList, RecQuery, from_interactions_df
from lenskit.knn import ItemKNNScorer, UserKNNScorer

from metarec.bases import make_base
from metarec.ratings import Domain, RatingScale


@pytest.fixture(scope="module")
def domain():
    rng = np.random.default_rng(4)
    rows = [
        (f"u{user}", f"i{item}", float(rng.integers(1, 6)))
        for user in range(40)
        for item in range(30)
        if rng.random() < 0.5
    ]
    return Domain("tiny", pd.DataFrame(rows, columns=["user", "item", "rating"]), RatingScale(1, 5))


@pytest.mark.parametrize(
    ("name", "scorer"),
    [
        ("bias", BiasScorer(damping=5.0)),
        ("item-knn", ItemKNNScorer(max_nbrs=40, min_nbrs=2)),
        ("user-knn", UserKNNScorer(max_nbrs=40, min_nbrs=1)),
    ],
)
def test_equals_lenskit_asked_directly(name, scorer, domain):
    """On 1..5 the adapter's stars are the ratings less one, which moves these models by one and no more."""
    scorer.train(from_interactions_df(domain.ratings.rename(columns={"user": "user_id", "item": "item_id"})))
    history = pd.DataFrame({"item": ["i1", "i4", "i9"], "rating": [5.0, 2.0, 3.0]})
    asked = np.array(["i0", "i2", "i20"], dtype=object)
    query = RecQuery(history_items=ItemList(item_ids=history["item"], rating=history["rating"].to_numpy()))
    direct = scorer(query, ItemList(item_ids=asked)).scores()
    np.testing.assert_allclose(make_base(name).fit(domain).predict(history, asked), direct, rtol=1e-4)
