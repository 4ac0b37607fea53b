"""Shapes, padding, the cache, and what is refused."""

import logging

import numpy as np
import pytest
import torch

from metarec.episodes import EpisodeSettings, assign_roles, build_episodes
from metarec.errors import InputError
from metarec.ratings import Domain
from tests.episodes.conftest import BASES, make_domain


def build(domain, settings, **changes):
    return build_episodes({"tiny": domain}, "tiny", settings, changes.pop("bases", BASES), **changes)["tiny"]


def same(one, other):
    return all(
        torch.equal(torch.nan_to_num(a.float()), torch.nan_to_num(b.float()))
        for role in ("train", "validation", "test")
        for side in ("support", "query")
        for a, b in zip(getattr(getattr(one, role).batch, side), getattr(getattr(other, role).batch, side), strict=True)
    )


def test_shapes_and_padding(domain, settings):
    built = build(domain, settings)
    for part in (built.train, built.validation, built.test):
        tasks, bases = len(part), len(part.base_names)
        for inputs, rows in ((part.batch.support, settings.shots), (part.batch.query, settings.max_query)):
            assert inputs.predictions.shape == (tasks, rows, bases)
            assert inputs.algorithm_features.shape == (tasks, rows, bases, len(part.feature_names))
            assert inputs.context.shape == (tasks, rows, len(part.context_names))
            assert inputs.targets.shape == inputs.mask.shape == (tasks, rows)
            assert torch.isfinite(inputs.algorithm_features).all()
            assert torch.isfinite(inputs.context).all()
            assert torch.isfinite(inputs.predictions[inputs.mask]).any(-1).all()
            known = inputs.predictions[torch.isfinite(inputs.predictions)]
            assert ((known >= 0) & (known <= 1)).all()
            assert (inputs.targets[~inputs.mask] == 0).all()
        assert part.query_items.shape == part.query_ratings.shape == part.batch.query.mask.shape
        assert ((part.query_items != "") == part.batch.query.mask.numpy()).all()
    counts = domain.ratings["user"].value_counts()
    users = [*built.train.users, *built.validation.users, *built.test.users]
    assert sorted(users) == sorted(counts.index[counts >= settings.needed_ratings])


def test_ratings_are_kept_exactly(domain, settings):
    test = build(domain, settings).test
    truth = domain.ratings.set_index(["user", "item"])["rating"]
    for user, items, ratings in zip(test.users, test.query_items, test.query_ratings, strict=True):
        assert [truth[user, item] for item in items if item] == list(ratings[items != ""])


def test_features_are_standardised_on_train_users(domain, settings):
    query = build(domain, settings).train.batch.query
    rows = query.context[query.mask]
    assert torch.allclose(rows.mean(0), torch.zeros(rows.shape[1]), atol=0.15)
    assert (rows.std(0) < 1.3).all()


def test_zero_shots(domain):
    built = build(domain, EpisodeSettings(shots=0, min_query=3, max_query=8, folds=3))
    assert not built.test.batch.support.mask.any()
    assert built.test.batch.query.mask.any()


@pytest.mark.slow
def test_workers_change_nothing(domain, settings):
    bases = {**BASES, "autoencoder": {"epochs": 2}, "content": {}}
    assert same(build(domain, settings, bases=bases), build(domain, settings, bases=bases, jobs=2))


def test_the_cache_gives_the_same_and_is_used(domain, settings, tmp_path, monkeypatch):
    first = build(domain, settings, cache=tmp_path)
    (entry,) = tmp_path.iterdir()
    monkeypatch.setattr("metarec.episodes.builders._build.predicted_arrays", None)
    assert same(first, build(domain, settings, cache=tmp_path))
    assert entry.exists()


@pytest.mark.parametrize("damage", ["truncate", "flip", "empty"])
def test_a_damaged_cache_entry_is_noticed_and_rebuilt(domain, settings, tmp_path, caplog, damage):
    first = build(domain, settings, cache=tmp_path)
    (entry,) = tmp_path.iterdir()
    content = bytearray(entry.read_bytes())
    if damage == "flip":
        content[len(content) // 2] ^= 1
    entry.write_bytes({"truncate": content[: len(content) // 2], "flip": content, "empty": b""}[damage])
    with caplog.at_level(logging.WARNING, "metarec"):
        assert same(first, build(domain, settings, cache=tmp_path))
    assert "damaged" in caplog.text
    caplog.clear()
    assert same(first, build(domain, settings, cache=tmp_path))
    assert "damaged" not in caplog.text


def test_the_cache_key_holds_data_settings_bases_and_seed(domain, settings, tmp_path):
    other = domain.ratings.copy()
    other.loc[0, "rating"] = 6 - other.loc[0, "rating"]
    build(domain, settings, cache=tmp_path)
    build(Domain("tiny", other, domain.scale), settings, cache=tmp_path)
    build(domain, settings.model_copy(update={"shots": 4}), cache=tmp_path)
    build(domain, settings, cache=tmp_path, seed=1)
    build(domain, settings, cache=tmp_path, bases={"bias": {"damping": 2.0}, "item-knn": {}})
    assert len(list(tmp_path.iterdir())) == 5


def test_too_few_users_are_refused_with_the_cure(domain):
    settings = EpisodeSettings(shots=30)
    with pytest.raises(InputError, match=r'domain "tiny": 0 of 40 users have the 35 ratings .* lower episodes.shots'):
        assign_roles({"tiny": domain}, "tiny", settings, 0)


def test_every_role_has_users_and_a_split_is_a_split():
    domain = make_domain(users=10)
    roles = assign_roles({"tiny": domain}, "tiny", EpisodeSettings(shots=2, min_query=2, max_query=4), 0)
    counts = np.unique(list(roles.roles.values()), return_counts=True)[1]
    assert len(roles.roles) == 10
    assert (counts >= 1).all()
    assert len(counts) == 3
    assert set(roles.folds) == {user for user, role in roles.roles.items() if role == "train"}


def test_progress_is_reported(domain, settings):
    reported = []
    build(domain, settings, on_progress=lambda done, total, what: reported.append((done, total, what)))
    assert [done for done, _, _ in reported] == list(range(1, 1 + (settings.folds + 1) * len(BASES)))
    assert "bias" in reported[0][2]
