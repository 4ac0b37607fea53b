import numpy as np
import pandas as pd
import pytest

from metarec.errors import InputError
from metarec.ratings import simulate_implicit_domains, simulate_implicit_world
from metarec.ratings._simulate_events import KINDS

SUPPORT, TOP = 10, 10


@pytest.fixture(scope="module")
def world():
    return simulate_implicit_world(seed=0)


def test_the_shop(world):
    domain = world.domains["shop"]
    assert (domain.name, domain.feedback, domain.has_timestamps) == ("shop", "implicit", True)
    assert (domain.num_users, domain.num_items) == (400, 300)
    counts = domain.ratings["user"].value_counts()
    assert counts.between(20, 60).all()
    assert set(world.kinds) == set(counts.index)
    assert pd.Series(world.kinds).value_counts().to_dict() == dict.fromkeys(KINDS, 100)
    assert set(domain.items["tags"].str.split("|").map(len)) == {1, 2, 3}
    assert domain.ratings["weight"].value_counts().idxmax() == 1


def test_same_seed_same_bytes_other_seed_other_shop(world):
    again, other = simulate_implicit_domains(seed=0)["shop"], simulate_implicit_domains(seed=1)["shop"]
    pd.testing.assert_frame_equal(world.domains["shop"].ratings, again.ratings, check_exact=True)
    assert again.fingerprint() == world.domains["shop"].fingerprint() != other.fingerprint()


def test_arguments_out_of_range():
    for arguments, message in [
        ({"num_users": 7}, "num_users must be >= 8 but got 7"),
        ({"num_items": 20}, "num_items must be >= 150 but got 20"),
    ]:
        with pytest.raises(InputError, match=message):
            simulate_implicit_world(**arguments)


def test_the_best_base_differs_by_the_kind_of_user(world):
    hits = held_out_hits(world)
    by_kind = hits.groupby("kind").mean()
    for kind, best in {"similar": "neighbours", "sequence": "next", "tags": "tags"}.items():
        assert by_kind.loc[kind].idxmax() == best
        assert by_kind.loc[kind, best] > 1.2 * by_kind.loc[kind].drop(best).max()
    # Neighbours of popular items are popular.
    trend = by_kind.loc["trend"]
    assert trend["popularity"] > 0.9 * trend["neighbours"] > 2 * trend[["next", "tags"]].max()
    best_for_all = by_kind.mean().max()
    assert by_kind.max(axis=1).mean() > 1.1 * best_for_all


def held_out_hits(world):
    """The share of hits among the first ten for each test user and simple base, after ten events."""
    domain = world.domains["shop"]
    events = domain.ratings.sort_values(["user", "timestamp"])
    histories = {user: domain.item_index.get_indexer(own["item"]) for user, own in events.groupby("user")}
    users = sorted(histories)
    train, test = users[:200], users[200:]
    seen = np.zeros((len(train), domain.num_items))
    follows = np.zeros((domain.num_items, domain.num_items))
    for row, user in enumerate(train):
        seen[row, histories[user]] = 1
        np.add.at(follows, (histories[user][:-1], histories[user][1:]), 1)
    popularity = seen.sum(0)
    alike = seen.T @ seen / np.sqrt(np.outer(popularity, popularity) + 1e-9)
    np.fill_diagonal(alike, 0)
    tags = domain.items.set_index("item")["tags"].reindex(domain.item_index).str.get_dummies("|").to_numpy(float)
    tags /= np.linalg.norm(tags, axis=1, keepdims=True)
    recency = 0.5 ** np.arange(SUPPORT)[::-1]
    rows = []
    for user in test:
        support, query = np.split(histories[user][: SUPPORT + TOP], [SUPPORT])
        scores = {
            "popularity": popularity,
            "neighbours": alike[support].sum(0),
            "next": recency @ (follows / (1 + follows.sum(1, keepdims=True)))[support],
            "tags": tags @ tags[support].sum(0),
        }
        shares = {}
        for base, values in scores.items():
            masked = values.copy()
            masked[support] = -1
            shares[base] = np.isin(np.argsort(-masked, kind="stable")[:TOP], query).mean()
        rows.append({"kind": world.kinds[user], **shares})
    return pd.DataFrame(rows)
