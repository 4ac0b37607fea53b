"""Whether the events of a domain leave something to rank."""

from __future__ import annotations

from metarec.episodes.settings import EpisodeSettings
from metarec.errors import InputError
from metarec.ratings import Domain

__all__ = ["check_choice"]


def check_choice(domain: Domain, settings: EpisodeSettings) -> None:
    """Check that there is an order of items that is better than another.

    A user who has every item of the catalogue has no candidate that is not relevant, and so every list is right.

    Raises:
        InputError: a catalogue of one item, or each user with enough events for an episode has every item.
    """
    if domain.num_items < 2:
        raise InputError(f'domain "{domain.name}": a ranking needs at least two items but has {domain.num_items}')
    counts = domain.ratings["user"].value_counts()
    enough = counts[counts >= settings.needed_ratings]
    if len(enough) and (enough == domain.num_items).all():
        raise InputError(
            f'domain "{domain.name}": a ranking needs items that some users do not have, but each of the '
            f"{len(enough)} users with an episode has all {domain.num_items} items; give the events of more items"
        )
