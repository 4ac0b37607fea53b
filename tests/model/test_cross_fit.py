"""Cross-fitted fusions: which users each fit learns from, the weights, the means, the state, and a study."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

import metarec
from metarec.episodes import Episodes, EpisodeSettings, History, build_episodes
from metarec.errors import InputError
from metarec.meta import NetworkConfig
from metarec.model import Fusion, FusionConfig, MeanStacker
from metarec.model import fusion as module
from metarec.model.contrasts import AVERAGED, contrasts_of
from metarec.study.data import identity_of, settled
from metarec.study.job import run_study
from metarec.study.spec import load_spec
from metarec.tracking import sqlite_uri
from tests.support.ranking import ranking_episodes
from tests.support.studies import reported, tiny_spec

NETWORK = NetworkConfig(options={"hidden_dim": 4}, epochs=2, inner_lr=0.01)
FITS = 3


@pytest.fixture(scope="module")
def ratings(world):
    settings = EpisodeSettings(shots=4, max_query=10, folds=2)
    return build_episodes({"movies": world["movies"]}, "movies", settings, {"bias": {}, "item-knn": {}})["movies"]


@pytest.fixture(scope="module")
def lists():
    return ranking_episodes(tasks=60, candidates=20, seed=2, others=0.6)


@pytest.fixture(scope="module", params=["rating", "ranking"])
def fitted(request, ratings, lists):
    """A cross-fitted fusion and its episodes."""
    episodes = ratings if request.param == "rating" else lists
    stackers = ("mean", "ridge") if request.param == "rating" else ("combsum", "logistic")
    config = FusionConfig(task=request.param, networks={"network": NETWORK}, stackers=stackers, cross_fit=FITS)
    return Fusion(config, seed=1).fit(episodes), episodes


def test_each_fit_is_tuned_on_users_that_it_does_not_learn_from(ratings, monkeypatch):
    seen = []
    honest = module.fit_stacker

    def spied(name, train, validation, *, seed):
        seen.append((list(train.users), list(validation.users)))
        return honest(name, train, validation, seed=seed)

    monkeypatch.setattr(module, "fit_stacker", spied)
    Fusion(FusionConfig(networks={}, stackers=("ridge",), cross_fit=FITS)).fit(ratings)
    everybody = sorted([*ratings.train.users, *ratings.validation.users])
    assert len(seen) == FITS
    for learned, held_out in seen:
        assert sorted([*learned, *held_out]) == everybody
    assert sorted(user for _, held_out in seen for user in held_out) == everybody
    assert not set(everybody) & set(ratings.test.users)


def test_the_weights_come_from_fits_that_did_not_learn_from_the_user(fitted):
    fusion, _ = fitted
    users, members = fusion._judged
    for name, predicted in members.items():
        learned_from_most = fusion.members(users)[name]
        if name not in ("mean", "combsum"):
            assert not np.allclose(predicted, learned_from_most, atol=1e-6)
    # A user's prediction is that of one fit.
    parts = module.user_parts([users], FITS, 1)
    one = fusion.networks["network"].fits[0].adapt(users.batch.support)
    first = len(parts[0])
    assert set(users.users[:first]) == parts[0]
    expected = module.outputs_of(one, users.batch.query, users.task)
    mask = users.batch.query.mask.numpy()
    if users.task == "ranking":
        expected = module.standard_scores(expected, mask)
    np.testing.assert_allclose(members["network"][:first][mask[:first]], expected[:first][mask[:first]], atol=1e-5)


def test_test_users_change_nothing(ratings):
    config = FusionConfig(networks={"network": NETWORK}, stackers=("ridge",), cross_fit=2)
    query = ratings.test.batch.query
    batch = ratings.test.batch._replace(query=query._replace(targets=1 - query.targets))
    other = replace(ratings, test=replace(ratings.test, batch=batch))
    one, again = Fusion(config).fit(ratings), Fusion(config).fit(other)
    assert one.weights == again.weights
    np.testing.assert_array_equal(one.predict(ratings.test), again.predict(other.test))


def test_a_member_is_the_mean_of_its_fits(ratings):
    config = FusionConfig(networks={"network": NETWORK}, stackers=("ridge",), cross_fit=FITS)
    fusion = Fusion(config).fit(ratings)
    test = ratings.test
    mask = test.batch.query.mask.numpy()
    members = fusion.members(test)
    ridge = [fit.predict(test) for fit in fusion.stackers["ridge"].fits]
    np.testing.assert_allclose(members["ridge"], np.mean(ridge, axis=0))
    networks = [
        fit.adapt(test.batch.support).predict(test.batch.query).numpy() for fit in fusion.networks["network"].fits
    ]
    np.testing.assert_allclose(members["network"][mask], np.mean(networks, axis=0)[mask], atol=1e-6)
    assert np.ptp([fit[mask].mean() for fit in networks]) > 0
    assert len(fusion.stackers["ridge"].settings["fits"]) == FITS
    assert sum(fusion.weights.values()) == pytest.approx(1)


def test_it_is_restored_from_its_state(fitted):
    fusion, episodes = fitted
    again = Fusion.restore(fusion.state())
    np.testing.assert_allclose(again.predict(episodes.test), fusion.predict(episodes.test), rtol=1e-9)
    np.testing.assert_allclose(again.used().predict(episodes.test), fusion.predict(episodes.test), rtol=1e-9)
    state = fusion.state()
    with pytest.raises(InputError, match="the network network must have a path for each of its 3 fits but has None"):
        Fusion.restore({**state, "paths": {"network": None}})


def test_a_state_of_another_number_of_fits_is_refused(fitted):
    state = fitted[0].state()
    with pytest.raises(InputError, match="must have weights of the shapes"):
        Fusion.restore({**state, "config": {**state["config"], "cross_fit": FITS - 1}})
    stacker = next(iter(fitted[0].stackers.values()))
    with pytest.raises(InputError, match="must name the fit of each value but has 2_"):
        MeanStacker(stacker.fits[:2]).restore(stacker.state())


def test_the_stack_has_the_weights_of_one_without_networks(fitted):
    fusion, episodes = fitted
    stack = contrasts_of(fusion, "network")["stack"]
    config = fusion.config.model_copy(update={"networks": {}})
    alone = Fusion(config, seed=1).fit(episodes)
    assert stack.weights == pytest.approx(alone.weights)
    np.testing.assert_allclose(stack.predict(episodes.test), alone.predict(episodes.test), atol=1e-9)


def test_given_members_are_not_fitted_again(fitted):
    fusion, episodes = fitted
    again = Fusion(fusion.config, seed=1).fit(episodes, networks=fusion.networks, stackers=fusion.stackers)
    own, given = again.networks["network"].fits, fusion.networks["network"].fits
    assert all(one is other for one, other in zip(own, given, strict=True))
    assert again.weights == fusion.weights


def test_a_user_is_held_out_in_all_domains_all_episodes_and_beside_them(ratings, monkeypatch):
    """The same user may have several episodes, and ratings in several domains."""
    seen = []
    honest = Fusion._fit_members

    def spied(fusion, train, validation, *members):
        seen.append(({user for one in train for user in one.users}, {user for one in validation for user in one.users}))
        return honest(fusion, train, validation, *members)

    monkeypatch.setattr(Fusion, "_fit_members", spied)
    several = replace(ratings, train=Episodes.joined([ratings.train, ratings.train]))
    config = FusionConfig(networks={}, stackers=("ridge",), cross_fit=FITS)
    Fusion(config).fit([several, ratings], beside=[ratings.train, ratings.validation])
    assert len(seen) == FITS
    for learned, held_out in seen:
        assert held_out
        assert not learned & held_out


def test_too_few_users_are_refused(ratings):
    count = len(ratings.train) + len(ratings.validation)
    config = FusionConfig(networks={}, stackers=("ridge",), cross_fit=count)
    with pytest.raises(InputError, match=f"cross_fit: {count} needs at least {2 * count} train and validation users"):
        Fusion(config).fit(ratings)


def test_several_domains_and_episodes_beside(ratings):
    config = FusionConfig(networks={"network": NETWORK}, stackers=("ridge",), cross_fit=2)
    several = Fusion(config).fit([ratings, ratings], beside=[ratings.train])
    users, members = several._judged
    assert len(users) == 2 * (len(ratings.train) + len(ratings.validation)) == len(members["ridge"])
    assert np.isfinite(several.predict(ratings.test)).all()


def test_a_fusion_that_was_read_has_no_parts(fitted):
    with pytest.raises(RuntimeError, match="the fusion was not fitted here"):
        Fusion.restore(fitted[0].state()).part(["network"])


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"cross_fit": 1}, "cross_fit must be 0 or at least 2 but got 1"),
        ({"cross_fit": -1}, "cross_fit"),
        ({"cross_fit": 2, "transfer": {}}, "cross_fit must be 0 in a study of transfer strategies but got 2"),
    ],
)
def test_a_wrong_number_is_one_line(changes, rule):
    with pytest.raises(InputError) as caught:
        load_spec("quickstart", changes)
    assert rule in str(caught.value)
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="cross_fit must be 0 or at least 2 but got 1"):
        FusionConfig(cross_fit=1)


def test_a_study_may_go_on_with_other_fits(world):
    spec = settled(tiny_spec(), {"movies": world["movies"]})
    other = spec.model_copy(update={"cross_fit": 4})
    assert identity_of(spec, {"movies": world["movies"]}) == identity_of(other, {"movies": world["movies"]})


@pytest.fixture(scope="module")
def study(world, new_folder):
    folder = new_folder()
    spec = tiny_spec(trials=2, baselines=["mean", *AVERAGED["rating"]], cross_fit=2)
    return run_study(spec, {"movies": world["movies"]}, reported(folder, "crossed")), folder


@pytest.mark.slow
def test_every_learned_model_of_a_study_is_cross_fitted(study):
    result, _ = study
    scores = result.test["movies"].scores
    assert {"metarec", "network", "stack", "stack-mean", "no-inner-loop", "ridge"} <= set(scores)
    assert len(result.settings["movies"]["ridge"]["fits"]) == 2


@pytest.mark.slow
def test_the_model_of_a_study_predicts_what_was_scored(study, world):
    _, folder = study
    model = metarec.load("models:/metarec-crossed@champion", tracking_uri=sqlite_uri(folder / "mlflow.db"))
    assert model.fusion.config.cross_fit == 2
    rows = pd.read_parquet(folder / "artifacts" / "crossed" / "predictions.parquet")
    movies = world["movies"].ratings
    for user, own in list(rows.groupby("user"))[:5]:
        known = movies[movies["user"] == user].sort_values(["timestamp", "item"])
        times = known.set_index("item")["timestamp"]
        users = model.maker.users([History.of(known.head(tiny_spec().episodes.shots))])
        items = own["item"].to_numpy(object)
        episodes = users.episodes([items], [times[items].to_numpy()])
        predicted = model.fusion.adapt(users.support).predict(episodes)[0]
        found = model.maker.scale.to_ratings(np.clip(predicted, 0, 1))
        np.testing.assert_allclose(found, own["metarec"], atol=2e-4)
