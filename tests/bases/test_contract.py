"""What every base recommender promises; a new one passes by being in the registry."""

import numpy as np
import pandas as pd
import pytest

from metarec.bases import (
    BASES,
    BaseRecommender,
    HistoryQuery,
    answer_queries,
    applicable_bases,
    make_base,
    predict_queries,
)
from metarec.errors import InputError
from metarec.ratings import Domain, RatingScale, simulate_domains


@pytest.fixture(scope="module")
def movies():
    return simulate_domains(3)["movies"]


@pytest.fixture(scope="module")
def held_out(movies):
    return sorted(movies.ratings["user"].unique())[::4]


@pytest.fixture(scope="module", params=BASES.names())
def base(request, movies, held_out):
    return make_base(request.param, seed=1).fit(movies.without(held_out))


def histories(domain, users, shots=10):
    for _, rows in domain.restrict(users).ratings.groupby("user"):
        yield rows.iloc[:shots], rows.iloc[shots:]


def test_is_a_base_recommender(base):
    assert isinstance(base, BaseRecommender)
    assert base.name in BASES.names()


def test_predicts_for_users_it_has_never_seen(base, movies, held_out):
    for history, future in list(histories(movies, held_out))[:5]:
        predictions = base.predict(history[["item", "rating"]], future["item"].to_numpy())
        assert predictions.shape == (len(future),)
        assert np.isfinite(predictions).mean() > 0.5


def test_unknown_items_are_nan_and_do_not_disturb_the_others(base, movies, held_out):
    history, future = next(histories(movies, held_out))
    known = future["item"].to_numpy()[:4]
    requested = np.array(["no such item", *known, "nor this"], dtype=object)
    answer = base.predict(history, requested)
    assert np.isnan(answer[[0, -1]]).all()
    np.testing.assert_allclose(answer[1:-1], base.predict(history, known), rtol=1e-6)


def test_unknown_items_in_the_history_do_not_crash(base, movies, held_out):
    history, future = next(histories(movies, held_out))
    strange = pd.DataFrame({"item": ["no such item"], "rating": [movies.scale.high]})
    answer = base.predict(pd.concat([history[["item", "rating"]], strange]), future["item"].to_numpy())
    assert answer.shape == (len(future),)
    alone = base.predict(strange, future["item"].to_numpy())
    assert alone.shape == (len(future),)


def test_an_empty_history_and_no_items_do_not_crash(base, movies):
    nothing = pd.DataFrame({"item": pd.Series(dtype=str), "rating": pd.Series(dtype=float)})
    items = movies.ratings["item"].unique()[:7]
    assert base.predict(nothing, items).shape == (7,)
    assert base.predict(nothing, items[:0]).shape == (0,)


def test_the_history_matters(base, movies):
    items = movies.ratings["item"].value_counts().index.to_numpy(dtype=object)
    low, high = movies.scale.low, movies.scale.high
    rated, requested = items[:20:2], items[1:41:2]
    taste = np.where(np.arange(10) < 5, low, high)
    one = base.predict(pd.DataFrame({"item": rated, "rating": taste}), requested)
    other = base.predict(pd.DataFrame({"item": rated, "rating": np.where(np.arange(10) < 2, high, low)}), requested)
    assert np.nanmax(np.abs(one - other)) > 1e-3


def test_many_queries_equal_single_ones(base, movies, held_out):
    queries = [
        HistoryQuery(
            history["item"].to_numpy(dtype=object)[:length],
            history["rating"].to_numpy()[:length],
            future["item"].to_numpy(dtype=object)[:3],
        )
        for length, (history, future) in zip([0, 1, 5, 10, 10], histories(movies, held_out), strict=False)
    ]
    together = base.predict_queries(queries)
    for query, answer in zip(queries, together, strict=True):
        np.testing.assert_allclose(answer, base.predict_queries([query])[0], rtol=1e-5, atol=1e-6)


