"""Auto transfers from helpful sources, declines hostile ones, and gives reasons."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from metarec.episodes import EpisodeSettings
from metarec.ratings import simulate_domains
from metarec.transfer import STRATEGIES, TransferRounds, TransferSettings, predict_round
from metarec.transfer.sources import out_of_fold
from metarec.transfer.strategies.parts.candidates import TRANSFERRED, Candidates
from metarec.transfer.strategies.parts.mixing import mixing_of

SETTINGS = EpisodeSettings(min_query=3, max_query=10)
BASES = {"bias": {}, "item-knn": {"neighbours": 10}, "biased-mf": {}}
SHORT = TransferSettings(epochs=8, patience=3, options={"hidden_dim": 8, "dropout": 0.2}, stackers=("ridge",))


@pytest.fixture(scope="module")
def domains():
    return simulate_domains(seed=0, num_users=160, num_items=100, ratings_per_user=25)


@pytest.fixture(scope="module")
def whole(domains):
    """Rounds of all domains; what they fit is fitted once."""
    return TransferRounds(domains, (5,), SETTINGS, bases=BASES)


@pytest.fixture(scope="module")
def labels(domains):
    """A round of movies and books alone."""
    return round_of(TransferRounds({name: domains[name] for name in ("movies", "books")}, (5,), SETTINGS, bases=BASES))


def round_of(rounds, **options):
    return rounds.round("movies", **{"shots": 5, "target_users": 20, "regime": "labels", **options})


def inverted(domain):
    ratings = domain.ratings.assign(rating=domain.scale.low + domain.scale.high - domain.ratings["rating"])
    return replace(domain, ratings=ratings)


def with_changed_targets(source, change):
    """The same episodes with other ratings on the query rows."""

    def changed(episodes):
        query = episodes.batch.query
        targets = torch.where(query.mask, change(query.targets, query.mask), query.targets)
        return replace(episodes, batch=episodes.batch._replace(query=query._replace(targets=targets)))

    return replace(source, train=changed(source.train), validation=changed(source.validation))


def inverted_targets(targets, mask):
    """Ratings are inverted, so that the bases mislead."""
    return 1 - targets


def far_off(targets, mask):
    """All ratings are far higher than the bases predict."""
    return targets + 0.4


def error(given, predictions):
    mask = given.test.batch.query.mask.numpy()
    return float(np.square(predictions - given.scale.to_unit(given.test.query_ratings))[mask].mean())


@pytest.mark.slow
def test_it_transfers_from_helpful_domains_and_gives_reasons(whole):
    given = round_of(whole, regime="everything", target_users=10)
    auto = predict_round("auto", given, SHORT, 0)
    reasons = json.loads(json.dumps(auto.reasons))
    assert reasons["transfers"] is True
    assert 0.1 <= reasons["share"] <= 1
    assert sum(reasons["shares"].values()) == pytest.approx(1)
    assert sum(reasons["shares"].get(name, 0) for name in TRANSFERRED) == pytest.approx(reasons["share"])
    assert sum(reasons["instead"].values()) == pytest.approx(1)
    assert not set(reasons["instead"]) & set(TRANSFERRED)
    assert reasons["transferred_gain"] > 0
    assert reasons["predicted_gain"] >= reasons["transferred_gain"]
    assert reasons["confidence"] > 0.5
    assert set(reasons["sources"]) == {"books", "music"}
    for source in reasons["sources"].values():
        assert 0 <= source["similarity"] <= 1
        assert np.isfinite(source["gains_from_the_others"]).all()
        assert len(source["gains_from_the_others"]) == 3
    for name in ("mean", "best-single"):
        assert error(given, auto.predictions) < error(given, predict_round(name, given, SHORT, 0).predictions)


@pytest.mark.slow
@pytest.mark.parametrize("change", [inverted_targets, far_off])
def test_it_declines_a_hostile_source(labels, change):
    """The mixture without sources is used instead."""
    given = labels
    hostile = {"books": with_changed_targets(given.sources["books"], change)}
    model = STRATEGIES.get("auto")(SHORT, seed=0).fit(hostile, given.few)
    assert model.reasons()["transfers"] is False
    assert model.reasons()["untouched_gain"] < -mixing_of("rating").hostile
    assert model.reasons()["shares"] == model.reasons()["instead"]
    assert (model.reasons()["confidence"], model.reasons()["transferred_gain"]) == (0.0, 0.0)
    friendly = STRATEGIES.get("auto")(SHORT, seed=0).fit(given.sources, given.few)
    assert friendly.reasons()["untouched_gain"] > -mixing_of("rating").hostile
    own = predict_round("mean", given, SHORT, 0).predictions
    alone = given.to_unit(model.predict(given.test), plain=False)
    assert error(given, alone) < 1.02 * error(given, own)


def test_one_source_gives_no_experience(labels):
    auto = predict_round("auto", labels, SHORT, 0)
    assert auto.reasons["share"] > 0
    assert auto.reasons["sources"]["books"]["gains_from_the_others"] == []


@pytest.mark.slow
def test_an_inverted_source_table_hardly_increases_errors(domains):
    """Bases fitted on inverted ratings predict inverted ratings: their combination may still transfer."""
    worse = {"movies": domains["movies"], "books": inverted(domains["books"])}
    given = round_of(TransferRounds(worse, (5,), SETTINGS, bases=BASES))
    auto = predict_round("auto", given, SHORT, 0)
    best = min(error(given, predict_round(name, given, SHORT, 0).predictions) for name in ("mean", "best-single"))
    assert error(given, auto.predictions) < 1.03 * best


@pytest.mark.slow
def test_out_of_fold_predictions_of_a_user_do_not_depend_on_their_ratings(labels):
    """Inverting one user's ratings changes the predictions for other users only."""
    given = labels
    members = given.sources.model(SHORT, 0).members(given.few)
    query = given.few.batch.query
    targets = query.targets.clone()
    targets[3] = 1 - targets[3]
    turned = replace(given.few, batch=given.few.batch._replace(query=query._replace(targets=targets)))
    before, after = (
        out_of_fold(lambda *own: Candidates(*own, 5, 0), few, members, 5, 0) for few in (given.few, turned)
    )
    np.testing.assert_array_equal(before[3], after[3])
    assert np.abs(before - after).max() > 1e-4


@pytest.mark.slow
def test_a_single_target_user_is_enough(whole):
    given = round_of(whole)
    model = STRATEGIES.get("auto")(SHORT, seed=0).fit(given.sources, given.few.select(torch.tensor([0])))
    assert sum(model.reasons()["shares"].values()) == pytest.approx(1)
    own = predict_round("mean", given, SHORT, 0).predictions
    assert error(given, given.to_unit(model.predict(given.test), plain=False)) < 1.02 * error(given, own)
