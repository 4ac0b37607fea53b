"""The study of feature groups: every feature belongs to one, and leaving it out is leaving it out."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from metarec.episodes import EpisodeSettings, cross_validate
from metarec.episodes._features import CONTEXT_NAMES, FEATURE_NAMES
from metarec.ratings import simulate_domains
from studies.feature_groups import GROUPS, compare, without
from tests.benchmarks.conftest import ROOT


@pytest.fixture(scope="module")
def cross():
    domain = simulate_domains(0, num_users=60, num_items=40, ratings_per_user=22)["movies"]
    return cross_validate(domain, EpisodeSettings(max_query=10), {"bias": {}, "item-knn": {}}, shots=(5,), folds=3)


def test_every_feature_but_the_prediction_is_in_one_group():
    grouped = sorted(name for names in GROUPS.values() for name in names)
    assert grouped == sorted({*FEATURE_NAMES, *CONTEXT_NAMES} - {"prediction"})


def test_what_is_left_out_is_zero_and_the_rest_is_as_it_was(cross):
    episodes = cross.episodes(0, 5).train
    less = without(episodes, GROUPS["the item"])
    for side in ("support", "query"):
        before, after = getattr(episodes.batch, side), getattr(less.batch, side)
        hidden = [name in GROUPS["the item"] for name in episodes.context_names]
        assert not after.context[..., hidden].any()
        shown = [not one for one in hidden]
        assert torch.equal(after.context[..., shown], before.context[..., shown])
        assert torch.equal(after.algorithm_features, before.algorithm_features)
        assert torch.equal(after.targets, before.targets)
    assert before.context[..., hidden].any()


@pytest.mark.slow
def test_a_planted_feature_is_found(cross, monkeypatch):
    """If the item's offset gave the rating away, the item's group would be worth a lot."""
    real = type(cross).episodes

    def leaky(self, fold, shots):
        parts = real(self, fold, shots)
        place = parts.train.context_names.index("item_offset")
        for part in (parts.train, parts.validation, parts.test):
            query = part.batch.query
            query.context[..., place] = 4 * (query.targets - 0.5) * query.mask
        return parts

    monkeypatch.setattr(type(cross), "episodes", leaky)
    found = compare(cross, 5)
    for model in ("network", "gbm", "fwls"):
        assert found["the item"][model]["low"] > 5
        assert found["the user's ratings"][model]["percent"] < 5


def test_refuses_an_unknown_set():
    done = subprocess.run(
        [sys.executable, "-m", "studies.feature_groups", "--sets", "nothing"], cwd=ROOT, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith('error: --sets: unknown set "nothing"')


@pytest.mark.slow
def test_numbers_are_finite(cross):
    for models in compare(cross, 5).values():
        assert np.isfinite([list(one.values()) for one in models.values()]).all()
