"""A folder of small rating sets, and the command over models that take no time."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

ROOT = Path(__file__).parents[2]
STAND_IN = Path(__file__).parent / "stand_in.py"


def write_set(folder, *, seed, users=24, items=20, domain=None):
    """Ratings 1..5 with timestamps, each user with 16 of the items."""
    rng = np.random.default_rng(seed)
    quality, taste = rng.normal(size=items), rng.normal(size=users)
    rows = [
        (
            f"u{user:02d}",
            f"i{item:02d}",
            float(np.clip(np.round(3 + quality[item] + 0.7 * taste[user] + rng.normal(0, 0.7)), 1, 5)),
            place,
        )
        for user in range(users)
        for place, item in enumerate(rng.permutation(items)[:16])
    ]
    ratings = pd.DataFrame(rows, columns=["user", "item", "rating", "timestamp"])
    if domain:
        ratings["domain"] = domain
    folder.mkdir(parents=True, exist_ok=True)
    ratings.to_csv(folder / "ratings.csv.gz", index=False)
    return ratings


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    write_set(folder / "ml_latest_small", seed=0)
    write_set(folder / "jester5k", seed=1)
    return folder


@pytest.fixture(scope="session")
def command(data):
    """Starts the command in a process of its own, with all that it writes, and a log of computed cells, in a folder."""

    def start(folder, *arguments, **environment):
        return subprocess.Popen(
            [sys.executable, str(STAND_IN), *arguments, "--work", str(folder / "work"), "--out", str(folder)],
            cwd=ROOT,
            env={
                **os.environ,
                "PYTHONPATH": str(ROOT),
                "METAREC_DATA": str(data),
                "STAND_IN_LOG": str(folder / "log"),
                **environment,
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # Ctrl-C reaches the whole group of a terminal's process.
            start_new_session=True,
        )

    return start
