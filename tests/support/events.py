"""A domain of events, and a planted world in which a history tells what the user will like."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from metarec.bases.ranking import Histories


@dataclass(frozen=True)
class EventDomain:
    """What a ranking base reads of a domain with implicit feedback."""

    ratings: pd.DataFrame
    items: pd.DataFrame | None = None
    name: str = "events"
    scale: None = None
    feedback: str = "implicit"

    @cached_property
    def item_index(self):
        return pd.Index(np.sort(self.ratings["item"].unique()), dtype=object)

    @property
    def has_timestamps(self):
        return "timestamp" in self.ratings


def events_of_groups(seed, *, num_users=120, num_items=60, num_groups=4, length=12):
    """Users and items belong to groups. Nine of ten events of a user are in the user's group, and follow its order."""
    rng = np.random.default_rng(seed)
    group_of = np.arange(num_items) % num_groups
    rows = []
    for user in range(num_users):
        own = np.flatnonzero(group_of == user % num_groups)
        first = rng.integers(len(own))
        walk = np.roll(own, -first)[: length - 1]
        others = rng.choice(np.flatnonzero(group_of != user % num_groups), length - len(walk), replace=False)
        for place, item in enumerate([*walk, *others]):
            rows.append((f"u{user:03}", f"i{item:03}", float(rng.integers(1, 9)), 86_400 * (place + user)))
    events = pd.DataFrame(rows, columns=["user", "item", "weight", "timestamp"])
    items = pd.DataFrame(
        {
            "item": [f"i{item:03}" for item in range(num_items)],
            "genres": [f"g{group}|all" for group in group_of],
            "year": rng.integers(1990, 2020, num_items),
        }
    )
    return EventDomain(events, items)


def histories_of(domain, events, shots=None):
    """The histories of the users of a table of events, in the order of their ids."""
    ordered = events.sort_values(["user", "timestamp", "item"])
    if shots is not None:
        ordered = ordered.groupby("user").head(shots)
    codes = domain.item_index.get_indexer(ordered["item"])
    ordered, codes = ordered[codes >= 0], codes[codes >= 0]
    lengths = ordered.groupby("user", sort=True).size().reindex(sorted(events["user"].unique()), fill_value=0)
    return Histories(lengths.to_numpy(), codes, ordered["weight"].to_numpy(dtype=np.float32))
