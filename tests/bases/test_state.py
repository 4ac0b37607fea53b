"""What a base has learned can be kept as plain arrays, and another one made of it predicts the same."""

import io

import numpy as np
import pytest
from scipy import sparse

from metarec.bases import BASES, HistoryQuery, answer_queries, make_base
from metarec.errors import InputError
from metarec.ratings import simulate_domains


@pytest.fixture(scope="module")
def domain():
    return simulate_domains(1, num_users=60, num_items=40, ratings_per_user=20)["movies"]


def queries(domain):
    rated = domain.ratings.groupby("user")
    made = [
        HistoryQuery(own["item"].to_numpy()[:k], own["rating"].to_numpy()[:k], own["item"].to_numpy()[k:])
        for (_, own), k in zip(rated, (0, 1, 5, 10), strict=False)
    ]
    return [*made, HistoryQuery(np.array(["nobody's"], dtype=object), np.array([3.0]), np.array(["x"], dtype=object))]


def through_a_file(state):
    """As plain arrays, written without pickles."""
    parts = {}
    for name, value in state.items():
        if sparse.issparse(value):
            # With the zeros that are stored: a rating at the user's mean is one.
            parts |= {f"{name}.{part}": getattr(value, part) for part in ("data", "indices", "indptr", "shape")}
        else:
            parts[name] = np.asarray(value)
    file = io.BytesIO()
    np.savez(file, **parts)
    file.seek(0)
    stored = dict(np.load(file, allow_pickle=False))

    def read(name):
        if name in stored:
            return stored[name] if stored[name].ndim else stored[name].item()
        data, indices, indptr, shape = (stored[f"{name}.{part}"] for part in ("data", "indices", "indptr", "shape"))
        return sparse.csr_array((data, indices, indptr), shape=tuple(shape))

    return {name: read(name) for name in state}


@pytest.mark.parametrize("name", BASES.names())
def test_a_base_of_the_same_state_predicts_the_same(name, domain):
    options = {"epochs": 2} if name == "autoencoder" else {}
    fitted = make_base(name, **options).fit(domain)
    restored = make_base(name, **options).restore(through_a_file(fitted.state()))
    for predictions, again in zip(
        answer_queries(fitted, queries(domain)), answer_queries(restored, queries(domain)), strict=True
    ):
        np.testing.assert_array_equal(predictions.predictions, again.predictions)
        np.testing.assert_array_equal(predictions.evidence, again.evidence)


def test_a_state_that_lacks_something_is_refused(domain):
    state = make_base("bias").fit(domain).state()
    del state["levels"]
    with pytest.raises(InputError, match='bias must hold "levels" but has items, scale, counts'):
        make_base("bias").restore(state)
