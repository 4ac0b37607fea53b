"""Users who rated in other domains, too: what they said there, told in the units of this one.

A rating elsewhere is told as what everyone says of that item plus a share of what this user says beyond it, in standard
deviations around the domain's mean. The share is how much of a user's leniency comes along from one domain to the
other: the whole of it would be believed too far, because who is strict about films is not as strict about books.
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
"""How many standard deviations wide a common scale is."""

PRIOR_SHARE, PRIOR_WEIGHT = 0.3, 10.0
"""The share before shared users have spoken, and what it is worth: about ten users with ten ratings in both domains.
Between the three largest categories of Ciao, without the users of the benchmark's folds, shares were 0.2 to 0.5."""

WITHIN = ("content", "item-knn", "user-knn", "autoencoder")
"""Bases that stay within the domain. `content` knows no features of other domains' items. Neighbours that were found by
a few ratings elsewhere speak unshrunk: on Ciao's three largest categories, told of two domains, `user-knn` was 6 to 9 %
worse and `item-knn` 0.1 to 1.9 %, where `bias` was 0.2 to 0.3 % better and `biased-mf` 0.1 to 0.7 %. The autoencoder's
fit takes ten times as long on the domains together."""

MOST_TRUSTED = 40
"""Ratings of one user beyond these add nothing: what is left is what differs between domains."""


class _Residuals(NamedTuple):
    """What each user of a domain says beyond what everyone does, in standard deviations: [U] sums and counts."""

    users: pd.Index
    sums: np.ndarray
    counts: np.ndarray

    @classmethod
    def of(cls, users: pd.Series, residuals: np.ndarray) -> Self:
        codes, names = pd.factorize(users)
        return cls(pd.Index(names), np.bincount(codes, weights=residuals), np.bincount(codes))


def carried_share(own: _Residuals, other: _Residuals, damping: float) -> float:
    """How much of what a user says beyond others in another domain is found again in this one, in [0, 1].

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
        """What was rated before the first of the cut's queries; what is as old as that is not known yet."""
        if self.times is None or cut.query_times is None:
            return self
        known = self.times < cut.query_times.min()
        return _History(self.codes[known], self.ratings[known], None)


class _Other:
    """Another domain, and what the users of this one rated there."""

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


class _Telling(NamedTuple):
    """How ratings of another domain are told.

    Attributes:
        names: [I] what its items are called here; offsets: [I] what everyone says of them, in standard deviations.
        scale: its common scale. share: of a user's residual that is carried over.
    """

    names: np.ndarray
    offsets: np.ndarray
    scale: RatingScale
    share: float

    def carried(self, codes: np.ndarray, ratings: np.ndarray) -> np.ndarray:
        """[n] what the ratings say of the user, in standard deviations of this domain."""
        residuals = SPREADS * (self.scale.to_unit(ratings) - 0.5) - self.offsets[codes]
        return np.asarray(self.share * residuals)


