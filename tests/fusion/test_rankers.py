"""The rankers: one contract for all, cases computed by hand, and worlds where one must beat another."""

import copy
import io
import itertools
import json
import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import rankdata
from sklearn.linear_model import LogisticRegression

from metarec.episodes import Episodes
from metarec.errors import InputError
from metarec.fusion.blend import greedy_path
from metarec.fusion.rankers import RANKERS, lambdamart
from metarec.fusion.rankers._base import Judged, drawn, lists_of
from metarec.fusion.rankers._transforms import TRANSFORMS, ranks_of
from metarec.fusion.rankers.simple import BestSingleRanker
from metarec.fusion.ranks import RelevantRanks, ndcg
from tests.support.ranking import ranking_episodes

NAMES = RANKERS.names()


def quality(scores, episodes):
    query = episodes.batch.query
    ranks = RelevantRanks.of(scores, query.targets.numpy(), query.mask.numpy(), episodes.relevant)
    return float(ndcg(ranks).mean())


def with_query(episodes, **changes):
    return replace(episodes, batch=episodes.batch._replace(query=episodes.batch.query._replace(**changes)))


def judged(episodes):
    return Judged(lists_of(episodes), episodes.batch.query.targets.numpy(), episodes.relevant, episodes.base_names)


@pytest.fixture(scope="module", autouse=True)
def few_settings():
    """LambdaMART with two of its settings, for time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lambdamart, "GRID", lambdamart.GRID[:2])
        yield


@pytest.fixture(scope="module")
def world():
    return ranking_episodes(tasks=120, candidates=40, seed=1, silent=0.3)


@pytest.fixture(scope="module", params=NAMES)
def fitted(request, world):
    return RANKERS.get(request.param)().fit(world.train, world.validation, seed=3)


class TestContract:
    """What every ranker keeps. A new one passes by being listed in RANKERS."""

    def test_is_listed_under_its_own_name(self, fitted):
        assert type(fitted) is RANKERS.get(fitted.name)
        json.dumps(fitted.settings)

    def test_scores_are_finite_and_zero_in_padding(self, fitted, world):
        mask = world.test.batch.query.mask
        wild = with_query(
            world.test,
            predictions=world.test.batch.query.predictions.masked_fill(~mask[..., None], 9.0),
            context=world.test.batch.query.context.masked_fill(~mask[..., None], 99.0),
            targets=world.test.batch.query.targets.masked_fill(~mask, 1.0),
        )
        scores = fitted.predict(world.test)
        assert scores.shape == tuple(mask.shape)
        assert np.isfinite(scores).all()
        assert (scores[~mask.numpy()] == 0).all()
        np.testing.assert_array_equal(fitted.predict(wild), scores)

    def test_query_targets_never_reach_a_score(self, fitted, world):
        query = world.test.batch.query
        turned = replace(with_query(world.test, targets=1 - query.targets), relevant=world.test.relevant + 7)
        np.testing.assert_array_equal(fitted.predict(turned), fitted.predict(world.test))

    def test_a_user_is_ranked_alone_as_among_others_in_any_order(self, fitted, world):
        scores = fitted.predict(world.test)
        turned = torch.arange(len(world.test)).flip(0)
        np.testing.assert_allclose(fitted.predict(world.test.select(turned))[::-1], scores, atol=1e-12)
        np.testing.assert_allclose(fitted.predict(world.test.select(torch.tensor([7])))[0], scores[7], atol=1e-12)

    def test_the_order_of_train_and_validation_users_changes_no_setting(self, fitted, world):
        if fitted.name in ("logistic", "lambdamart"):
            pytest.skip("sums over train rows are rounded in their order")
        turned = (side.select(torch.arange(len(side)).flip(0)) for side in (world.train, world.validation))
        again = RANKERS.get(fitted.name)().fit(*turned, seed=3)
        assert again.settings == fitted.settings

    def test_the_same_seed_gives_the_same_numbers(self, fitted, world):
        again = RANKERS.get(fitted.name)().fit(world.train, world.validation, seed=3)
        np.testing.assert_array_equal(again.predict(world.test), fitted.predict(world.test))

    def test_validation_ndcg_is_what_predict_gets_there(self, fitted, world):
        assert fitted.validation_ndcg == pytest.approx(quality(fitted.predict(world.validation), world.validation))

    def test_inputs_are_not_changed(self, fitted, world):
        before = copy.deepcopy(world.test)
        fitted.predict(world.test)
        for one, other in zip(before.batch.query, world.test.batch.query, strict=True):
            assert torch.equal(one.nan_to_num(-1), other.nan_to_num(-1))

    def test_the_restored_one_has_the_same_scores(self, fitted, world):
        file = io.BytesIO()
        np.savez(file, **fitted.state())
        file.seek(0)
        restored = type(fitted)().restore(dict(np.load(file, allow_pickle=False)))
        np.testing.assert_allclose(restored.predict(world.test), fitted.predict(world.test), rtol=0, atol=1e-12)
        assert (restored.settings, restored.validation_ndcg) == (fitted.settings, fitted.validation_ndcg)
        again = type(fitted)().restore(restored.state())
        np.testing.assert_array_equal(again.predict(world.test), restored.predict(world.test))
        pickled = pickle.loads(pickle.dumps(fitted))
        np.testing.assert_array_equal(pickled.predict(world.test), fitted.predict(world.test))

    def test_damaged_states_are_refused(self, fitted):
        state = fitted.state()
        for name in state:
            with pytest.raises(InputError, match=f'"{name}"'):
                type(fitted)().restore({key: value for key, value in state.items() if key != name})
            with pytest.raises(InputError, match=r"must (have the axes|hold|predict)|does not fit"):
                type(fitted)().restore({**state, name: np.array([[np.nan]])})
        chosen = json.loads(str(state["chosen"]))
        with pytest.raises(InputError, match='"chosen"'):
            type(fitted)().restore({**state, "chosen": np.array(json.dumps({**chosen, "validation_rmse": 1.0}))})

    def test_other_bases_are_refused(self, fitted, world):
        odd = replace(world.test, base_names=world.test.base_names[::-1])
        with pytest.raises(InputError, match="was fitted on the bases"):
            fitted.predict(odd)
        with pytest.raises(InputError, match=r"bases .* but validation episodes have"):
            RANKERS.get(fitted.name)().fit(world.train, odd)

    def test_misuse_is_refused(self, fitted, world):
        fresh = RANKERS.get(fitted.name)()
        with pytest.raises(RuntimeError, match="is not fitted"):
            fresh.predict(world.test)
        with pytest.raises(InputError, match="seed must be >= 0 but got -1"):
            fresh.fit(world.train, world.validation, seed=-1)
        with pytest.raises(InputError, match="the train episodes are of rating, not of ranking"):
            fresh.fit(replace(world.train, relevant=None), world.validation)
        empty = with_query(world.train, mask=torch.zeros_like(world.train.batch.query.mask))
        with pytest.raises(InputError, match="at least one query row in the train episodes"):
            fresh.fit(empty, world.validation)

    def test_few_users_and_a_user_without_candidates_fit(self, fitted):
        tiny = ranking_episodes(tasks=6, candidates=5, bases=1, seed=4, missed=2.0)
        mask = tiny.validation.batch.query.mask.clone()
        mask[0] = False
        held_out = with_query(tiny.validation, mask=mask)
        ranker = RANKERS.get(fitted.name)().fit(tiny.train, held_out)
        assert np.isfinite(ranker.predict(held_out)).all()


@pytest.mark.parametrize("name", [name for name in NAMES if name != "best-single"])
def test_is_better_than_the_best_base_where_bases_have_different_errors(name):
    world = ranking_episodes(tasks=120, candidates=40, seed=2, others=0.9)
    found, single = (
        quality(RANKERS.get(one)().fit(world.train, world.validation).predict(world.test), world.test)
        for one in (name, "best-single")
    )
    assert found > 1.15 * single


@pytest.mark.parametrize("name", ["logistic", "lambdamart"])
def test_without_a_relevant_train_candidate_there_is_nothing_to_learn_from(name, world):
    nothing = with_query(world.train, targets=torch.zeros_like(world.train.batch.query.targets))
    with pytest.raises(InputError, match="propose no relevant item to any train user"):
        RANKERS.get(name)().fit(nothing, world.validation)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "lambdamart"])  # its trees stop on validation users
def test_validation_targets_choose_but_are_not_learned_from(name, world):
    training, held_out = judged(world.train), judged(world.validation)
    wrong = held_out._replace(targets=1 - held_out.targets, relevant=held_out.relevant + 40)
    right = RANKERS.get(name)()._families(training, held_out, 3)
    for one, other in zip(right, RANKERS.get(name)()._families(training, wrong, 3), strict=True):
        np.testing.assert_array_equal(one.combine(held_out.lists), other.combine(held_out.lists))


def test_a_planted_leak_of_targets_is_detected(world):
    """A ranker that looks at the relevance of the users that it ranks must fail the test above it."""

    class Leaking(BestSingleRanker):
        def predict(self, episodes: Episodes) -> np.ndarray:
            return super().predict(episodes) + episodes.batch.query.targets.numpy()

    leaking = Leaking().fit(world.train, world.validation)
    with pytest.raises(AssertionError):
        TestContract().test_query_targets_never_reach_a_score(leaking, world)


def test_settings_are_chosen_by_what_no_base_proposed_too():
    """Validation users count in proportion to what can be found for them; over candidates alone all count the same."""
    episodes = ranking_episodes(tasks=4, candidates=6, bases=2, seed=0).validation
    scores = torch.zeros_like(episodes.batch.query.predictions)
    targets = torch.zeros_like(episodes.batch.query.targets)
    targets[:, 0] = 1
    # Base 0 has the first user's relevant candidate at rank 1 and the second user's at 2; base 1 the other way round.
    scores[0, 0, 0], scores[0, 1, 1], scores[1, 1, 0], scores[1, 0, 1] = 1.0, 1.0, 1.0, 1.0
    mask = torch.arange(6) < torch.tensor([[6], [6]])
    for relevant, expected in (([1, 9], "base0"), ([9, 1], "base1")):
        one = replace(with_query(episodes, predictions=scores, targets=targets, mask=mask), relevant=np.array(relevant))
        assert BestSingleRanker().fit(one, one).settings == {"base": expected}


# By hand


def test_ranks_and_scales_are_over_the_candidates_alone():
    scores = np.array([[[3.0], [1.0], [3.0], [9.0]]])
    mask = np.array([[True, True, True, False]])
    np.testing.assert_allclose(ranks_of(scores, mask)[0, :, 0], [1.5, 3, 1.5, 0])
    np.testing.assert_allclose(TRANSFORMS["percentile"](scores, mask)[0, :, 0], [2.5 / 3, 1 / 3, 2.5 / 3, 0])
    np.testing.assert_allclose(TRANSFORMS["min-max"](scores, mask)[0, :, 0], [1, 0, 1, 0])
    for transform in TRANSFORMS.values():
        assert np.isfinite(transform(np.zeros((2, 3, 1)), np.zeros((2, 3), bool))).all()
        assert np.isfinite(transform(np.zeros((2, 3, 1)), np.ones((2, 3), bool))).all()


def test_reciprocal_rank_fusion_and_combsum_are_their_sums(world):
    lists, inside = lists_of(world.test), world.test.batch.query.mask[4].numpy()
    ranks = np.stack([rankdata(-own) for own in lists.predictions[4, inside].T], axis=-1)
    rrf = RANKERS.get("rrf")().fit(world.train, world.validation)
    expected = (1 / (rrf.settings["k"] + ranks)).sum(-1)
    np.testing.assert_allclose(rrf.predict(world.test)[4, inside], expected)
    combsum = RANKERS.get("combsum")().fit(world.train, world.validation)
    own = TRANSFORMS[combsum.settings["transform"]](lists.predictions[4:5, inside], np.ones((1, inside.sum()), bool))
    np.testing.assert_allclose(combsum.predict(world.test)[4, inside], own[0].sum(-1))


def test_a_base_without_scores_takes_the_fallback(world):
    silent = np.isnan(world.test.batch.query.predictions.numpy())
    assert silent.any()
    fallback = np.broadcast_to(world.test.query_fallback.numpy()[..., None], silent.shape)
    np.testing.assert_array_equal(lists_of(world.test).predictions[silent], fallback[silent])


def test_greedy_selection_adds_what_a_plain_search_would_add():
    rng = np.random.default_rng(2)
    scores, truth = rng.normal(size=(4, 30)), rng.normal(size=30)

    def value(total):
        return float(np.corrcoef(total, truth)[0, 1])

    path = greedy_path(scores, value, 5)
    counts = np.zeros(4)
    for weights in path:
        counts[np.argmax([value((counts + one) @ scores) for one in np.eye(4)])] += 1
        np.testing.assert_allclose(weights, counts / counts.sum())
    early = greedy_path(scores, value, 5, early_end=True)
    np.testing.assert_array_equal(early, path[: len(early)])
    values = [value(weights @ scores) for weights in path]
    assert all(two > one for one, two in itertools.pairwise(values[: len(early)]))


def test_a_draw_keeps_what_is_relevant_and_leaves_out_users_without():
    train = judged(ranking_episodes(tasks=50, candidates=30, seed=3).train)
    train.targets[:10] = 0
    whole, few = drawn(train, 10_000, 0), drawn(train, 300, 0)
    is_relevant = train.targets > 0
    assert not whole[:10].any()
    np.testing.assert_array_equal(whole[10:], train.lists.mask[10:])
    assert few[is_relevant].all()
    assert 250 < few.sum() < 350
    assert not (few & ~whole).any()


def test_logistic_is_that_of_scikit_learn(world):
    ranker = RANKERS.get("logistic")().fit(world.train, world.validation)
    train, test = (
        np.concatenate([rows.predictions, rows.algorithm_features.reshape(len(rows.mean), -1), rows.context], axis=1)
        for rows in (lists_of(world.train).rows(drawn(judged(world.train), 10**6, 0)), lists_of(world.test).rows())
    )
    labels = judged(world.train).targets[drawn(judged(world.train), 10**6, 0)]
    mean, spread = train.mean(0), train.std(0)
    kept = spread > 1e-9
    model = LogisticRegression(C=1 / (ranker.settings["penalty"] * len(labels)), max_iter=3000, tol=1e-8)
    model.fit(((train - mean) / spread)[:, kept], labels)
    expected = model.decision_function(((test - mean) / spread)[:, kept]) - model.intercept_
    found = ranker.predict(world.test)[world.test.batch.query.mask.numpy()]
    np.testing.assert_allclose(found, expected, atol=0.05)
    assert np.corrcoef(found, expected)[0, 1] > 0.999


@pytest.mark.slow
def test_trees_find_which_base_suits_a_user():
    """One weight of each base for all users cannot."""
    episodes = ranking_episodes(tasks=800, candidates=60, bases=3, seed=6, signal=2.5)
    linear, trees = (
        quality(RANKERS.get(name)().fit(episodes.train, episodes.validation).predict(episodes.test), episodes.test)
        for name in ("greedy", "lambdamart")
    )
    assert trees > 1.03 * linear
