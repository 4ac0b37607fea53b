"""A simulated shop in which different ranking bases are best for different users."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from metarec.errors import InputError
from metarec.ratings._domain import Domain

__all__ = ["SimulatedShop", "simulate_implicit_domains", "simulate_implicit_world"]

KINDS = ("trend", "similar", "sequence", "tags")
"""What a user buys by: what is popular now, what is like the user's other items, what follows the last item, tags."""

NUM_CLUSTERS = 8
NUM_TAGS = 24
NUM_FOLLOWERS = 2
OWN = 0.85
"""The share of a user's events that follow the user's kind; the other ones follow the popularity of the moment."""
HALF_LIFE = 30.0
"""Days after which an item's trend has halved."""
TREND = 4.0
"""How much more popular an item is when it comes out than much later."""
FEWEST, MOST = 20, 60
"""Events of a user."""
_DAYS = 60.0
"""In which users start."""
_BEFORE = 120.0
"""Days before them in which items come out too."""
_SECONDS = 86_400
_FIRST = 1_672_531_200


@dataclass(frozen=True, eq=False)
class SimulatedShop:
    """The simulated domain and its latent variables.

    Attributes:
        domains: the name ``shop`` -> the domain.
        kinds: user -> one of `KINDS`.
    """

    domains: dict[str, Domain]
    kinds: dict[str, str]


def simulate_implicit_domains(seed: int = 0, *, num_users: int = 400, num_items: int = 300) -> dict[str, Domain]:
    """The domain of `simulate_implicit_world`: the purchases of a shop.

    >>> {name: domain.feedback for name, domain in simulate_implicit_domains(seed=0).items()}
    {'shop': 'implicit'}
    """
    return simulate_implicit_world(seed, num_users=num_users, num_items=num_items).domains


def simulate_implicit_world(seed: int = 0, *, num_users: int = 400, num_items: int = 300) -> SimulatedShop:
    """Draw a shop whose users are of four kinds, a quarter of each, and buy 20 to 60 different items.

    Item i has an appeal (long-tailed, 1 / (rank + 2)), a random one of 180 days on which it comes out, one of 8 hidden
    clusters, 1 to 3 of 24 tags, and 2 items that follow it. Its popularity at time t is its appeal times
    1 + 4 * 0.5^(days since it came out / 30); before that day it is 0.

    A user starts on a random one of the last 60 of these days and buys at exponential gaps of half a day on average.
    With probability 0.85 a purchase follows the user's kind, else the popularity of the moment::

        trend       the popularity of the moment
        similar     the items of the user's cluster, alike
        sequence    the items that follow the previous one, alike; the popularity where all of them are bought
        tags        the items with one of the user's two tags, those with both four times as often

    Neighbourhoods and factors fit the second kind best, a base of what follows what the third, a content base the
    fourth. For the first kind popularity is as good as neighbourhoods, which find the popular items too.

    Args:
        seed: the same seed gives the same tables, byte for byte.
        num_users: users, at least 8. num_items: items, at least 150; each has the feature ``tags`` (``"t03|t11"``).

    Raises:
        InputError: an argument out of its range.
    """
    for name, value, least in (("num_users", num_users, 2 * len(KINDS)), ("num_items", num_items, 150)):
        if value < least:
            raise InputError(f"{name} must be >= {least} but got {value}")
    rng = np.random.default_rng([seed, 0])
    items = _Items(num_items, rng)
    kinds = np.resize(np.arange(len(KINDS)), num_users)
    rng.shuffle(kinds)
    users = np.array([f"u{number:04d}" for number in range(num_users)], dtype=object)
    names = np.array([f"i{number:03d}" for number in range(num_items)], dtype=object)
    purchases = [_purchases(KINDS[kind], items, rng) for kind in kinds]
    bought, times = (np.concatenate(arrays) for arrays in zip(*purchases, strict=True))
    events = pd.DataFrame(
        {
            "user": np.repeat(users, [len(of_user) for of_user, _ in purchases]),
            "item": names[bought],
            "weight": 1.0 + rng.poisson(0.3, len(bought)),
            "timestamp": times,
        }
    )
    tags = ["|".join(f"t{tag:02d}" for tag in np.flatnonzero(row)) for row in items.tags]
    features = pd.DataFrame({"item": names, "tags": tags})
    domain = Domain("shop", events, items=features, feedback="implicit")
    return SimulatedShop({"shop": domain}, {user: KINDS[kind] for user, kind in zip(users, kinds, strict=True)})


class _Items:
    """[I] appeal, day and cluster; [I, 24] tags as booleans; [I, 2] followers."""

    def __init__(self, count: int, rng: np.random.Generator) -> None:
        self.appeal = 1.0 / (rng.permutation(count) + 2.0)
        self.day = rng.uniform(-_BEFORE, _DAYS, count)
        self.cluster = rng.permutation(np.arange(count) % NUM_CLUSTERS)
        order = rng.random((count, NUM_TAGS)).argsort(axis=1).argsort(axis=1)
        self.tags = order < rng.integers(1, 4, size=(count, 1))
        # Each item follows two others, so that no follower is popular.
        self.followers = np.stack([rng.permutation(count) for _ in range(NUM_FOLLOWERS)], axis=1)

    def popularity(self, day: float) -> np.ndarray:
        age = day - self.day
        return np.where(age >= 0, self.appeal * (1 + TREND * 0.5 ** (np.maximum(age, 0) / HALF_LIFE)), 0.0)


def _purchases(kind: str, items: _Items, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """The items that one user buys, and the seconds, in order."""
    count = int(rng.integers(FEWEST, MOST + 1))
    days = _DAYS * rng.random() + np.cumsum(rng.exponential(0.5, count))
    liked = items.tags[:, rng.choice(NUM_TAGS, 2, replace=False)].sum(axis=1)
    fixed = {
        "similar": (items.cluster == rng.integers(NUM_CLUSTERS)).astype(np.float64),
        "tags": np.array([0.0, 1.0, 4.0])[liked],
    }
    left = np.ones(len(items.appeal))
    bought: list[int] = []
    for day in days:
        weights = np.zeros(len(left))
        if rng.random() < OWN:
            if kind in fixed:
                weights = fixed[kind] * left
            elif kind == "sequence" and bought:
                weights[items.followers[bought[-1]]] = 1.0
                weights *= left
        if not weights.any():
            weights = items.popularity(day) * left
        cumulated = weights.cumsum()
        chosen = int(np.searchsorted(cumulated, rng.random() * cumulated[-1], side="right"))
        bought.append(chosen)
        left[chosen] = 0.0
    return np.array(bought), (_FIRST + _SECONDS * days).astype(np.int64)
