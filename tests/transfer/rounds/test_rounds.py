"""The data that a strategy gets in a round, and the data that it does not get."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from metarec.episodes import EpisodeSettings
from metarec.errors import InputError
from metarec.fusion.stackers import STACKERS
from metarec.ratings import simulate_domains
from metarec.transfer import TransferRounds, TransferSettings, competitors, predict_round
from metarec.transfer.rounds import REGIMES

BASES = {"bias": {}, "item-knn": {"neighbours": 5}}
SETTINGS = EpisodeSettings(min_query=3, max_query=6)
SHORT = TransferSettings(epochs=3, patience=2, options={"hidden_dim": 8, "dropout": 0.2}, stackers=("ridge",))
regimes = pytest.mark.parametrize("regime", REGIMES)


@pytest.fixture(scope="module")
def domains():
    return simulate_domains(seed=5, num_users=60, num_items=50, ratings_per_user=20)


@pytest.fixture(scope="module")
def rounds(domains):
    return TransferRounds(domains, (4,), SETTINGS, bases=BASES)


@pytest.fixture(scope="module")
def light(domains):
    """Rounds for questions about users alone, in a fraction of the time."""
    return TransferRounds({name: domains[name] for name in ("movies", "books")}, (4,), SETTINGS, bases={"bias": {}})


def given(rounds, regime, **options):
    return rounds.round("movies", **{"shots": 4, "target_users": 6, "regime": regime, **options})


def turned(domain, chosen):
    """The domain with those ratings inverted that `chosen` accepts by user and item."""
    ratings = domain.ratings.copy()
    rows = [chosen(user, item) for user, item in zip(ratings["user"], ratings["item"], strict=True)]
    ratings.loc[rows, "rating"] = domain.scale.low + domain.scale.high - ratings.loc[rows, "rating"]
    return replace(domain, ratings=ratings)


def inputs(episodes):
    """All inputs of a model, without the query's targets."""
    support, query = episodes.batch
    return [*support, *(tensor for name, tensor in query._asdict().items() if name != "targets")]


def same(one, other):
    return all(
        torch.equal(a.nan_to_num(9.0), b.nan_to_num(9.0)) for a, b in zip(inputs(one), inputs(other), strict=True)
    )


@regimes
@pytest.mark.parametrize("make", ["rounds", "light"])
def test_roles_of_users_do_not_overlap(make, regime, request):
    made = given(request.getfixturevalue(make), regime)
    assert len(made.few) == 6
    tested = set(made.test.users)
    assert tested
    assert not tested & set(made.few.users)
    assert list(made.test.users) == list(made.plain_test.users)
    assert list(made.few.users) == list(made.plain_few.users)
    assert np.array_equal(made.test.query_ratings, made.plain_test.query_ratings)
    for source in made.sources.values():
        assert not tested & {*source.train.users, *source.validation.users}
        assert not len(source.test)


@regimes
def test_each_round_has_other_test_users_and_more_target_users_are_added(light, regime):
    made = given(light, regime)
    others = [set(given(light, regime, number=number).test.users) for number in (1, 2, 3, 4)]
    assert all(others)
    assert not any({*made.test.users} & other for other in others)
    assert set(given(light, regime, target_users=4).few.users) < set(made.few.users)


@pytest.mark.slow
@regimes
def test_test_users_query_ratings_move_no_prediction(domains, rounds, regime):
    made = given(rounds, regime)
    queries = {
        (user, item) for user, items in zip(made.test.users, made.test.query_items, strict=True) for item in items
    }
    other = turned(domains["movies"], lambda user, item: (user, item) in queries)
    again = given(TransferRounds({**domains, "movies": other}, (4,), SETTINGS, bases=BASES), regime)
    for name in competitors():
        before, after = (predict_round(name, one, SHORT, 0).predictions for one in (made, again))
        np.testing.assert_array_equal(after, before, err_msg=name)
    assert not np.array_equal(made.test.query_ratings, again.test.query_ratings)


def test_in_the_regime_everything_other_users_of_the_target_do_not_count(domains, rounds):
    """All ratings of the target's other train and validation users are inverted: only the oracle changes."""
    made = given(rounds, "everything")
    kept = {*made.few.users, *made.test.users}
    other = turned(domains["movies"], lambda user, _: user not in kept)
    again = given(TransferRounds({**domains, "movies": other}, (4,), SETTINGS, bases=BASES), "everything")
    for side in ("few", "test", "plain_few", "plain_test"):
        assert same(getattr(made, side), getattr(again, side)), side
    assert made.test.scale == again.test.scale
    assert not torch.equal(made.more_users.train.batch.query.targets, again.more_users.train.batch.query.targets)


def test_in_the_regime_labels_feature_standards_come_from_the_few(domains, rounds):
    few = given(rounds, "labels").plain_few
    rows = few.batch.query.context[few.batch.query.mask]
    # Measured against the few users' own rows, what varies has mean 0 and deviation 1 on these very rows.
    varies = rows.std(0) > 1e-3
    assert varies.any()
    torch.testing.assert_close(rows[:, varies].mean(0), torch.zeros(int(varies.sum())), atol=0.02, rtol=0)


@regimes
def test_on_the_common_scale_domains_are_similar(rounds, regime):
    made = given(rounds, regime)
    for source in made.sources.values():
        targets = source.train.batch.query.targets[source.train.batch.query.mask]
        assert abs(float(targets.mean()) - 0.5) < 0.1
        assert 0.1 < float(targets.std()) < 0.25
    back = made.to_unit(made.test.batch.query.targets.numpy(), plain=False)
    mask = made.test.batch.query.mask.numpy()
    np.testing.assert_allclose(back[mask], made.scale.to_unit(made.test.query_ratings)[mask], atol=1e-5)


@regimes
def test_a_baseline_is_the_stacker_on_the_few_users(rounds, regime):
    made = given(rounds, regime)
    best = STACKERS.get("best-single")().fit(made.plain_few, made.plain_few)
    np.testing.assert_allclose(
        predict_round("best-single", made, SHORT, 0).predictions, best.predict(made.plain_test), atol=1e-12
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shots": 3}, "shots must be one of 0, 4 but got 3"),
        ({"target_users": 1}, 'domain "movies": of its .* but got 1'),
        ({"sources": ["boks"]}, 'unknown domain "boks"; did you mean "books"'),
        ({"sources": ["books", "movies"]}, 'not the target "movies" but got books, movies'),
        ({"sources": []}, "at least one domain .* but got none"),
    ],
)
def test_wrong_rounds_are_errors(domains, options, message):
    rounds = TransferRounds(domains, (0, 4), SETTINGS, bases=BASES)
    with pytest.raises(InputError, match=message):
        given(rounds, "everything", **options)


def test_one_domain_is_not_enough(domains):
    with pytest.raises(InputError, match="at least two domains but got movies"):
        TransferRounds({"movies": domains["movies"]}, (0,))
    with pytest.raises(InputError, match=r"shots must name at least one number >= 0 but got \[\]"):
        TransferRounds(domains, ())