def test_evidence_is_finite_and_zero_for_nan(base, movies, held_out):
    nothing = np.array([], dtype=object)
    for history, future in list(histories(movies, held_out))[:5]:
        rated, ratings = history["item"].to_numpy(dtype=object), history["rating"].to_numpy()
        requested = np.array(["no such item", *future["item"]], dtype=object)
        queries = [HistoryQuery(rated[:length], ratings[:length], requested) for length in (0, 1, 3, 10)]
        answers = answer_queries(base, [*queries, HistoryQuery(rated, ratings, nothing)])
        for (predictions, evidence), same in zip(answers, predict_queries(base, queries), strict=False):
            np.testing.assert_array_equal(predictions, same)
            assert evidence.shape == predictions.shape
            assert np.isfinite(evidence).all()
            assert (evidence[np.isnan(predictions)] == 0).all()
        assert not answers[0].evidence.any()
        for predictions, evidence in answers[1:-1]:
            np.testing.assert_array_equal(evidence > 0, np.isfinite(predictions))
        assert answers[-1].evidence.shape == (0,)


def test_evidence_of_many_queries_is_that_of_each(base, movies, held_out):
    queries = [
        HistoryQuery(
            history["item"].to_numpy(dtype=object)[:length],
            history["rating"].to_numpy()[:length],
            future["item"].to_numpy(dtype=object)[:requested],
        )
        for length, requested, (history, future) in zip(
            [0, 1, 5, 10, 10], [3, 1, 4, 0, 3], histories(movies, held_out), strict=False
        )
    ]
    for query, answer in zip(queries, answer_queries(base, queries), strict=True):
        np.testing.assert_allclose(answer.evidence, answer_queries(base, [query])[0].evidence, rtol=1e-5)


@pytest.mark.parametrize("name", ["bias", "biased-mf", "autoencoder", "item-knn"])
def test_a_longer_history_is_no_less_evidence(name, movies, held_out):
    base = make_base(name, seed=1).fit(movies.without(held_out))
    history, future = next(histories(movies, held_out))
    rated, ratings, requested = (
        history["item"].to_numpy(object),
        history["rating"].to_numpy(),
        future["item"].to_numpy(),
    )
    answers = answer_queries(base, [HistoryQuery(rated[:n], ratings[:n], requested) for n in range(len(rated) + 1)])
    growth = np.diff([answer.evidence for answer in answers], axis=0)
    assert (growth >= -1e-6).all()
    assert growth.max() > 0


@pytest.mark.parametrize("name", ["bias", "biased-mf", "autoencoder"])
def test_evidence_of_means_is_the_number_of_ratings_behind_them(name, movies, held_out):
    fit_on = movies.without(held_out)
    history, future = next(histories(movies, held_out))
    rated = np.array(["no such item", *history["item"][:4]], dtype=object)
    query = HistoryQuery(rated, np.full(5, movies.scale.high), future["item"].to_numpy(dtype=object))
    counts = fit_on.ratings["item"].value_counts().reindex(query.items).to_numpy()
    answer = answer_queries(make_base(name).fit(fit_on), [query])[0]
    np.testing.assert_allclose(answer.evidence, np.nan_to_num(1 / (1 / 4 + 1 / counts)))


@pytest.mark.parametrize("name", BASES.names())
def test_same_seed_same_model_whatever_the_order_of_rows(name, movies, held_out):
    fit_on = movies.without(held_out)
    shuffled = Domain("movies", fit_on.ratings.sample(frac=1, random_state=0), fit_on.scale, items=fit_on.items)
    history, future = next(histories(movies, held_out))
    answers = [
        make_base(name, seed=5).fit(domain).predict(history, future["item"].to_numpy())
        for domain in (fit_on, fit_on, shuffled)
    ]
    np.testing.assert_array_equal(answers[0], answers[1])
    # Sums run in another order, so the last digits may differ; which items have vectors must not.
    np.testing.assert_allclose(answers[0], answers[2], atol=2e-2 * movies.scale.span)


def rmse(base, domain, users):
    errors = []
    for history, future in histories(domain, users):
        predictions = base.predict(history, future["item"].to_numpy())
        errors.append((predictions - future["rating"].to_numpy())[np.isfinite(predictions)])
    return float(np.sqrt(np.mean(np.concatenate(errors) ** 2)))


def test_is_better_than_the_mean_rating(base, movies, held_out):
    ratings = movies.without(held_out).ratings["rating"]
    trivial = float(np.sqrt(np.mean((movies.restrict(held_out).ratings["rating"].to_numpy() - ratings.mean()) ** 2)))
    assert rmse(base, movies, held_out) < 0.97 * trivial


