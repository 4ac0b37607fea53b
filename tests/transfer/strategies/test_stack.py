"""Stack is auto's mixture without the sources' models."""

import numpy as np
import pytest

from metarec.transfer import STRATEGIES, Sources, TransferSettings, few_users
from metarec.transfer.sources import CrossFitted
from metarec.transfer.strategies.auto import AutoModel
from metarec.transfer.strategies.parts.candidates import names_of

SHORT = TransferSettings(epochs=3, patience=2, options={"hidden_dim": 8}, folds=2, stackers=("ridge",))


@pytest.fixture(scope="module", params=[("books", "music"), ("books",)], ids=["two sources", "one source"])
def fitted(worlds, request):
    """The few users, the test users, and auto and stack, which share the sources."""
    few = few_users(worlds["movies"].train, 8, seed=0)
    sources = Sources({name: worlds[name] for name in request.param})
    auto, stack = (STRATEGIES.get(name)(SHORT, seed=0).fit(sources, few) for name in ("auto", "stack"))
    return few, worlds["movies"].test, auto, stack


def test_it_predicts_what_auto_predicts_with_the_weights_instead(fitted):
    _, test, auto, stack = fitted
    weights = np.array([auto.reasons()["instead"].get(name, 0.0) for name in names_of("rating")])
    same = AutoModel(auto._model, auto._candidates, names_of("rating"), weights, weights, {})
    np.testing.assert_allclose(stack.predict(test), same.predict(test), rtol=0, atol=1e-12)
    assert stack.reasons() == {"shares": auto.reasons()["instead"]}


def test_it_is_a_mixture_of_stackers_of_the_few_users_alone(fitted):
    few, test, auto, stack = fitted
    shares = stack.reasons()["shares"]
    assert sum(shares.values()) == pytest.approx(1)
    own = sum(share * CrossFitted(name, few, SHORT.folds, 0).predict(test) for name, share in shares.items())
    np.testing.assert_allclose(stack.predict(test), own, rtol=0, atol=1e-9)
    assert np.abs(auto.predict(test) - own).max() > 1e-4
