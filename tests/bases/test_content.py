"""The content model: item features from mixed tables, and the posterior mean."""

import numpy as np
import pandas as pd

from metarec.bases import HistoryQuery, answer_queries, make_base
from metarec.bases.content import item_features
from metarec.ratings import Domain, RatingScale


def test_features_of_lists_words_numbers_and_gaps():
    table = pd.DataFrame(
        {
            "genres": ["Drama|Comedy", "drama", None],
            "tags": ["dark:0.9|slow:0.1", "dark:0.5", ""],
            "title": ["The End", "An End", "Else"],
            "year": [1990.0, np.nan, 2010.0],
            "same": [1, 1, 1],
        }
    )
    features = item_features(table)
    # drama, comedy; dark, slow; the, end, an, else; year. A column with one value says nothing.
    assert features.shape == (3, 9)
    rows = features.toarray()
    assert np.isfinite(rows).all()
    assert rows[2, :4].sum() == 0
    assert rows[1, -1] == 0


def test_a_table_without_usable_columns_has_one_empty_feature():
    assert item_features(pd.DataFrame(index=range(3))).shape == (3, 1)


def test_equals_the_gaussian_process_written_out():
    rng = np.random.default_rng(0)
    items = pd.DataFrame({"item": list("abcdef"), "genres": ["x", "x|y", "y", "z", "x|z", "y|z"]})
    rows = [(f"u{u}", i, float(rng.integers(1, 6))) for u in range(8) for i in "abcdef" if rng.random() < 0.8]
    ratings = pd.DataFrame(rows, columns=["user", "item", "rating"])
    domain = Domain("tiny", ratings, RatingScale(1, 5), items=items)
    base = make_base("content", bias_variance=0.3, taste_variance=0.7).fit(domain)
    history = pd.DataFrame({"item": ["a", "d", "e"], "rating": [5.0, 1.0, 2.0]})
    requested = np.array(["b", "f"], dtype=object)

    vectors, expected = base._vectors, base._expected
    rated, wanted = [0, 3, 4], [1, 5]
    kernel = 0.3 + 0.7 * vectors @ vectors.T
    residuals = (history["rating"].to_numpy() - 1) / 4 - expected[rated]
    beyond = kernel[np.ix_(wanted, rated)] @ np.linalg.inv(kernel[np.ix_(rated, rated)] + np.eye(3)) @ residuals
    np.testing.assert_allclose(base.predict(history, requested), 1 + 4 * (expected[wanted] + beyond), rtol=1e-10)

    prior = np.diag(kernel)[wanted]
    names = history["item"].to_numpy(dtype=object)
    for length in (1, 3):
        seen = rated[:length]
        # The mean residual has the mean covariance with an item, the mean of its own, and 1/n of the noise.
        with_mean = kernel[np.ix_(wanted, seen)].mean(axis=1)
        posterior = prior - with_mean**2 / (kernel[np.ix_(seen, seen)].mean() + 1 / length)
        query = HistoryQuery(names[:length], history["rating"].to_numpy()[:length], requested)
        evidence = answer_queries(base, [query])[0].evidence
        np.testing.assert_allclose(evidence, prior / posterior - 1, rtol=1e-10)
        solved = np.linalg.solve(kernel[np.ix_(seen, seen)] + np.eye(length), kernel[np.ix_(seen, wanted)])
        exact = prior / (prior - (kernel[np.ix_(wanted, seen)] * solved.T).sum(axis=1)) - 1
        assert (evidence <= exact + 1e-12).all()
        if length == 1:
            np.testing.assert_allclose(evidence, exact, rtol=1e-10)


def test_an_item_without_ratings_is_predicted_from_its_features():
    items = pd.DataFrame(
        {"item": [f"i{n}" for n in range(20)], "genres": ["good" if n % 2 else "bad" for n in range(20)]}
    )
    rows = [(f"u{u}", f"i{n}", 5.0 if n % 2 else 1.0) for u in range(10) for n in range(18)]
    domain = Domain("tiny", pd.DataFrame(rows, columns=["user", "item", "rating"]), RatingScale(1, 5), items=items)
    answer = make_base("content").fit(domain).predict(domain.ratings.iloc[:0], np.array(["i18", "i19"], object))
    assert answer[0] < 2.2 < 3.8 < answer[1]
