"""Domains of events, and of ratings and events."""

import numpy as np
import pandas as pd
import pytest

from metarec.errors import InputError
from metarec.ratings import Domain, RatingScale

SCALE = RatingScale(1, 5)
NAN = float("nan")


def table(**changes):
    columns = {
        "user": ["a", "a", "b", "a"],
        "item": ["x", "y", "x", "x"],
        "weight": [2.0, 1.0, 1.0, 3.0],
        "timestamp": [9, 5, 7, 4],
    }
    return pd.DataFrame({name: values for name, values in {**columns, **changes}.items() if values is not None})


def implicit(**changes):
    return Domain("shop", table(**changes), feedback="implicit")


def mixed(ratings=(NAN, 2.0, 5.0, 4.0), **changes):
    return Domain("shop", table(rating=list(ratings), **changes), SCALE, feedback="mixed")


def rows(domain):
    return domain.ratings.to_dict("list")


def test_repeated_events_are_added_up_and_the_first_time_is_kept():
    domain = implicit()
    assert rows(domain) == {
        "user": ["a", "b", "a"],
        "item": ["y", "x", "x"],
        "weight": [1.0, 1.0, 5.0],
        "timestamp": [5, 7, 4],
    }
    assert (domain.num_users, domain.num_items, list(domain.item_index)) == (2, 2, ["x", "y"])
    assert (domain.scale, domain.has_timestamps) == (None, True)


def test_the_events_of_repeated_pairs_are_kept_one_for_each_time():
    events = pd.DataFrame(
        {
            "user": ["a", "a", "b", "a", "b", "b", "a"],
            "item": ["x", "y", "x", "x", "y", "y", "x"],
            "weight": [2.0, 1.0, 1.0, 3.0, 1.0, 2.0, 4.0],
            "timestamp": [9, 5, 7, 4, 3, 3, 9],
        }
    )
    domain = Domain("shop", events, feedback="implicit")
    assert domain.repeats.to_dict("list") == {
        "user": ["a", "a"],
        "item": ["x", "x"],
        "weight": [6.0, 3.0],
        "timestamp": [9, 4],
    }
    # Two rows of one time are one event, which has no order.
    assert domain.restrict({"b"}).repeats is None
    assert domain.without({"b"}).repeats.equals(domain.repeats)
    assert domain.as_implicit() is domain
    for other in (
        Domain("shop", events.drop(columns="timestamp"), feedback="implicit"),
        mixed(),
        mixed().as_implicit(),
    ):
        assert other.repeats is None


def test_fingerprints_cover_the_times_of_repeats():
    events = table(timestamp=[9, 5, 7, 4])
    later = events.assign(timestamp=[8, 5, 7, 4])
    domains = [Domain("shop", one, feedback="implicit") for one in (events, later)]
    assert domains[0].ratings.equals(domains[1].ratings)
    assert domains[0].fingerprint() != domains[1].fingerprint()
    assert Domain("shop", events.iloc[::-1], feedback="implicit").fingerprint() == domains[0].fingerprint()
    # A table without repeats keeps the fingerprint of its rows alone.
    added_up = Domain("shop", domains[0].ratings, feedback="implicit")
    assert added_up.fingerprint() != domains[0].fingerprint()
    assert added_up.fingerprint() == "11686a11f4deb5acdedebde6fd0f400f9029131c68fcc441bbc4bbefe6b15631"


def test_a_table_without_weights_counts_events():
    domain = implicit(weight=None, timestamp=None)
    assert rows(domain) == {"user": ["a", "a", "b"], "item": ["x", "y", "x"], "weight": [2.0, 1.0, 1.0]}


def test_sums_of_weights_do_not_depend_on_the_order_of_rows():
    weights = [1e16, 1.0, 1.0, 1.0, 1.0, 1.0]
    events = pd.DataFrame({"user": ["a"] * 6, "item": ["x"] * 6, "weight": weights})
    sums = {Domain("s", events.iloc[np.roll(np.arange(6), n)], feedback="implicit").fingerprint() for n in range(6)}
    assert len(sums) == 1


def test_a_rated_row_of_mixed_feedback_keeps_its_rating_and_the_time_of_it():
    assert rows(mixed([4.0, 2.0, NAN, NAN])) == {
        "user": ["a", "a", "b"],
        "item": ["x", "y", "x"],
        "rating": [4.0, 2.0, pytest.approx(NAN, nan_ok=True)],
        "weight": [5.0, 1.0, 1.0],
        "timestamp": [9, 5, 7],
    }
    with pytest.raises(InputError, match='user "a" rates item "x" again'):
        mixed([4.0, 2.0, 5.0, 4.0])


def test_mixed_feedback_without_weights_counts_events():
    assert mixed(weight=None).ratings["weight"].tolist() == [1.0, 1.0, 2.0]


@pytest.mark.parametrize("make", [implicit, mixed])
def test_users_are_left_out_of_events(make):
    domain = make()
    without, only = domain.without({"a"}), domain.restrict({"a"})
    assert (without.num_users, only.num_items, len(only.ratings)) == (1, 2, 2)
    assert (without.feedback, without.scale) == (domain.feedback, domain.scale)
    assert list(without.ratings.columns) == list(domain.ratings.columns)


def test_fingerprints_cover_weights_and_feedback():
    events = table().drop_duplicates(["user", "item"])
    domains = [
        Domain("shop", events, feedback="implicit"),
        Domain("shop", events.assign(weight=[2.0, 1.0, 1.5]), feedback="implicit"),
        Domain("shop", events.drop(columns="timestamp"), feedback="implicit"),
        Domain("shop", events.assign(rating=[NAN, NAN, 3.0]), SCALE, feedback="mixed"),
        Domain("shop", events.assign(rating=[3.0, NAN, 3.0]), SCALE, feedback="mixed"),
        Domain("shop", events.assign(rating=3.0), SCALE, feedback="mixed"),
        Domain("shop", events.assign(rating=3.0), SCALE),
    ]
    assert len({domain.fingerprint() for domain in domains}) == len(domains)
    assert Domain("other", events.iloc[::-1], feedback="implicit").fingerprint() == domains[0].fingerprint()


