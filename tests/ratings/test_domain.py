import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metarec.errors import InputError
from metarec.ratings import Domain, RatingScale

SCALE = RatingScale(1, 5)


def table(**changes):
    columns = {"user": ["a", "a", "b"], "item": ["x", "y", "x"], "rating": [5.0, 3.0, 1.0], "timestamp": [3, 1, 2]}
    return pd.DataFrame({name: values for name, values in {**columns, **changes}.items() if values is not None})


finite = st.floats(-1e6, 1e6)


@given(low=st.floats(-1e3, 1e3), width=st.floats(1e-3, 1e6), unit=st.floats(0, 1))
@settings(max_examples=25, deadline=None)
def test_unit_scale_and_back(low, width, unit):
    scale = RatingScale(low, low + width)
    assert scale.to_unit(scale.low) == 0
    assert scale.to_unit(scale.high) == 1
    assert scale.to_unit(scale.to_ratings(unit)) == pytest.approx(unit, abs=1e-6)


def test_scale_takes_arrays_and_tensors():
    torch = pytest.importorskip("torch")
    scale = RatingScale(-10, 10)
    np.testing.assert_array_equal(scale.to_unit(np.array([-10.0, 0.0, 10.0])), [0, 0.5, 1])
    assert torch.equal(scale.to_ratings(torch.tensor([0.0, 0.5, 1.0])), torch.tensor([-10.0, 0.0, 10.0]))
    assert (scale.span, str(scale), str(RatingScale(0.5, 5))) == (20, "-10..10", "0.5..5")


@pytest.mark.parametrize(("low", "high"), [(5, 1), (1, 1), (float("nan"), 1), (0, float("inf")), (-1.7e308, 1.7e308)])
def test_scale_refuses_invalid_bounds(low, high):
    with pytest.raises(InputError, match="a rating scale must"):
        RatingScale(low, high)


def test_domain_copies_what_it_is_given():
    ratings, items = table(), pd.DataFrame({"item": ["x", "y"], "year": [1999, 2000]})
    before = ratings.copy()
    domain = Domain("films", ratings, SCALE, items)
    ratings.loc[0, "rating"] = 4.0
    items.loc[0, "year"] = 0
    assert domain.ratings["rating"].tolist() == [5, 3, 1]
    assert domain.items["year"].tolist() == [1999, 2000]
    pd.testing.assert_frame_equal(before.assign(rating=[4.0, 3.0, 1.0]), ratings)


def test_domain_counts_and_types():
    domain = Domain("films", table(rating=[5, 3, 1]).set_index(pd.Index([7, 8, 9])), SCALE)
    assert (domain.num_users, domain.num_items, domain.has_timestamps) == (2, 2, True)
    assert domain.ratings["rating"].dtype == np.float64
    assert domain.ratings["timestamp"].dtype == np.int64
    assert domain.ratings.index.tolist() == [0, 1, 2]
    assert not Domain("films", table(timestamp=None), SCALE).has_timestamps


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rating": None}, "rating is missing"),
        ({"user": [1, 1, 2]}, "user ids must be strings but got 1"),
        ({"user": ["a", None, "b"]}, "must be strings but got None"),
        ({"item": ["x", "", "y"]}, 'item id "" must not be empty'),
        ({"rating": [1.0, 6.0, 2.0]}, "must lie in 1..5 but row 1 holds 6"),
        ({"rating": [1.0, 2.0, np.nan]}, "must be finite but row 2 holds nan"),
        ({"rating": ["1", "2", "3"]}, "must be a number"),
        ({"timestamp": [1.0, np.inf, 2.0]}, "every timestamp must be finite but row 1"),
        ({"item": ["x", "x", "x"]}, 'user "a" rates item "x" again'),
    ],
)
def test_domain_refuses(changes, message):
    with pytest.raises(InputError, match=message):
        Domain("films", table(**changes), SCALE)


def test_domain_refuses_features_that_do_not_fit():
    with pytest.raises(InputError, match='needs a column "item"'):
        Domain("films", table(), SCALE, pd.DataFrame({"movie": ["x"]}))
    with pytest.raises(InputError, match='items list "x" twice'):
        Domain("films", table(), SCALE, pd.DataFrame({"item": ["x", "x"]}))


@given(st.sets(st.sampled_from([f"u{n}" for n in range(8)] + ["stranger"])))
@settings(max_examples=25, deadline=None)
def test_without_and_restrict_split_the_rows(users):
    names = [f"u{n % 8}" for n in range(40)]
    rows = pd.DataFrame(
        {"user": names, "item": [str(n // 8) for n in range(40)], "rating": [1.0 + n % 5 for n in range(40)]}
    )
    domain = Domain("films", rows, SCALE)
    inside, outside = domain.restrict(users).ratings, domain.without(users).ratings
    assert set(inside["user"]) == users - {"stranger"}
    assert not set(outside["user"]) & users
    assert len(inside) + len(outside) == len(rows)
    pd.testing.assert_frame_equal(outside, rows[~rows["user"].isin(users)].reset_index(drop=True))


def test_fingerprint_ignores_row_order_and_name_only():
    items = pd.DataFrame({"item": ["x", "y"], "genres": [["a", "b"], []], "year": [1999.0, np.nan]})
    domain = Domain("films", table(), SCALE, items)
    same = Domain("movies", table().iloc[::-1][["rating", "item", "timestamp", "user"]], SCALE, items.iloc[::-1])
    assert domain.fingerprint() == same.fingerprint()
    others = [
        Domain("films", table(rating=[5.0, 3.0, 1.5]), SCALE, items),
        Domain("films", table(timestamp=[3, 1, 9]), SCALE, items),
        Domain("films", table(timestamp=None), SCALE, items),
        Domain("films", table(user=["b", "b", "a"]), SCALE, items),
        Domain("films", table(user=["x", "y", "x"], item=["a", "a", "b"]), SCALE, items),
        Domain("films", table(), RatingScale(0, 5), items),
        Domain("films", table(), SCALE, items.assign(year=[1999.0, 2000.0])),
        Domain("films", table(), SCALE),
        domain.without({"b"}),
    ]
    assert len({domain.fingerprint(), *(other.fingerprint() for other in others)}) == len(others) + 1


def test_fingerprint_is_the_same_in_another_process():
    code = (
        "import pandas as pd; from metarec.ratings import Domain, RatingScale;"
        "f = pd.DataFrame({'user': ['a', 'b'], 'item': ['x', 'x'], 'rating': [1.0, 2.0]});"
        "print(Domain('d', f, RatingScale(1, 5)).fingerprint())"
    )
    frame = pd.DataFrame({"user": ["a", "b"], "item": ["x", "x"], "rating": [1.0, 2.0]})
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == Domain("d", frame, SCALE).fingerprint()


def test_importing_ratings_stays_light():
    heavy = ["torch", "pyarrow.parquet", "sklearn", "scipy", "pydantic", "lenskit"]
    code = f"import sys, metarec.ratings; print([name for name in {heavy} if name in sys.modules])"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == "[]"
