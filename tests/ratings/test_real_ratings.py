"""Real files, where METAREC_DATA says that they are."""

import os
import time
from pathlib import Path

import pytest

from metarec.ratings import read_domain, read_domains

FOLDER = os.environ.get("METAREC_DATA")
pytestmark = pytest.mark.skipif(not FOLDER, reason="METAREC_DATA does not name a folder of real ratings")


@pytest.mark.parametrize(
    ("name", "users", "items", "rows", "scale", "timestamps"),
    [
        ("ml_latest_small", 610, 9_724, 100_836, "0.5..5", True),
        ("movietweetings_100k", 16_554, 10_506, 100_000, "0..10", True),
        ("goodbooks_5pct", 2_672, 9_990, 298_176, "1..5", False),
        ("jester5k", 5_000, 100, 363_209, "-10..10", False),
    ],
)
def test_real_ratings_are_read_whole_and_fast(name, users, items, rows, scale, timestamps):
    start = time.perf_counter()
    domain = read_domain(Path(FOLDER) / name)
    seconds = time.perf_counter() - start
    assert (domain.num_users, domain.num_items, len(domain.ratings)) == (users, items, rows)
    assert (str(domain.scale), domain.has_timestamps) == (scale, timestamps)
    assert domain.items["item"].isin(domain.ratings["item"]).mean() > 0.9
    assert not {"average_rating", "ratings_count"} & set(domain.items)
    assert seconds < 10


def test_leading_zeros_of_real_ids_are_kept():
    domain = read_domain(Path(FOLDER) / "movietweetings_100k")
    assert domain.ratings["item"].str.startswith("0").any()


def test_real_domains_of_one_file():
    domains = read_domains(Path(FOLDER) / "ciao")
    assert len(domains) == 28
    assert sum(len(domain.ratings) for domain in domains.values()) == 282_656
    assert read_domain(f"{FOLDER}/ciao#8").fingerprint() == domains["8"].fingerprint()


@pytest.mark.parametrize(
    ("path", "feedback", "users", "items", "rows", "timestamps"),
    [
        ("amazon_grocery_toys#grocery", "implicit", 3_772, 1_232, 54_689, False),
        ("lastfm_hetrec", "implicit", 1_892, 17_632, 92_834, False),
        ("citeulike_a", "implicit", 5_551, 16_980, 204_986, False),
        ("foursquare_5k", "implicit", 4_969, 8_000, 92_103, True),
        ("ta_feng_12k", "implicit", 12_000, 20_148, 274_095, True),
        ("bookcrossing", "mixed", 2_946, 17_384, 272_678, False),
        ("amazon_beauty", "implicit", 22_363, 12_101, 198_502, True),
    ],
)
@pytest.mark.slow
def test_real_events_are_read_whole_and_fast(path, feedback, users, items, rows, timestamps):
    start = time.perf_counter()
    domain = read_domain(f"{FOLDER}/{path}")
    seconds = time.perf_counter() - start
    assert (domain.num_users, domain.num_items, len(domain.ratings)) == (users, items, rows)
    assert (domain.feedback, domain.has_timestamps) == (feedback, timestamps)
    assert (domain.ratings["weight"] >= 1).all()
    assert seconds < 15


def test_real_visits_are_added_up():
    weights = read_domain(f"{FOLDER}/foursquare_5k").ratings["weight"]
    assert weights.sum() == 185_871


@pytest.mark.slow
def test_real_mixed_feedback():
    domain = read_domain(f"{FOLDER}/bookcrossing")
    rated = domain.rated()
    assert (str(rated.scale), rated.num_users, len(rated.ratings)) == ("1..10", 1_295, 62_656)
    assert len(domain.as_implicit().ratings) == 272_678
