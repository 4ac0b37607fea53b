"""What the names of a table stand for."""

import numpy as np
import pytest

from metarec.episodes import EpisodeSettings
from metarec.fusion.stackers import STACKERS
from metarec.model.contrasts import AVERAGED, STACK, STACK_MEAN
from metarec.ratings import simulate_domains
from metarec.transfer import STRATEGIES, TransferRounds, TransferSettings, competitors, controls, predict_round
from metarec.transfer.competitors import ORACLE_USERS

SHORT = TransferSettings(epochs=2, patience=1, options={"hidden_dim": 8}, folds=2, stackers=("ridge",))


@pytest.fixture(scope="module")
def rounds():
    domains = simulate_domains(seed=3, num_users=240, num_items=40, ratings_per_user=15)
    chosen = {name: domains[name] for name in ("movies", "books")}
    return TransferRounds(chosen, (2,), EpisodeSettings(min_query=3, max_query=4), bases={"bias": {}, "content": {}})


def test_the_oracle_learns_from_as_many_users_as_its_text_says(rounds):
    labels, everything = (
        rounds.round("movies", shots=2, target_users=6, regime=regime) for regime in ("labels", "everything")
    )
    train = {user for user, role in rounds._roles(0).items() if role == "train"}
    able = train & set(rounds._able_users("movies", 0))
    assert len(able) > 106
    assert set(labels.more_users.train.users) >= able
    assert len(everything.more_users.train.users) == 100
    assert not set(everything.more_users.train.users) & set(everything.few.users)
    assert "from all of them where only labels are few" in ORACLE_USERS
    assert "at most 100 others" in ORACLE_USERS


def test_the_mean_of_stackers_is_their_plain_mean(rounds):
    given = rounds.round("movies", shots=2, target_users=6)
    mean, *own = (predict_round(name, given, SHORT, 0) for name in (STACK_MEAN, *AVERAGED["rating"]))
    np.testing.assert_allclose(mean.predictions, np.mean([one.predictions for one in own], axis=0), atol=1e-12)
    assert mean.reasons["settings"] == [setting for one in own for setting in one.reasons["settings"]]


def test_every_competitor_is_a_control_a_transfer_strategy_or_the_oracle():
    transfers = {"auto", "model_agnostic", "gradient_based", "feature_alignment", "prototype_based"}
    assert set(competitors()) == {*controls(), *transfers, "oracle"}
    assert {"scratch", STACK, "zero_shot", "pooled", STACK_MEAN, *STACKERS.names()} == set(controls())
    assert set(STRATEGIES.names()) - transfers <= set(controls())
