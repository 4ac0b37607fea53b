"""What a study proposes: members chosen by validation users, weights that never see a test rating."""

from types import SimpleNamespace

import numpy as np
import pytest

from metarec.episodes import EpisodeSettings, build_episodes
from metarec.fusion import NETWORKS
from metarec.fusion.stackers import STACKERS
from metarec.meta import make_engine
from metarec.study.ensemble import MEMBERS, combine, member_name, member_trials


def trial(number, value):
    return SimpleNamespace(number=number, values=[value])


def test_the_best_trials_best_first_and_the_earlier_of_equals():
    found = member_trials([trial(0, 0.3), trial(1, 0.1), trial(2, 0.2), trial(3, 0.1), trial(4, 0.5)])
    assert [member.number for member in found] == [1, 3, 2]
    assert len(found) == MEMBERS
    assert [member_name(member) for member in member_trials([trial(7, 0.2)])] == ["trial 7"]


@pytest.fixture(scope="module")
def episodes(world):
    settings = EpisodeSettings(shots=4, max_query=10, folds=2)
    return build_episodes({"movies": world["movies"]}, "movies", settings, {"bias": {}, "item-knn": {}})["movies"]


@pytest.fixture(scope="module")
def members(episodes):
    inputs = episodes.train.batch.query
    shape = (inputs.predictions.shape[-1], inputs.algorithm_features.shape[-1], inputs.context.shape[-1])
    network = NETWORKS.get("gated").for_episodes(*shape, hidden_dim=4)
    learners = {"trial 0": make_engine("batched", network, inner_lr=0.01, inner_steps=1)}
    stackers = {name: STACKERS.get(name)().fit(episodes.train, episodes.validation) for name in ("mean", "ridge")}
    return learners, stackers


def test_it_is_a_convex_combination_of_its_members(episodes, members):
    predictions, weights = combine(episodes, *members)
    learners, stackers = members
    assert list(weights) == ["trial 0", "mean", "ridge"]
    assert min(weights.values()) >= 0
    assert sum(weights.values()) == pytest.approx(1)
    support, query = episodes.test.batch
    said = [learners["trial 0"].adapt(support).predict(query).numpy()]
    said += [stackers[name].predict(episodes.test) for name in ("mean", "ridge")]
    rows = query.mask.numpy()
    expected = sum(weight * values for weight, values in zip(weights.values(), said, strict=True))
    np.testing.assert_allclose(predictions[rows], expected[rows], atol=1e-9)


def test_on_validation_users_it_is_no_worse_than_its_best_member(episodes, members):
    """The pull towards equal weights costs next to nothing."""
    on_validation = type(episodes)(episodes.train, episodes.validation, episodes.validation)
    query = episodes.validation.batch.query
    rows, truth = query.mask.numpy(), query.targets.numpy()
    predictions, _ = combine(on_validation, *members)

    def rmse(values):
        return float(np.sqrt(np.mean((values - truth)[rows] ** 2)))

    best = min(rmse(stacker.predict(episodes.validation)) for stacker in members[1].values())
    assert rmse(predictions) <= best * 1.002


def test_test_ratings_move_nothing(episodes, members):
    query = episodes.test.batch.query
    changed = episodes.test.batch._replace(query=query._replace(targets=1 - query.targets))
    other = type(episodes)(
        episodes.train,
        episodes.validation,
        type(episodes.test)(**{**vars(episodes.test), "batch": changed, "query_ratings": -episodes.test.query_ratings}),
    )
    before, after = combine(episodes, *members), combine(other, *members)
    np.testing.assert_array_equal(before[0], after[0])
    assert before[1] == after[1]
