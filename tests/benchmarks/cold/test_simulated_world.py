"""The oracle and the rank correlation by hand, and the bar that fusion must clear where the truth is known."""

import json
import subprocess
import sys

import numpy as np
import pytest
from scipy.stats import spearmanr

from benchmarks.cold import models
from benchmarks.cold.models import searched
from benchmarks.cold.oracle import Judged, rank_correlations, summary
from benchmarks.cold.simulated_world import run
from tests.benchmarks.conftest import ROOT


def test_rank_correlations_are_spearmans_for_each_user():
    rng = np.random.default_rng(0)
    weights, errors = rng.random((7, 5)), rng.random((7, 5))
    errors[3, 1] = errors[3, 2]
    expected = [spearmanr(own, -wrong).statistic for own, wrong in zip(weights, errors, strict=True)]
    np.testing.assert_allclose(rank_correlations(weights, errors), expected, atol=1e-12)


def test_who_weighs_all_alike_has_found_nothing():
    np.testing.assert_array_equal(rank_correlations(np.full((2, 3), 1 / 3), np.array([[1.0, 2, 3], [3, 2, 1]])), 0)


def test_the_perfect_and_the_perfectly_wrong():
    errors = np.array([[0.1, 0.2, 0.3], [0.3, 0.2, 0.1]])
    np.testing.assert_allclose(rank_correlations(-errors, errors), 1)
    np.testing.assert_allclose(rank_correlations(errors, errors), -1)


def test_the_gap_by_hand():
    """Two users of two rows each: the oracle takes base 0 for the first and base 1 for the second."""
    part = Judged(
        counts=np.array([2.0, 2.0]),
        bases=np.array([[0.02, 0.40], [0.50, 0.04]]),
        ours=np.array([0.10, 0.14]),
        combined=np.array([[0.40, 0.20], [0.04, 0.10]]),
        weights=np.array([[0.9, 0.1], [0.2, 0.8]]),
    )
    found = summary([part], ["best-single", "ridge"])
    single, oracle, ours = np.sqrt([0.44 / 4, 0.06 / 4, 0.24 / 4])
    assert found["best_single"] == pytest.approx(single)
    assert found["oracle"] == pytest.approx(oracle)
    assert found["gap_closed"] == pytest.approx((single - ours) / (single - oracle))
    stacked = np.sqrt(0.30 / 4)
    assert found["gap_closed_by"] == pytest.approx({"best-single": 0, "ridge": (single - stacked) / (single - oracle)})
    # The mean weights prefer base 0 for everybody: right for one user, wrong for the other.
    assert found["rank_correlation"] == pytest.approx(1)
    assert found["rank_correlation_for_all"] == pytest.approx(0)
    assert found["rank_personal"] == pytest.approx(1)
    assert found["rank_interval"] == pytest.approx([0, 2])
    halves = [Judged(*(side[[user]] for side in part)) for user in (0, 1)]
    assert summary(halves, ["best-single", "ridge"]) == found


@pytest.mark.slow
def test_fusion_closes_half_of_the_gap_to_the_oracle(monkeypatch):
    """With six trials, which take a third of the time."""
    monkeypatch.setattr(
        models, "searched", lambda episodes, spec: searched(episodes, spec.model_copy(update={"trials": 6}))
    )
    (world,) = run(seeds=1, users=300, folds=3, shots=10)["worlds"]
    assert world["oracle"] < world["best_single"]
    assert world["gap_closed"] > 0.5
    # One ranking for everybody is the null of the rank correlation.
    assert -1 < world["rank_correlation_for_all"] < 1
    assert world["rank_interval"][0] <= world["rank_personal"] <= world["rank_interval"][1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(("--users", "9"), "--users must be >= 50 but got 9"), (("--json", "no/such/x.json"), "cannot be written there")],
)
def test_refusals(arguments, message):
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.cold.simulated_world", *arguments], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert message in done.stderr


def test_the_report_is_plain_json():
    errors, trust = np.tile([1.0, 2.0], (3, 1)), np.tile([0.7, 0.3], (3, 1))
    part = Judged(np.ones(3), errors, ours=np.ones(3), combined=np.full((3, 1), 2.0), weights=trust)
    assert json.loads(json.dumps(summary([part], ["best-single"])))["n_users"] == 3
