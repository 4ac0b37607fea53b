"""The lists of users from fitted bases: one list for the whole history, and one for each item that is left out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from metarec.bases.ranking import Histories, RankingBase
from metarec.episodes.ranking._lists import UserList, make_list, top_items
from metarec.episodes.ranking._tasks import UserHistory
from metarec.episodes.ranking.settings import RankingSettings

__all__ = ["LeftOut", "UserEvidence", "user_evidence"]

BUDGET = 40_000_000
"""Scores in memory at once: bases times histories times items."""


class LeftOut(NamedTuple):
    """A support item, scored from the user's other items.

    Attributes:
        rows: the item, and then the candidates that were drawn beside it, from the list that the other items make.
        ranks: [A] the number of items of the catalogue with a higher score, ties counted half; NaN for a base without
            scores. percentiles: [A] the share of the catalogue with a lower score, ties counted half.
    """

    rows: UserList
    ranks: np.ndarray
    percentiles: np.ndarray


class UserEvidence(NamedTuple):
    """A user's candidates from the whole history, and each item of the history that the bases know, left out."""

    candidates: UserList
    left_out: list[LeftOut]


def user_evidence(
    bases: Mapping[str, RankingBase],
    histories: Sequence[UserHistory],
    num_items: int,
    settings: RankingSettings,
    *,
    seed: int,
    left_out: int | None = None,
) -> Iterator[UserEvidence]:
    """The lists of each user, in order.

    Args:
        histories: with item codes, for each user; items unknown to the bases are left out already.
        num_items: of the catalogue. settings: with included repeats, the items of a history are candidates, but not in
            the list of the other items. left_out: only so many of the latest items of a history are left out in turn;
            by default all. seed: of the drawn candidates; a user's draw depends on the history only.
    """
    first = 0
    while first < len(histories):
        last, size = first, 0
        while last < len(histories) and (last == first or size < BUDGET):
            size += len(bases) * num_items * (1 + len(_places(histories[last], left_out)))
            last += 1
        yield from _block(bases, histories[first:last], settings, seed, left_out)
        first = last


def _block(
    bases: Mapping[str, RankingBase],
    histories: Sequence[UserHistory],
    settings: RankingSettings,
    seed: int,
    most: int | None,
) -> Iterator[UserEvidence]:
    rows: list[UserHistory] = []
    excluded: list[np.ndarray] = []
    included = settings.repeats == "include"
    for history in histories:
        others = [history.without(place) for place in _places(history, most)]
        rows += [history, *others]
        excluded += [history.items[: 0 if included else None], *(other.items for other in others)]
    given = Histories(
        np.array([len(row.items) for row in rows]),
        np.concatenate([row.items for row in rows]).astype(np.int64),
        np.concatenate([row.weights for row in rows]).astype(np.float32),
    )
    scores = np.stack([_checked(name, base.score(given), len(rows)) for name, base in bases.items()])
    found = [top_items(own, excluded, settings.candidates) for own in scores]
    tops, proposed = (np.stack(side) for side in zip(*found, strict=True))
    row = 0
    for history in histories:
        items = history.items
        more = items if included else None
        whole = make_list(scores[:, row], tops[:, row], proposed[:, row], settings.candidates, more=more)
        left_out = []
        rng = np.random.default_rng([seed, 3, *np.sort(items).tolist()])
        for at, place in enumerate(_places(history, most), start=row + 1):
            own = make_list(
                scores[:, at], tops[:, at], proposed[:, at], settings.candidates, more=items[place : place + 1]
            )
            left_out.append(_left_out(own, int(items[place]), scores[:, at], np.delete(items, place), settings, rng))
        yield UserEvidence(whole, left_out)
        row += 1 + len(left_out)


def _places(history: UserHistory, most: int | None) -> range:
    """The places of the items that are left out in turn, the latest ones."""
    count = len(history.items)
    return range(0 if most is None else max(0, count - most), count)


def _left_out(
    own: UserList,
    item: int,
    scores: np.ndarray,
    others: np.ndarray,
    settings: RankingSettings,
    rng: np.random.Generator,
) -> LeftOut:
    place = int(np.searchsorted(own.items, item))
    rest = np.delete(np.arange(len(own.items)), place)
    drawn = np.concatenate([[place], np.sort(rng.permutation(rest)[: settings.negatives])])
    mine = scores[:, item : item + 1]
    # The rest of the history is not in the catalogue of this list.
    higher, equal = (
        # A count of each row is many times faster than one along an axis.
        np.array([np.count_nonzero(row) for row in compare(scores, mine)])
        - np.count_nonzero(compare(scores[:, others], mine), axis=1)
        for compare in (np.greater, np.equal)
    )
    ranks = np.where(np.isnan(mine[:, 0]), np.nan, higher + (equal - 1) / 2)
    rows = UserList(*(values[drawn] for values in own))
    return LeftOut(rows, ranks, 1 - ranks / max(scores.shape[1] - len(others) - 1, 1))


def _checked(name: str, scores: np.ndarray, rows: int) -> np.ndarray:
    if scores.ndim != 2 or len(scores) != rows:
        raise ValueError(f"the ranking base {name} must score {rows} histories but returned {list(scores.shape)}")
    if not np.isnan(scores[~np.isfinite(scores).all(1)]).all():
        raise ValueError(f"the ranking base {name} must give finite scores, or NaN for the whole catalogue")
    return scores
