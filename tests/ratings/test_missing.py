"""Values that stand for "not rated": seen, named, and left out or read as events."""

import logging
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from metarec.errors import InputError
from metarec.ratings import read_domain, read_domains
from metarec.ratings._missing import unrated_values

STARS = [1, 2, 3, 3, 4, 4, 4, 5, 5, 5]


def text_of(ratings):
    return "user,item,rating\n" + "".join(f"u{n // 10},i{n % 10},{value}\n" for n, value in enumerate(ratings))


@pytest.mark.parametrize(
    ("value", "others", "share", "reason"),
    [
        (0, [2, 4, 6, 6, 8, 8, 8, 10, 10, 10], 0.6, "far more frequent"),
        (0, STARS, 0.45, "far more frequent"),
        (0, [0.5 * star for star in range(1, 11)], 0.6, "far more frequent"),
        (-1, [2, 4, 6, 6, 8, 8, 8, 10, 10, 10], 0.2, "the only negative one"),
        (-1, [0, *STARS], 0.1, "the only negative one"),
        (99, [-9, -4.5, 0.25, 4.5, 9], 0.3, "lies far from the others"),
        (999, [0, 50, 75, 100], 0.01, "lies far from the others"),
        (-99, STARS, 0.3, "lies far from the others"),
    ],
)
def test_values_that_stand_apart_are_named(write, caplog, value, others, share, reason):
    count = round(share * 1000)
    ratings = [value] * count + [others[n % len(others)] for n in range(1000 - count)]
    read_domain(write("a.csv", text_of(ratings)))
    assert f"a.csv: {count} of 1000 ratings ({100 * share:.3g} %) are {value}, which" in caplog.text
    assert reason in caplog.text
    assert f"set missing={{{value}: drop}} to leave these rows out, or missing={{{value}: event}}" in caplog.text


def test_two_such_values_are_both_named():
    assert list(unrated_values(STARS * 10 + [0] * 90 + [-1] * 40)) == [-1, 0]


@pytest.mark.parametrize(
    "ratings",
    [
        [0, 1, 2, 3, 4, 5] * 20,
        [0] * 30 + [1] * 12 + STARS * 6,
        [0, *STARS] * 10,
        [0, 0.5, 1, 1.5, 2] * 10,
        [0, 1] * 50,
        [-1, 0, 1] * 30,
        [-1, 1] * 50,
        [-2, -1, 0, 1, 2] * 10,
        [5] * 90 + STARS,
        [1] * 90 + STARS,
        [1, 2, 3, 99],
        list(np.linspace(-9.95, 9.95, 200)),
        list(np.linspace(0, 100, 40)),
        [-0.5, *np.linspace(0, 10, 99)],
    ],
)
def test_ratings_of_a_scale_do_not_stand_apart(ratings):
    assert unrated_values(ratings) == {}


SETS = (
    "ml_latest_small",
    "movietweetings_100k",
    "goodbooks_5pct",
    "jester5k",
    "ml100k",
    "ml1m",
    "ciao",
    "bookcrossing",
)


@pytest.mark.slow
@pytest.mark.skipif("METAREC_DATA" not in os.environ, reason="METAREC_DATA does not name a folder of real ratings")
@pytest.mark.parametrize("name", SETS)
def test_no_real_scale_is_warned_about(name):
    for domain in read_domains(Path(os.environ["METAREC_DATA"]) / name).values():
        assert unrated_values(domain.ratings["rating"].dropna()) == {}


def test_a_given_scale_says_that_they_are_ratings(write, caplog):
    path = write("a.csv", text_of([0] * 60 + STARS * 4))
    assert len(read_domain(path, scale="0..5").ratings) == 100
    assert caplog.text == ""
    with pytest.raises(InputError, match=r'but is 0; .* if it means "not rated", set missing={0: drop}'):
        read_domain(path, scale="1..5")


def test_such_rows_are_left_out_or_events(write, caplog):
    path = write("a.csv", text_of([0] * 60 + STARS * 4))
    with caplog.at_level(logging.INFO, logger="metarec"):
        domain = read_domain(path, missing={"0": "drop"})
    assert (domain.feedback, str(domain.scale), len(domain.ratings)) == ("explicit", "1..5", 40)
    assert 'a.csv: 60 of 100 rows, with the rating "0", are left out' in caplog.text
    assert "not rated" not in caplog.text
    mixed = read_domain(path, missing={"0.0": "event"})
    assert (mixed.feedback, str(mixed.scale), len(mixed.ratings)) == ("mixed", "1..5", 100)
    assert mixed.ratings["rating"].isna().sum() == 60
    assert "60 of 100 rows have no rating and are read as events" in caplog.text


def test_blanks_and_words_are_such_values_too(write, tmp_path):
    path = write("a.csv", text_of(["", "NA", *STARS, "-1"]))
    kept = read_domain(path, missing={"blank": "drop", "NA": "drop", "-1": "event"}).ratings["rating"]
    assert kept.iloc[:-1].tolist() == STARS
    assert np.isnan(kept.iloc[-1])
    frame = pd.DataFrame({"user": ["a", "a", "b"], "item": ["x", "y", "x"], "rating": [4.0, None, 2.0]})
    frame.to_parquet(tmp_path / "a.parquet")
    assert read_domain(tmp_path / "a.parquet", missing={"blank": "drop"}).feedback == "explicit"


def test_lines_stay_those_of_the_file(write):
    path = write("a.csv", "user,item,rating\na,x,0\na,y,4\nb,x,bad\n")
    with pytest.raises(InputError, match="line 4: the rating"):
        read_domain(path, missing={"0": "drop"})


def test_wrong_uses_are_named(write, caplog):
    path = write("a.csv", text_of(STARS * 2))
    with pytest.raises(InputError, match=r'missing.0 must be drop or event, .* but got "?dorp"?; did you mean "drop"'):
        read_domain(path, missing={"0": "dorp"})
    read_domain(path, missing={"7": "drop"})
    assert 'missing names the rating "7", but there is none' in caplog.text
    with pytest.raises(InputError, match="missing leaves out every row; leave out fewer ratings"):
        read_domain(path, missing={str(star): "drop" for star in range(1, 6)})