def test_fingerprints_of_ratings_stay_as_they_were():
    # Caches and studies of explicit ratings are continued under this value.
    ratings = pd.DataFrame({"user": ["a", "b"], "item": ["x", "x"], "rating": [1.0, 2.0]})
    value = "5a009c264602727ac43808a8dd0ce6459b7de8eaa6803be51687bcfc9cee3b4a"
    assert Domain("d", ratings, SCALE).fingerprint() == value


def test_explicit_ratings_as_events():
    ratings = table(rating=[4.0, 2.0, 5.0, 3.0], item=["x", "y", "x", "z"])
    items = pd.DataFrame({"item": ["x"], "tags": ["a"]})
    domain = Domain("films", ratings, SCALE, items)
    everything, liked = domain.as_implicit(), domain.as_implicit(4)
    assert (everything.name, everything.feedback, everything.scale) == ("films", "implicit", None)
    assert everything.items is domain.items
    assert list(everything.ratings) == ["user", "item", "weight", "timestamp"]
    assert everything.ratings["weight"].tolist() == [1.0] * 4
    assert liked.ratings[["user", "item"]].to_numpy().tolist() == [["a", "x"], ["b", "x"]]
    # What is made without a second check is what a checked table would be.
    again = Domain("films", liked.ratings, items=items, feedback="implicit")
    pd.testing.assert_frame_equal(again.ratings, liked.ratings)
    assert again.fingerprint() == liked.fingerprint()


def test_events_as_events_are_the_same_and_mixed_ones_keep_weights():
    assert (domain := implicit()).as_implicit(3) is domain
    assert rows(mixed().as_implicit())["weight"] == [1.0, 1.0, 5.0]
    assert rows(mixed([NAN, 2.0, NAN, 4.0]).as_implicit(3)) == {
        "user": ["b", "a"],
        "item": ["x", "x"],
        "weight": [1.0, 5.0],
        "timestamp": [7, 4],
    }


def test_the_ratings_of_a_domain():
    explicit = Domain("films", table(rating=[4.0, 2.0, 5.0, 3.0], item=["x", "y", "x", "z"]), SCALE)
    assert explicit.rated() is explicit
    rated = mixed([NAN, 2.0, 5.0, NAN]).rated()
    assert (rated.feedback, rated.scale) == ("explicit", SCALE)
    assert rows(rated) == {"user": ["a", "b"], "item": ["y", "x"], "rating": [2.0, 5.0], "timestamp": [5, 7]}
    for domain in (implicit(), mixed().restrict(set())):
        with pytest.raises(InputError, match='domain "shop" has no ratings, only events; use --task ranking'):
            domain.rated()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weight": [2.0, 1.0, -1.0, 3.0]}, "every weight must be positive but row 2 holds -1"),
        ({"weight": [2.0, 0.0, 1.0, 3.0]}, "every weight must be positive but row 1 holds 0"),
        ({"weight": [2.0, np.nan, 1.0, 3.0]}, "every weight must be finite but row 1 holds nan"),
        ({"weight": [np.inf, 1.0, 1.0, 3.0]}, "every weight must be finite but row 0 holds inf"),
        ({"weight": ["2", "1", "1", "3"]}, "every weight must be a number"),
        ({"user": None}, "need the columns user and item, but user is missing"),
        ({"timestamp": [1, 2, 3, np.nan]}, "every timestamp must be finite"),
    ],
)
def test_events_that_are_refused(changes, message):
    for make in (implicit, mixed):
        with pytest.raises(InputError, match=message.replace(" and item,", ".*item.*,")) as caught:
            make(**changes)
        assert "\n" not in str(caught.value)


def test_feedback_and_scale_fit_together():
    for arguments, message in [
        ({"scale": SCALE, "feedback": "implicit"}, "implicit feedback has no rating scale but got 1..5"),
        ({"feedback": "mixed"}, "mixed feedback needs a rating scale"),
        ({}, "explicit feedback needs a rating scale"),
        ({"scale": SCALE, "feedback": "clicks"}, "one of explicit, implicit, mixed but got clicks"),
        ({"scale": SCALE, "feedback": "mixed"}, "rating is missing"),
    ]:
        with pytest.raises(InputError, match=message):
            Domain("shop", table(), **arguments)
    with pytest.raises(InputError, match="implicit feedback has no ratings, but there is a column rating"):
        implicit(rating=[1.0, 2.0, 3.0, 4.0])
    for wrong, message in [(6.0, "must lie in 1..5 but row 1 holds 6"), (np.inf, "every rating must be finite")]:
        with pytest.raises(InputError, match=message):
            mixed([NAN, wrong, 1.0, 2.0])


@pytest.mark.parametrize("positive", [0.5, 6, NAN, np.inf])
def test_positive_lies_in_the_scale(positive):
    with pytest.raises(InputError, match=r"positive must lie in the scale 1\.\.5 but is"):
        mixed().as_implicit(positive)


def test_positive_leaves_a_row():
    ratings = pd.DataFrame({"user": ["a", "b"], "item": ["x", "x"], "rating": [1.0, 2.0]})
    with pytest.raises(InputError, match="no rating is 3 or more, the highest is 2"):
        Domain("d", ratings, SCALE).as_implicit(3)
