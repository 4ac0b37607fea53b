"""Real files, where METAREC_DATA says that they are."""

import os
import time
from pathlib import Path

import pytest

from metarec.errors import InputError
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


@pytest.mark.parametrize("name", ["amazon_grocery_toys", "lastfm_hetrec"])
def test_real_implicit_feedback_is_refused(name):
    with pytest.raises(InputError, match="explicit ratings"):
        read_domain(Path(FOLDER) / name)
