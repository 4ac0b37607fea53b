"""Missing users are an error before any base is fitted."""

import pytest

from metarec.episodes import EpisodeSettings
from metarec.errors import InputError
from metarec.ratings import simulate_domains
from metarec.transfer import TransferRounds


@pytest.fixture(scope="module")
def domains():
    return simulate_domains(seed=0, num_users=60, num_items=40, ratings_per_user=24)


def made(domains):
    return TransferRounds(domains, [2, 5], EpisodeSettings(min_query=3), bases={"bias": {}})


@pytest.fixture(autouse=True)
def _nothing_is_fitted(monkeypatch):
    for name in ("small_worlds", "cross_validate"):
        monkeypatch.setattr(
            f"metarec.transfer.rounds._rounds.{name}", lambda *_, **__: pytest.fail("something was fitted")
        )


@pytest.mark.parametrize("regime", ["everything", "labels"])
def test_a_possible_round_passes(domains, regime):
    for number in range(6):
        made(domains).check("movies", target_users=10, regime=regime, number=number)


def test_too_many_target_users_are_an_error(domains):
    for regime in ("everything", "labels"):
        with pytest.raises(InputError, match=r'domain "movies": of its .* but got 59'):
            made(domains).check("movies", target_users=59, regime=regime)
    # A source may have fewer users.
    small = {**domains, "books": domains["books"].restrict(sorted(set(domains["books"].ratings["user"]))[:25])}
    for regime in ("everything", "labels"):
        made(small).check("movies", target_users=20, regime=regime)


def test_an_unknown_target_is_an_error(domains):
    with pytest.raises(InputError, match='unknown domain "movie"; did you mean "movies"'):
        made(domains).check("movie", target_users=5)


@pytest.mark.parametrize(("poor", "role"), [("books", "validation"), ("movies", "test")])
def test_a_role_without_users_is_an_error(domains, poor, role):
    # The other domain holds all users, so that their folds stay the same when some leave.
    other = "movies" if poor == "books" else "books"
    users = sorted(set(domains[other].ratings["user"]))
    renamed = dict(zip(sorted(set(domains[poor].ratings["user"])), users, strict=True))
    ratings = domains[poor].ratings.assign(user=domains[poor].ratings["user"].map(renamed))
    own = type(domains[poor])(poor, ratings, domains[poor].scale)
    pair = {other: domains[other], poor: own}
    made(pair).check("movies", target_users=5)
    roles = made(pair)._roles(0)
    pair[poor] = own.without({user for user, given in roles.items() if given == role})
    with pytest.raises(
        InputError, match=rf'domain "{poor}": of its .* users with 8 ratings round 0 has none for {role}'
    ):
        made(pair).check("movies", target_users=5)
