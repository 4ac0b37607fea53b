"""Linked users, who rated in other domains too: their ratings there, converted to the units of this domain.

A rating elsewhere becomes the item's offset plus a share of the user's residual, in standard deviations around the
domain's mean. The share is the part of a user's leniency that carries over from one domain to the other. It is below 1,
because a user who is strict about films is less strict about books.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import numpy as np
import pandas as pd

from metarec.bases import item_offsets
from metarec.episodes._split import Cut, Task
from metarec.ratings import Domain, RatingScale, common_scale

__all__ = ["Joined", "Links", "carried_share"]

SPREADS = 6.0
"""The width of a common scale in standard deviations."""

PRIOR_SHARE, PRIOR_WEIGHT = 0.3, 10.0
"""The prior of the share, and its weight: about ten users with ten ratings in both domains.
Between the three largest categories of Ciao, without the users of the benchmark's folds, shares were 0.2 to 0.5."""

WITHIN = ("content", "item-knn", "user-knn", "autoencoder")
"""Bases that use this domain only. `content` has no features of other domains' items. Neighbours found by a few ratings
elsewhere are not shrunk: on Ciao's three largest categories, linked to two domains, `user-knn` was 6 to 9 % worse and
`item-knn` 0.1 to 1.9 %, where `bias` was 0.2 to 0.3 % better and `biased-mf` 0.1 to 0.7 %. The autoencoder's fit takes
ten times as long on the joined domains."""

MOST_TRUSTED = 40
"""The most ratings of one user that count: beyond them only the difference between domains remains."""


class _Residuals(NamedTuple):
    """The residuals of each user of a domain, in standard deviations: [U] sums and counts."""

    users: pd.Index
    sums: np.ndarray
    counts: np.ndarray

    @classmethod
    def of(cls, users: pd.Series, residuals: np.ndarray) -> Self:
        codes, names = pd.factorize(users)
        return cls(pd.Index(names), np.bincount(codes, weights=residuals), np.bincount(codes))


def carried_share(own: _Residuals, other: _Residuals, damping: float) -> float:
    """The share of a user's residual in another domain that carries over to this one, in [0, 1].

    The slope of a ridge regression through the origin, from the shrunk mean residual of each shared user elsewhere to
    the mean residual here, which pulls it to `PRIOR_SHARE`.
    """
    places = other.users.get_indexer(own.users)
    shared = places >= 0
    there = other.sums[places[shared]] / (other.counts[places[shared]] + damping)
    here = own.sums[shared] / own.counts[shared]
    weights = np.minimum(own.counts[shared], MOST_TRUSTED)
    slope = (weights @ (there * here) + PRIOR_WEIGHT * PRIOR_SHARE) / (weights @ there**2 + PRIOR_WEIGHT)
    return float(np.clip(slope, 0.0, 1.0))


class _History(NamedTuple):
    """One user's ratings in another domain: [n] item codes, ratings in its own units, times (None: not dated)."""

    codes: np.ndarray
    ratings: np.ndarray
    times: np.ndarray | None

    def before(self, cut: Cut) -> _History:
        """The ratings strictly before the first of the cut's queries."""
        if self.times is None or cut.query_times is None:
            return self
        earlier = self.times < cut.query_times.min()
        return _History(self.codes[earlier], self.ratings[earlier], None)


class _Other:
    """Another domain, and the ratings there of the users of this one."""

    def __init__(self, name: str, domain: Domain, users: Collection[str]) -> None:
        self.domain = domain
        self.items = domain.item_index
        self.names = np.array([f"{name}/{item}" for item in self.items], dtype=object)
        ratings = domain.restrict(users).ratings.sort_values(["user", "item"], kind="stable")
        codes, values = self.items.get_indexer(ratings["item"]), ratings["rating"].to_numpy()
        times = ratings["timestamp"].to_numpy() if domain.has_timestamps else None
        found, starts = np.unique(ratings["user"].to_numpy(dtype=str), return_index=True)
        self.histories = {
            str(user): _History(codes[start:end], values[start:end], None if times is None else times[start:end])
            for user, start, end in zip(found, starts, [*starts[1:], len(ratings)], strict=True)
        }


class _Conversion(NamedTuple):
    """The conversion of another domain's ratings.

    Attributes:
        names: [I] the names of its items here; offsets: [I] their offsets, in standard deviations.
        scale: its common scale. share: the share of a user's residual that carries over.
    """

    names: np.ndarray
    offsets: np.ndarray
    scale: RatingScale
    share: float

    def carried(self, codes: np.ndarray, ratings: np.ndarray) -> np.ndarray:
        """[n] the residuals of the ratings that carry over, in standard deviations of this domain."""
        residuals = SPREADS * (self.scale.to_unit(ratings) - 0.5) - self.offsets[codes]
        return np.asarray(self.share * residuals)