@pytest.mark.parametrize("name", BASES.names())
def test_units_predictions_follow_the_scale(name, movies, held_out):
    """The same ratings on another scale give the same predictions on that scale."""
    fit_on = movies.without(held_out)
    wide = RatingScale(-10.0, 10.0)

    def stretched(frame):
        return frame.assign(rating=wide.to_ratings(movies.scale.to_unit(frame["rating"])))

    history, future = next(histories(movies, held_out))
    requested = future["item"].to_numpy()
    here = make_base(name, seed=2).fit(fit_on).predict(history, requested)
    there = make_base(name, seed=2).fit(Domain("wide", stretched(fit_on.ratings), wide, items=fit_on.items))
    np.testing.assert_allclose(
        movies.scale.to_unit(here), wide.to_unit(there.predict(stretched(history), requested)), atol=2e-3
    )


def test_unknown_names_and_options_are_refused():
    with pytest.raises(InputError, match='did you mean "item-knn"'):
        make_base("item-kn")
    with pytest.raises(InputError, match=r"bases\.item-knn\.neighbours"):
        make_base("item-knn", neighbours=0)
    with pytest.raises(InputError, match=r"bases\.bias\.dampening"):
        make_base("bias", dampening=3)


def test_content_is_left_out_without_item_features(movies):
    plain = Domain("plain", movies.ratings, movies.scale)
    assert "content" not in applicable_bases(BASES.names(), [plain])
    assert "content" in applicable_bases(BASES.names(), [plain, movies])
    answer = make_base("content").fit(plain).predict(movies.ratings.iloc[:3], movies.ratings["item"].to_numpy()[:5])
    assert np.isnan(answer).all()


def test_a_plug_in_predicts_one_query_at_a_time():
    class Constant:
        name = "constant"

        def fit(self, domain):
            return self

        def predict(self, history, items):
            assert list(history.columns) == ["item", "rating"]
            return np.full(len(items), float(len(history)))

    queries = [HistoryQuery(np.array(["a"], object), np.array([1.0]), np.array(["b", "c"], object))] * 2
    assert [list(answer) for answer in predict_queries(Constant(), queries)] == [[1.0, 1.0]] * 2

    class Wrong(Constant):
        def predict(self, history, items):
            return np.zeros(len(items) + 1)

    with pytest.raises(ValueError, match=r"must return 2 predictions but returned an array of shape \(3,\)"):
        predict_queries(Wrong(), queries)


class Parity:
    """A plug-in that cannot say anything of the item "odd"."""

    name = "parity"

    def fit(self, domain):
        return self

    def predict(self, history, items):
        return np.where(items == "odd", np.nan, 3.0)


ASKED = HistoryQuery(np.array(["a", "b"], object), np.array([1.0, 2.0]), np.array(["c", "odd"], object))


def test_a_plug_in_has_evidence_one_for_finite_predictions():
    answers = answer_queries(Parity(), [ASKED, ASKED])
    for predictions, evidence in answers:
        np.testing.assert_array_equal(predictions, [3.0, np.nan])
        np.testing.assert_array_equal(evidence, [1.0, 0.0])


def test_a_plug_in_may_have_evidence():
    class Telling(Parity):
        def evidence(self, history, items):
            assert list(history.columns) == ["item", "rating"]
            return [len(history), 7]

    assert isinstance(Telling(), BaseRecommender)
    np.testing.assert_array_equal(answer_queries(Telling(), [ASKED])[0].evidence, [2.0, 0.0])


@pytest.mark.parametrize(
    ("evidence", "problem"),
    [([1.0], r"has the shape \(1,\)"), ([1.0, np.inf], "has inf"), ([np.nan, 1.0], "has nan"), ([-2, 1], "has -2.0")],
)
def test_invalid_evidence_is_refused(evidence, problem):
    class Wrong(Parity):
        def evidence(self, history, items):
            return evidence

    with pytest.raises(
        ValueError, match=f"evidence of base recommender parity must be 2 finite numbers >= 0 but {problem}"
    ):
        answer_queries(Wrong(), [ASKED])
