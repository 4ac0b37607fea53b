"""Hostile sources: rating sets with inverted ratings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from metarec.ratings import Domain

__all__ = ["HOSTILE", "hostile_domain", "largest_other"]

HOSTILE = ("inverted", "shuffled")
"""Inverted ratings, and inverted ratings with shuffled users."""


def hostile_domain(domain: Domain, kind: str, seed: int = 0) -> Domain:
    """The domain under the name ``NAME-KIND``, with its ratings inverted (low + high - rating).

    For "shuffled", each item's ratings and timestamps are also permuted among its users: users and items keep their
    numbers of ratings, and a user's ratings are independent of the user's other ratings.
    """
    ratings = domain.ratings.copy()
    ratings["rating"] = domain.scale.low + domain.scale.high - ratings["rating"]
    if kind == "shuffled":
        drawn = np.random.default_rng(seed).random(len(ratings))
        item = ratings["item"].factorize()[0]
        places, others = np.argsort(item, kind="stable"), np.lexsort((drawn, item))
        users = ratings["user"].to_numpy(copy=True)
        users[places] = ratings["user"].to_numpy()[others]
        ratings["user"] = users
    return replace(domain, name=f"{domain.name}-{kind}", ratings=ratings)


def largest_other(domains: Mapping[str, Domain], target: str) -> str:
    """The domain with the most ratings that is not the target; of equals the first in the alphabet."""
    others = sorted(name for name in domains if name != target)
    return max(others, key=lambda name: len(domains[name].ratings))
