import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metarec.errors import InputError
from metarec.ratings import RatingScale, infer_scale
from metarec.ratings._scale import as_scale


@pytest.mark.parametrize(
    ("ratings", "scale"),
    [
        ([1, 2, 3, 4, 5], "1..5"),
        ([2, 3, 4], "1..5"),
        ([0.5, 3, 5], "0.5..5"),
        ([1.5, 3, 5], "0.5..5"),
        ([0, 2.5, 5], "0..5"),
        ([0, 1, 5], "0..5"),
        ([1.25, 4.75], "1..5"),
        ([2, 10], "1..10"),
        ([0, 10], "0..10"),
        ([1.5, 9.5], "1..10"),
        ([-9.95, 9.9], "-10..10"),
        ([0, 1], "0..1"),
        ([0.2, 0.9], "0..1"),
        ([-1, 1], "-1..1"),
        ([3, 87], "0..100"),
        ([0, 20], "0..20"),
        ([-3, 4], "-3..4"),
        ([0, 1000], "0..1000"),
    ],
)
def test_the_narrowest_conventional_scale_that_holds_the_ratings(ratings, scale):
    assert str(infer_scale(ratings)) == scale


@given(st.lists(st.floats(-1e9, 1e9), min_size=2))
@settings(max_examples=50, deadline=None)
def test_every_rating_is_in_the_scale_that_is_inferred(ratings):
    if min(ratings) == max(ratings):
        with pytest.raises(InputError, match="all ratings are"):
            infer_scale(ratings)
    else:
        scale = infer_scale(np.array(ratings))
        assert scale.low <= min(ratings)
        assert max(ratings) <= scale.high


@pytest.mark.parametrize("ratings", [[], [3, 3], [1, float("nan")], [1, float("inf")]])
def test_no_scale_can_be_inferred(ratings):
    with pytest.raises(InputError, match="give the scale"):
        infer_scale(ratings)


@pytest.mark.parametrize("written", [(1, 5), [1, 5], "1,5", "1..5", " 1 .. 5 ", "(1, 5)", RatingScale(1, 5)])
def test_scales_as_they_may_be_written(written):
    assert as_scale(written) == RatingScale(1, 5)


def test_scales_with_signs_and_fractions():
    assert as_scale("-10..10") == RatingScale(-10, 10)
    assert as_scale("0.5..5") == RatingScale(0.5, 5)


@pytest.mark.parametrize("written", ["", "5", "1-5", "a..b", (1, 2, 3), ("a", 1), (5, 1), None, 5])
def test_invalid_scales_are_refused(written):
    with pytest.raises(InputError, match="scale must"):
        as_scale(written)