class Links:
    """A domain, and other domains that share users with it.

    Args:
        domain: whose tasks are made.
        elsewhere: the others by name; those without a shared user are left out. None: users are not linked at all.
    """

    def __init__(self, domain: Domain, elsewhere: Mapping[str, Domain] | None) -> None:
        self.domain = domain
        self.are_on = elsewhere is not None
        users = set(domain.ratings["user"].unique())
        self.others = {
            name: _Other(name, other, users)
            for name, other in (elsewhere or {}).items()
            if not users.isdisjoint(other.ratings["user"].unique())
        }

    def facts(self, base: str | None = None) -> dict[str, Any]:
        """The data (of one base) besides the domain itself, for the key of a cache."""
        if not self.are_on or base in WITHIN:
            return {}
        return {"links": {name: other.domain.fingerprint() for name, other in self.others.items()}}

    def joined(self, known: Domain, held_out: Collection[str], damping: float) -> Joined:
        """The ratings that bases are fitted on.

        Args:
            known: the domain's ratings that they may use.
            held_out: users whose ratings they may not use, in any domain.
            damping: the weight of the prior in ratings, in shrunk means.
        """
        if not self.others:
            return Joined(self, known, known, known.scale, {}, damping)
        own = common_scale(known)
        residuals = _residuals(known, known.item_index, own, damping)[0]
        tables, conversions = [known.ratings], {}
        for name, other in self.others.items():
            seen = other.domain.without(held_out)
            if not len(seen.ratings):
                continue
            scale = common_scale(seen)
            other_residuals, offsets = _residuals(seen, other.items, scale, damping)
            conversion = _Conversion(other.names, offsets, scale, carried_share(residuals, other_residuals, damping))
            codes = other.items.get_indexer(seen.ratings["item"])
            carried = conversion.carried(codes, seen.ratings["rating"].to_numpy())
            converted = _as_ratings(offsets[codes] + carried, own, known.scale)
            tables.append(seen.ratings.assign(item=other.names[codes], rating=converted))
            conversions[name] = conversion
        # Timestamps are kept only where every domain has them.
        ratings = pd.concat(tables, join="inner", ignore_index=True)
        table = Domain(known.name, ratings, known.scale, known.items, known.users)
        return Joined(self, known, table, own, conversions, damping)


@dataclass(frozen=True)
class Joined:
    """The ratings of one fit of the bases, and the backgrounds of users outside of it. Made by :meth:`Links.joined`.

    Attributes:
        known: the domain's own ratings.
        table: these with the ratings of the other domains, whose items have their domain's name in front.
    """

    _links: Links
    known: Domain
    table: Domain
    _own: RatingScale
    _conversions: Mapping[str, _Conversion]
    _damping: float

    def fit_on(self, base: str) -> Domain:
        """The ratings that this base is fitted on."""
        return self.known if base in WITHIN else self.table

    def tasks(self, base: str, cuts: Sequence[Cut]) -> list[Task]:
        """The tasks of the cuts for this base, with their users' ratings elsewhere as background."""
        if not self._conversions or base in WITHIN:
            return [cut.task for cut in cuts]
        return [self._with_background(cut) for cut in cuts]

    def facts(self, cuts: Sequence[Cut]) -> dict[str, np.ndarray]:
        """``background`` [T, 1]: the shrunk mean residual of the ratings elsewhere, on the domain's unit scale.

        Empty where users are not linked.
        """
        if not self._links.are_on:
            return {}
        table = np.zeros((len(cuts), 1))
        for row, cut in enumerate(cuts):
            carried = np.concatenate([[], *(conversion.carried(*own) for conversion, *own in self._before(cut))])
            offset = carried.sum() / (len(carried) + self._damping)
            table[row] = offset / SPREADS * self._own.span / self._links.domain.scale.span
        return {"background": table}

    def _before(self, cut: Cut) -> list[tuple[_Conversion, np.ndarray, np.ndarray]]:
        found = []
        for name, conversion in self._conversions.items():
            history = self._links.others[name].histories.get(cut.task.user)
            if history is not None:
                earlier = history.before(cut)
                found.append((conversion, earlier.codes, earlier.ratings))
        return found

    def _with_background(self, cut: Cut) -> Task:
        items: list[np.ndarray] = [cut.task.background_items]
        ratings: list[np.ndarray] = [cut.task.background_ratings]
        for conversion, codes, given in self._before(cut):
            items.append(conversion.names[codes])
            level = conversion.offsets[codes] + conversion.carried(codes, given)
            ratings.append(_as_ratings(level, self._own, self._links.domain.scale))
        return cut.task._replace(background_items=np.concatenate(items), background_ratings=np.concatenate(ratings))


def _residuals(domain: Domain, items: pd.Index, scale: RatingScale, damping: float) -> tuple[_Residuals, np.ndarray]:
    """The residuals of each user, and [I] the offset of each item, in standard deviations."""
    codes = items.get_indexer(domain.ratings["item"])
    values = SPREADS * (scale.to_unit(domain.ratings["rating"].to_numpy()) - 0.5)
    offsets = item_offsets(codes, values, len(items), damping=damping).offsets
    return _Residuals.of(domain.ratings["user"], values - offsets[codes]), offsets


def _as_ratings(level: np.ndarray, own: RatingScale, scale: RatingScale) -> np.ndarray:
    """Standard deviations around the mean -> ratings of this domain, clipped to its scale."""
    return np.clip(own.to_ratings(0.5 + level / SPREADS), scale.low, scale.high)
