"""Sources that should teach nothing: a rating set turned against whoever learns from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from metarec.ratings import Domain

__all__ = ["HOSTILE", "hostile_domain", "largest_other"]

HOSTILE = ("inverted", "shuffled")
"""Ratings turned over, so that what was liked is disliked; and the same with the users shuffled."""


def hostile_domain(domain: Domain, kind: str, seed: int = 0) -> Domain:
    """The domain under the name ``NAME-KIND``, with its ratings inverted (low + high - rating).

    Where users are shuffled, too, each item's ratings, with their timestamps, are dealt out anew among those who rated
    it: nobody rates an item twice, users and items keep their numbers of ratings, and a user's ratings say nothing
    about the user's other ratings.
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
