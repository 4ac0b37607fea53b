"""The sets of the benchmark on ranking, as domains of events."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from metarec.ratings import Domain, read_domain

__all__ = ["RANKING_SETS", "RankingSet"]


@dataclass(frozen=True)
class RankingSet:
    """A set by name.

    Attributes:
        folder: in METAREC_DATA. part: the name of the domain, where the folder holds several.
        chosen_on: whether something of metarec was chosen on this set.
    """

    name: str
    folder: str
    part: str | None = None
    chosen_on: bool = False

    def read(self, data: Path) -> Domain:
        """The events under the set's name; every rated item is an event.

        Raises:
            InputError: they cannot be read.
        """
        place = f"{self.folder}#{self.part}" if self.part else self.folder
        return read_domain(data / place, self.name).as_implicit()


_SETS = (
    RankingSet("amazon_grocery", "amazon_grocery_toys", "grocery", chosen_on=True),
    RankingSet("amazon_toys", "amazon_grocery_toys", "toy"),
    RankingSet("lastfm_hetrec", "lastfm_hetrec", chosen_on=True),
    RankingSet("citeulike_a", "citeulike_a", chosen_on=True),
    RankingSet("foursquare_5k", "foursquare_5k"),
    RankingSet("ta_feng_12k", "ta_feng_12k"),
    RankingSet("amazon_beauty", "amazon_beauty"),
    RankingSet("bookcrossing", "bookcrossing"),
    RankingSet("ml_latest_small", "ml_latest_small"),
    RankingSet("goodbooks_5pct", "goodbooks_5pct"),
)

RANKING_SETS: Mapping[str, RankingSet] = MappingProxyType({one.name: one for one in _SETS})
"""Every set by its name. The defaults of the bases were chosen on validation users of those with `chosen_on`."""