class Links:
    """A domain, and others in which some of its users rated, too.

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
        """What predictions (of one base) depend on besides the domain itself, for the key of a cache."""
        if not self.are_on or base in WITHIN:
            return {}
        return {"links": {name: other.domain.fingerprint() for name, other in self.others.items()}}

    def joined(self, known: Domain, held_out: Collection[str], damping: float) -> Joined:
        """What bases are fitted on.

        Args:
            known: the domain's ratings that they may see.
            held_out: the users of whom they may see nothing, in any domain.
            damping: how many ratings the prior is worth in shrunk means.
        """
        if not self.others:
            return Joined(self, known, known, known.scale, {}, damping)
        own = common_scale(known)
        residuals = _residuals(known, known.item_index, own, damping)[0]
        tables, tellings = [known.ratings], {}
        for name, other in self.others.items():
            seen = other.domain.without(held_out)
            if not len(seen.ratings):
                continue
            scale = common_scale(seen)
            said, offsets = _residuals(seen, other.items, scale, damping)
            telling = _Telling(other.names, offsets, scale, carried_share(residuals, said, damping))
            codes = other.items.get_indexer(seen.ratings["item"])
            carried = telling.carried(codes, seen.ratings["rating"].to_numpy())
            told = _told(offsets[codes] + carried, own, known.scale)
            tables.append(seen.ratings.assign(item=other.names[codes], rating=told))
            tellings[name] = telling
        # Times are there only where every domain has them.
        ratings = pd.concat(tables, join="inner", ignore_index=True)
        table = Domain(known.name, ratings, known.scale, known.items, known.users)
        return Joined(self, known, table, own, tellings, damping)


@dataclass(frozen=True)
class Joined:
    """What one fit of the bases sees, and what it is told of users whom it has not seen. Made by :meth:`Links.joined`.

    Attributes:
        known: the domain's own ratings.
        table: with those of the other domains, whose items have the domain's name in front.
    """

    _links: Links
    known: Domain
    table: Domain
    _own: RatingScale
    _tellings: Mapping[str, _Telling]
    _damping: float

    def fit_on(self, base: str) -> Domain:
        """The ratings that this base is fitted on."""
        return self.known if base in WITHIN else self.table

    def tasks(self, base: str, cuts: Sequence[Cut]) -> list[Task]:
        """What this base is asked: the tasks of the cuts, with what their users rated elsewhere as their background."""
        if not self._tellings or base in WITHIN:
            return [cut.task for cut in cuts]
        return [self._with_background(cut) for cut in cuts]

    def facts(self, cuts: Sequence[Cut]) -> dict[str, np.ndarray]:
        """``background`` [T, 1]: the shrunk mean residual of what was rated elsewhere, on the domain's unit scale.

        Nothing at all where users are not linked.
        """
        if not self._links.are_on:
            return {}
        table = np.zeros((len(cuts), 1))
        for row, cut in enumerate(cuts):
            carried = np.concatenate([[], *(telling.carried(*own) for telling, *own in self._before(cut))])
            offset = carried.sum() / (len(carried) + self._damping)
            table[row] = offset / SPREADS * self._own.span / self._links.domain.scale.span
        return {"background": table}

    def _before(self, cut: Cut) -> list[tuple[_Telling, np.ndarray, np.ndarray]]:
        found = []
        for name, telling in self._tellings.items():
            history = self._links.others[name].histories.get(cut.task.user)
            if history is not None:
                known = history.before(cut)
                found.append((telling, known.codes, known.ratings))
        return found

    def _with_background(self, cut: Cut) -> Task:
        items: list[np.ndarray] = [cut.task.background_items]
        ratings: list[np.ndarray] = [cut.task.background_ratings]
        for telling, codes, given in self._before(cut):
            items.append(telling.names[codes])
            level = telling.offsets[codes] + telling.carried(codes, given)
            ratings.append(_told(level, self._own, self._links.domain.scale))
        return cut.task._replace(background_items=np.concatenate(items), background_ratings=np.concatenate(ratings))


def _residuals(known: Domain, items: pd.Index, scale: RatingScale, damping: float) -> tuple[_Residuals, np.ndarray]:
    """Of each user, and [I] of each item what everyone says of it, in standard deviations."""
    codes = items.get_indexer(known.ratings["item"])
    values = SPREADS * (scale.to_unit(known.ratings["rating"].to_numpy()) - 0.5)
    offsets = item_offsets(codes, values, len(items), damping=damping).offsets
    return _Residuals.of(known.ratings["user"], values - offsets[codes]), offsets


def _told(level: np.ndarray, own: RatingScale, scale: RatingScale) -> np.ndarray:
    """Standard deviations around the mean -> ratings of this domain; bases take nothing beyond its scale."""
    return np.clip(own.to_ratings(0.5 + level / SPREADS), scale.low, scale.high)
