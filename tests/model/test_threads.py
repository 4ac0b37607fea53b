"""A model serves several threads at once, and each has the answers that it would have alone, to the last bit."""

import numpy as np
import pandas as pd
import pytest

from metarec.episodes import History
from metarec.model import load_model
from metarec.model.mlflow_model import ServedModel
from tests.model.test_model import files_of
from tests.support.threads import assert_same_bits, at_once


@pytest.fixture(scope="module")
def calls(recommender):
    """A call for each kind of question, of each of many users."""
    users, items = recommender.users, recommender.items
    served = ServedModel(recommender)
    rng = np.random.default_rng(0)

    def history(length):
        own = rng.choice(items, length, replace=False)
        return pd.DataFrame({"item": own, "rating": rng.integers(1, 10, length) / 2})

    histories = [history(length) for length in (0, 1, 2, 3, 5, 8, 13, 40)]
    adapted = [recommender.adapt(one) for one in histories]

    def of_user(number):
        return recommender.user(users[number % len(users)]).predict(items[:7])

    def of_history(number):
        return recommender.adapt(histories[number % 8]).predict(items)

    def of_shared_user_model(number):
        return adapted[number % 8].predict(items[number % 20 :])

    def recommended(number):
        return adapted[number % 8].recommend(5)["prediction"]

    def batch(number):
        some = [History.of(one) for one in histories[number % 4 : number % 4 + 3]]
        return np.concatenate(recommender.predict(some, [items[:3], items[:9], items[:1]]))

    def request(number):
        rows = [
            {"item": items[0], "user": users[number % len(users)], "history": None},
            {"item": items[1], "user": None, "history": histories[number % 8].to_dict("records")},
            {"item": items[2], "user": None, "history": None},
        ]
        return served.predict(pd.DataFrame(rows))["prediction"]

    kinds = [of_user, of_history, of_shared_user_model, recommended, batch, request]
    return lambda number: np.asarray(kinds[number % len(kinds)](number))


@pytest.mark.parametrize("count", [150, pytest.param(500, marks=pytest.mark.slow)])
def test_eight_threads_have_the_answers_of_one(calls, count):
    assert_same_bits(calls, list(range(count)))


def test_an_answer_does_not_depend_on_what_was_asked_before(kept):
    """The path of the batched engine is chosen once, in the study, and not by the first question."""
    one, other = kept.load(), kept.load()
    empty = History.of(pd.DataFrame({"item": pd.Series(dtype=object), "rating": pd.Series(dtype=float)}))
    histories = [one.history_of(user) for user in one.users[:4]]
    other.predict([empty, empty], [other.items, other.items])
    for recommender in (one, other):
        paths = {name: learner.path for name, learner in recommender.fusion.networks.items()}
        assert all(paths.values()), paths
    items = [one.items] * 4
    assert np.array_equal(one.predict(histories, items), other.predict(histories, items))


def test_the_first_answers_of_a_loaded_model_are_right(kept, recommender):
    """Indices and other things that are made at the first call are whole for every thread."""
    users, items = recommender.users[:16], recommender.items
    expected = [recommender.user(user).predict(items).to_numpy() for user in users]
    for _ in range(5):
        loaded = load_model(files_of(kept) / "data" / "metarec")
        found = at_once(lambda user, loaded=loaded: loaded.user(user).predict(items).to_numpy(), list(users))
        assert np.array_equal(found, expected)
