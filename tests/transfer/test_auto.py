"""Transfer, or not: with helpful sources, with hostile ones, and with reasons."""

import json
from dataclasses import replace

import numpy as np
import pytest

from metarec.episodes import EpisodeSettings
from metarec.ratings import simulate_domains
from metarec.transfer import STRATEGIES, FusionSettings, TransferRounds, predict_round

SETTINGS = EpisodeSettings(min_query=3, max_query=10)
BASES = {"bias": {}, "item-knn": {"neighbours": 10}, "biased-mf": {}}
SHORT = FusionSettings(epochs=8, patience=3, options={"hidden_dim": 8, "dropout": 0.2}, stackers=("ridge",))


@pytest.fixture(scope="module")
def domains():
    return simulate_domains(seed=0, num_users=160, num_items=100, ratings_per_user=25)


def said(domains, names=("movies", "books", "music"), **options):
    rounds = TransferRounds({name: domains[name] for name in names}, (5,), SETTINGS, bases=BASES)
    given = rounds.round("movies", **{"shots": 5, "target_users": 20, "regime": "labels", **options})
    return given, predict_round("auto", given, SHORT, 0)


def inverted(domain):
    ratings = domain.ratings.assign(rating=domain.scale.low + domain.scale.high - domain.ratings["rating"])
    return replace(domain, ratings=ratings)


def turned_episodes(source):
    """The same episodes, in which people liked what they disliked: what the bases say misleads."""

    def turned(episodes):
        query = episodes.batch.query
        return replace(episodes, batch=episodes.batch._replace(query=query._replace(targets=1 - query.targets)))

    return replace(source, train=turned(source.train), validation=turned(source.validation))


def error(given, predictions):
    mask = given.test.batch.query.mask.numpy()
    return float(np.square(predictions - given.scale.to_unit(given.test.query_ratings))[mask].mean())


def test_it_transfers_from_domains_that_help_and_says_why(domains):
    given, auto = said(domains, regime="everything", target_users=10)
    reasons = json.loads(json.dumps(auto.reasons))
    assert reasons["transfers"] is True
    assert 0.5 <= reasons["share"] <= 1
    assert reasons["confidence"] > 0.5
    assert set(reasons["sources"]) == {"books", "music"}
    for source in reasons["sources"].values():
        assert 0 <= source["similarity"] <= 1
        assert np.isfinite(source["gain_from_the_others"])
    alone = predict_round(reasons["instead"], given, SHORT, 0).predictions
    assert error(given, auto.predictions) < error(given, alone)


def test_it_declines_a_hostile_source(domains):
    """Sources that teach the opposite of what is so: what is left is what the few users say alone."""
    given, _ = said(domains, ("movies", "books"))
    hostile = {"books": turned_episodes(given.sources["books"])}
    model = STRATEGIES.get("auto")(SHORT, seed=0).fit(hostile, given.few)
    assert model.reasons()["transfers"] is False
    assert model.reasons()["seen_gain"] < 0
    own = predict_round(model.reasons()["instead"], given, SHORT, 0).predictions
    np.testing.assert_allclose(given.to_unit(model.predict(given.test), plain=False), own, atol=0.02)


def test_one_source_has_no_past(domains):
    _, auto = said(domains, ("movies", "books"))
    assert auto.reasons["prior_gain"] == 0
    assert list(auto.reasons["sources"]) == ["books"]


def test_an_inverted_table_is_no_disaster(domains):
    """Bases fitted on inverted ratings predict inverted ratings: how to combine them may still be worth knowing."""
    worse = {**domains, "books": inverted(domains["books"])}
    given, auto = said(worse, ("movies", "books"))
    best = min(error(given, predict_round(name, given, SHORT, 0).predictions) for name in ("mean", "best-single"))
    assert error(given, auto.predictions) < 1.03 * best
