"""Alignment undoes shifts and scales of features, and ignores chance differences."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from metarec.episodes import EpisodeBatch
from metarec.evaluation.measures import RATING
from metarec.fusion.networks._base import all_features
from metarec.transfer import Sources, TransferSettings, few_users
from metarec.transfer.strategies.feature_alignment import FeatureAlignment, _chosen, _Trial, similarities
from metarec.transfer.strategies.model_agnostic import SteppedModel
from metarec.transfer.strategies.parts.aligned_episodes import EpisodeMap, moment_map

SHORT = TransferSettings(epochs=20, outer_lr=0.01, options={"hidden_dim": 8})


def width(episodes):
    return all_features(*episodes.batch.query[1:3]).shape[-1]


def distorted(episodes, amount, seed=0):
    """The same users, each of whose features is shifted and scaled."""
    generator = torch.Generator().manual_seed(seed)
    shift, scale = (amount * torch.randn(width(episodes), generator=generator, dtype=torch.float64) for _ in range(2))
    return EpisodeMap(torch.zeros_like(shift), shift, scale / 2)(episodes)


def rmse(model, episodes):
    query = episodes.batch.query
    errors = torch.from_numpy(model.predict(episodes)) - query.targets
    return float(errors[query.mask].square().mean().sqrt())


def rows(episodes):
    query = episodes.batch.query
    return all_features(query.algorithm_features, query.context)[query.mask]


def test_shifted_and_scaled_features_are_restored(worlds):
    few, test = few_users(worlds["movies"].train, 12, seed=0), worlds["movies"].test
    sources = Sources({name: worlds[name] for name in ("books", "music")})
    plain = FeatureAlignment(SHORT, seed=0).fit(sources, few)
    aligned, left = [], []
    for seed in range(6):
        other_few, other_test = distorted(few, 3.0, seed), distorted(test, 3.0, seed)
        model = FeatureAlignment(SHORT, seed=0).fit(sources, other_few)
        reasons = model.reasons()
        assert json.loads(json.dumps(reasons)) == reasons
        assert reasons["share"] == 1.0
        assert reasons["mean_shift"] > plain.reasons()["mean_shift"] + 1
        assert reasons["source"] == max(reasons["similarities"], key=reasons["similarities"].get)
        untouched = sources.model(SHORT, 0, [reasons["source"]])
        aligned.append(rmse(model, other_test))
        left.append(rmse(SteppedModel(untouched, other_few), other_test))
    assert np.mean(aligned) < 0.995 * np.mean(left)
    # Alignment undoes every distortion.
    assert max(aligned) < 1.01 * rmse(plain, test)


def test_only_features_of_rows_without_padding_are_mapped(worlds):
    episodes = worlds["movies"].train
    moved = distorted(episodes, 1.0)
    for before, after in zip(episodes.batch, moved.batch, strict=True):
        for name in ("predictions", "targets", "mask"):
            assert torch.equal(getattr(before, name).nan_to_num(), getattr(after, name).nan_to_num())
        for name in ("algorithm_features", "context"):
            assert torch.equal(getattr(before, name)[~before.mask], getattr(after, name)[~before.mask])
            assert not torch.equal(getattr(before, name)[before.mask], getattr(after, name)[before.mask])


def test_half_a_map_shifts_by_half(worlds):
    episodes = worlds["movies"].train
    shift = torch.linspace(-1, 1, width(episodes), dtype=torch.float64)
    whole = EpisodeMap(torch.zeros_like(shift), shift, torch.zeros_like(shift))
    torch.testing.assert_close(rows(whole.part(0.5)(episodes)) - rows(episodes), shift.float() / 2 + 0 * rows(episodes))
    assert torch.equal(rows(whole.part(0.0)(episodes)), rows(episodes))


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 999), amount=st.floats(1, 3))
# One feature whose spread is many times as large hid the differences of all others.
@example(seed=16, amount=3.0)
@example(seed=219, amount=3.0)
def test_differences_of_many_users_are_removed(worlds, seed, amount):
    """Means and spreads of a distorted domain are restored, but for chance, which is as large as a small distortion."""
    train = worlds["movies"].train
    other = distorted(train, amount, seed)
    back = rows(moment_map(train, other)(other))
    varies = rows(train).std(0) > 1e-3
    unit = rows(train).std(0)
    before, after = (((own.mean(0) - rows(train).mean(0)) / unit)[varies].abs().mean() for own in (rows(other), back))
    assert after < 0.25 * before
    before, after = ((own.std(0) / unit)[varies].log().abs().mean() for own in (rows(other), back))
    assert after < 0.25 * before


def test_chance_differences_are_shrunk(worlds):
    """Few users of the same domain differ from all of them, by chance."""
    train = worlds["movies"].train
    apart, left = [], []
    for seed in range(8):
        few = few_users(train, 6, seed)
        found = moment_map(train, few)
        unit = rows(train).std(0).clamp(min=1e-3)
        apart.append(float(((rows(few).mean(0) - rows(train).mean(0)) / unit).abs().mean()))
        left.append(float((found.shift / unit).abs().mean()))
    assert np.mean(left) < 0.35 * np.mean(apart)


def test_the_map_of_fewer_than_four_users_is_the_identity(worlds):
    few = distorted(few_users(worlds["movies"].train, 3, seed=0), 2.0)
    found = moment_map(worlds["books"].train, few)
    assert not found.shift.any()
    assert not found.log_scale.any()


def test_constant_features_are_not_mapped(worlds):
    few = few_users(worlds["movies"].train, 8, seed=0)
    constant = EpisodeBatch(*(side._replace(context=torch.ones_like(side.context)) for side in few.batch))
    found = moment_map(worlds["books"].train, replace(few, batch=constant))
    size = few.batch.query.context.shape[-1]
    assert not found.shift[-size:].any()
    assert found.shift.isfinite().all()
    assert found.log_scale.isfinite().all()


@pytest.mark.parametrize(
    ("errors", "share"),
    [
        ([[1, 1, 1, 1], [0.2, 0.3, 0.2, 0.3]], 0.5),
        ([[1, 1, 1, 1], [0.1, 1.9, 0.2, 1.7]], 1.0),
        ([[1, 1, 1, 1], [1, 1, 1, 1]], 1.0),
    ],
)
def test_a_smaller_share_is_chosen_only_if_clearly_better(errors, share):
    trials = [_Trial(one, None, None, np.array(own)) for one, own in zip((1.0, 0.5), errors, strict=True)]
    assert _chosen(trials, RATING).share == share


def test_a_copy_of_the_target_is_the_most_similar_source(worlds):
    few = few_users(worlds["movies"].train, 12, seed=0)
    similar = similarities({"twin": worlds["movies"], "books": worlds["books"], "music": worlds["music"]}, few)
    assert max(similar, key=similar.get) == "twin"
