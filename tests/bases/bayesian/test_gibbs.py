"""The sampler behind Bayesian matrix factorisation: its conditionals by hand, and an invented world it must recover."""

import numpy as np
from scipy import sparse

from metarec.bases.bayesian.gibbs import draw_vectors, gibbs_samples, implicit_features, side_information


def test_draws_have_the_mean_and_the_covariance_of_their_distribution():
    rng = np.random.default_rng(0)
    precision = np.array([[2.0, 0.5], [0.5, 1.0]])
    weighted = np.array([1.0, -2.0])
    count = 40_000
    noise = rng.standard_normal((count, 2))
    draws = draw_vectors(np.broadcast_to(precision, (count, 2, 2)), np.broadcast_to(weighted, (count, 2)), noise)
    np.testing.assert_allclose(draws.mean(axis=0), np.linalg.solve(precision, weighted), atol=0.03)
    np.testing.assert_allclose(np.cov(draws.T), np.linalg.inv(precision), atol=0.03)


def test_side_information_is_the_features_whichever_side_is_longer():
    for shape in ((6, 4), (4, 6)):
        features = np.random.default_rng(1).normal(size=shape)
        # The solver leaves out the last direction of a full array; this one has one less.
        features[:, -1] = features[:, 0]
        features[-1] = features[0]
        vectors, values, directions = side_information(sparse.csr_array(features), 10, seed=0)
        np.testing.assert_allclose(vectors * values @ directions.T, features, atol=1e-9)
        for basis in (vectors, directions):
            np.testing.assert_allclose(basis.T @ basis, np.eye(len(values)), atol=1e-9)


def test_implicit_features_have_length_one():
    features = implicit_features(np.array([0, 0, 1]), np.array([0, 2, 1]), (3, 3))
    np.testing.assert_allclose(features.toarray(), [[0.5**0.5, 0, 0.5**0.5], [0, 1, 0], [0, 0, 0]])


def world(seed=0, users=60, items=40):
    rng = np.random.default_rng(seed)
    taste, kind = rng.normal(size=(users, 2)), rng.normal(size=(items, 2))
    truth = taste @ kind.T + rng.normal(size=users)[:, None] * 0.5
    rated = rng.random(truth.shape) < 0.5
    user, item = np.nonzero(rated)
    return truth / truth.std(), rated, user, item, rng


def posterior_mean(samples, users, items, groups=(), burn_in=40):
    kept = [sample.predict(users, items, groups) for number, sample in enumerate(samples) if number >= burn_in]
    return np.mean(kept, axis=0)


def test_recovers_ratings_that_were_not_given():
    truth, rated, user, item, rng = world()
    ratings = truth[user, item] + rng.normal(0, 0.3, len(user))
    asked = np.nonzero(~rated)
    samples = gibbs_samples(user, item, ratings, shape=truth.shape, factors=3, rounds=120, seed=1)
    errors = posterior_mean(samples, *asked) - truth[asked]
    assert np.sqrt(np.mean(errors**2)) < 0.35


def test_an_effect_is_found_and_an_unknown_group_has_none():
    truth, _, user, item, rng = world()
    groups = rng.integers(0, 5, len(user))
    shifts = np.array([-1.5, -0.5, 0.0, 0.5, 1.5])
    ratings = truth[user, item] + shifts[groups] + rng.normal(0, 0.3, len(user))
    samples = list(
        gibbs_samples(user, item, ratings, shape=truth.shape, factors=3, rounds=120, seed=1, groups=[groups])
    )
    found = np.mean([sample.effects[0] for sample in samples[40:]], axis=0)
    assert found[5] == 0.0
    # What all groups share is the offsets' affair.
    np.testing.assert_allclose(np.diff(found[:5]), np.diff(shifts), atol=0.15)


def test_a_noisy_user_is_trusted_less():
    truth, _, user, item, rng = world()
    noise = np.where(user < 10, 1.2, 0.2)
    ratings = truth[user, item] + rng.normal(size=len(user)) * noise
    *_, last = gibbs_samples(user, item, ratings, shape=truth.shape, factors=3, rounds=100, seed=2)
    assert np.median(last.noise_precision[:10]) < 0.5 * np.median(last.noise_precision[10:])


def test_the_same_seed_gives_the_same_draws():
    truth, _, user, item, _ = world()
    runs = [
        [*gibbs_samples(user, item, truth[user, item], shape=truth.shape, factors=2, rounds=3, seed=seed)][-1].users
        for seed in (5, 5, 6)
    ]
    np.testing.assert_array_equal(runs[0], runs[1])
    assert np.abs(runs[0] - runs[2]).max() > 1e-3
