import numpy as np
import pandas as pd
import pytest

from metarec.errors import InputError
from metarec.ratings import infer_scale, simulate_domains, simulate_world
from metarec.ratings._simulate import SIGNALS, SPREAD


@pytest.fixture(scope="module")
def world():
    return simulate_world(seed=0)


def test_scales_steps_and_names(world):
    assert {name: str(domain.scale) for name, domain in world.domains.items()} == {
        "movies": "0.5..5",
        "books": "1..5",
        "music": "0..10",
    }
    for name, step in (("movies", 0.5), ("books", 1.0), ("music", 1.0)):
        domain = world.domains[name]
        assert domain.name == name
        steps = (domain.ratings["rating"] - domain.scale.low) / step
        assert (steps == steps.round()).all()
        # A reader of these ratings, written to a file, must find the same scale.
        assert infer_scale(domain.ratings["rating"]) == domain.scale


def test_domains_share_some_users_and_no_items(world):
    users = [set(domain.ratings["user"]) for domain in world.domains.values()]
    assert [len(group) for group in users] == [300, 300, 300]
    assert len(set.intersection(*users)) == 120
    assert len(set.union(*users)) == 120 + 3 * 180 == len(world.tastes)
    items = [set(domain.items["item"]) for domain in world.domains.values()]
    assert not set.intersection(*items)


def test_activity_and_popularity_have_long_tails(world):
    for domain in world.domains.values():
        for key, fewest in (("user", 15), ("item", 5)):
            counts = domain.ratings[key].value_counts()
            assert counts.min() >= fewest
            assert counts.mean() > 1.1 * counts.median()
            assert counts.max() > 2.5 * counts.median()
        assert 30 <= len(domain.ratings) / domain.num_users <= 60


def test_timestamps_order_a_users_ratings(world):
    for domain in world.domains.values():
        assert domain.has_timestamps
        assert not domain.ratings.duplicated(["user", "timestamp"]).any()
        assert pd.to_datetime(domain.ratings["timestamp"], unit="s").dt.year.between(2015, 2025).all()


def test_item_features(world):
    for domain in world.domains.values():
        sizes = domain.items["genres"].str.split("|").map(len)
        assert set(sizes) == {1, 2, 3}
        assert domain.items["year"].between(1950, 2014).all()


def test_same_seed_same_bytes_other_seed_other_world(world):
    again, other = simulate_world(seed=0), simulate_world(seed=1)
    for name, domain in world.domains.items():
        pd.testing.assert_frame_equal(domain.ratings, again.domains[name].ratings, check_exact=True)
        pd.testing.assert_frame_equal(domain.items, again.domains[name].items, check_exact=True)
        assert simulate_domains(seed=0)[name].fingerprint() == domain.fingerprint()
        assert other.domains[name].fingerprint() != domain.fingerprint()
    pd.testing.assert_frame_equal(world.tastes, again.tastes, check_exact=True)


def test_the_global_generator_is_neither_used_nor_moved():
    np.random.seed(1)  # noqa: NPY002
    expected = simulate_domains(num_users=20)["movies"].fingerprint()
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    np.random.seed(2)  # noqa: NPY002
    assert simulate_domains(num_users=20)["movies"].fingerprint() == expected
    np.random.seed(1)  # noqa: NPY002
    np.testing.assert_array_equal(np.random.get_state()[1], state)  # noqa: NPY002


def oracle_errors(world, name):
    """[U, 4] squared error of a predictor that knows one signal and the user's own mean, and the users' tastes."""
    domain, signals = world.domains[name], world.signals[name]
    unit = domain.scale.to_unit(domain.ratings["rating"])
    users = domain.ratings["user"]
    errors = {}
    for signal in SIGNALS:
        rest = unit - SPREAD * signals[signal]
        errors[signal] = (rest - rest.groupby(users).transform("mean")) ** 2
    errors = pd.DataFrame(errors).groupby(users).mean()
    return errors, world.tastes.set_index("user").loc[errors.index]


@pytest.mark.parametrize("name", ["movies", "books", "music"])
def test_the_best_predictor_of_a_user_is_that_of_the_users_dominant_signal(world, name):
    errors, tastes = oracle_errors(world, name)
    dominant, weight = tastes.idxmax(axis=1), tastes.max(axis=1)
    for signal in SIGNALS:
        group = errors[(dominant == signal) & (weight > 0.6)]
        assert len(group) > 20
        assert group.mean().idxmin() == signal
        assert group.mean()[signal] < 0.6 * group.mean().drop(signal).min()


def test_no_predictor_wins_for_all_users(world):
    for name in world.domains:
        errors, _ = oracle_errors(world, name)
        wins = errors.idxmin(axis=1).value_counts(normalize=True)
        assert set(wins.index) == set(SIGNALS)
        assert wins.min() > 0.1
        assert errors.min(axis=1).mean() < 0.8 * errors.mean().min()


def test_the_mixture_of_the_signals_explains_the_ratings(world):
    domain, signals = world.domains["music"], world.signals["music"]
    weights = world.tastes.set_index("user").loc[domain.ratings["user"], list(SIGNALS)].to_numpy()
    np.testing.assert_allclose(weights.sum(1), 1)
    values = (np.sqrt(weights) * signals.to_numpy()).sum(1)
    assert np.corrcoef(values, domain.ratings["rating"])[0, 1] > 0.8


def test_communities_share_opinions_and_are_the_same_in_all_domains(world):
    companions = []
    for name, domain in world.domains.items():
        values = world.signals[name].assign(user=domain.ratings["user"], item=domain.ratings["item"])
        opinions = values.pivot_table(index="user", columns="item", values="herd")
        assert opinions.nunique().max() == 5
        # Users of one community never differ on an item that both rated; others do on every one.
        shared = shared_users(world)
        differences = opinions.sub(opinions.loc[min(shared)]).abs().max(axis=1)
        companions.append(set(differences.index[differences == 0]) & shared)
    assert companions[0] == companions[1] == companions[2]
    assert len(companions[0]) > 5


def shared_users(world):
    return set.intersection(*(set(domain.ratings["user"]) for domain in world.domains.values()))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_users": 1}, "num_users must be >= 2 but got 1"),
        ({"num_items": 3}, "num_items must be >= 15 but got 3"),
        ({"ratings_per_user": 300}, "ratings_per_user must be between"),
        ({"shared": 1.5}, "shared must be between 0 and 1 but got 1.5"),
        ({"noise": -1.0}, "noise must be finite and >= 0 but got -1.0"),
    ],
)
def test_arguments_out_of_range(arguments, message):
    with pytest.raises(InputError, match=message):
        simulate_world(**arguments)
