"""From lists to the features of a fusion network. Pure functions on padded arrays.

Shapes: T users, N candidates, S support rows, A bases. A row's features never depend on whether it is relevant.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np
import pandas as pd

from metarec.bases.ranking import RankingBase
from metarec.episodes._features import Features
from metarec.episodes._predictions import padded
from metarec.episodes._standards import Moments
from metarec.episodes.ranking._evidence import UserEvidence, user_evidence
from metarec.episodes.ranking._lists import UserList
from metarec.episodes.ranking._tasks import UserHistory
from metarec.episodes.ranking.settings import RankingSettings
from metarec.ratings import Domain

__all__ = [
    "RANKING_CONTEXT_NAMES",
    "RANKING_FEATURE_NAMES",
    "REPEAT_CONTEXT_NAMES",
    "Catalogue",
    "RankingStandards",
    "UserPriors",
    "context_names",
    "make_tables",
    "query_side",
    "support_side",
]

RANKING_FEATURE_NAMES = ("score", "discount", "proposed", "percentile", "support_percentile", "support_discount")
RANKING_CONTEXT_NAMES = (
    "shots",
    "support_popularity",
    "support_popularity_spread",
    "item_count",
    "item_popularity",
    "item_age",
    "candidates",
    "disagreement",
    "share_proposing",
    "mean_score",
)

REPEAT_CONTEXT_NAMES = ("in_history", "history_share")
"""Where repeats are included: whether the user has the item, and the share of the user's events that are with it."""

DAY = 86_400.0


@dataclass(frozen=True)
class Catalogue:
    """The items that the bases were fitted on, and what is known of each.

    Attributes:
        index: ids in the order of their codes.
        facts: [I, 3] the logarithm of one plus the number of events, the share of items with fewer events (ties counted
            half), and the logarithm of one plus the days between the item's first event and the latest event of all; 0
            where there are no timestamps.
    """

    index: pd.Index
    facts: np.ndarray

    @classmethod
    def of(cls, domain: Domain) -> Self:
        """From the events that the bases are fitted on."""
        codes = domain.item_index.get_indexer(domain.ratings["item"])
        counts = np.bincount(codes, minlength=len(domain.item_index))
        order = np.sort(counts)
        below = (np.searchsorted(order, counts) + np.searchsorted(order, counts, side="right") - 1) / 2
        ages = np.zeros(len(counts))
        if domain.has_timestamps:
            times = domain.ratings["timestamp"].to_numpy(dtype=np.float64)
            first = np.full(len(counts), np.inf)
            np.minimum.at(first, codes, times)
            ages = np.log1p((times.max() - first) / DAY)
        return cls(domain.item_index, np.stack([np.log1p(counts), below / max(len(counts) - 1, 1), ages], axis=1))

    def known(self, history: UserHistory) -> UserHistory:
        """The history with codes in place of ids, without the items that are not in the catalogue."""
        codes = self.index.get_indexer(history.items)
        inside = codes >= 0
        return UserHistory(codes[inside], history.weights[inside], history.counts[inside])


def context_names(settings: RankingSettings) -> tuple[str, ...]:
    """The names of the C context features."""
    return (*RANKING_CONTEXT_NAMES, *(REPEAT_CONTEXT_NAMES if settings.repeats == "include" else ()))


def make_tables(
    bases: Mapping[str, RankingBase],
    catalogue: Catalogue,
    histories: Sequence[UserHistory],
    settings: RankingSettings,
    *,
    seed: int,
    left_out: int | None = None,
) -> dict[str, np.ndarray]:
    """The lists of T users from fitted bases as padded arrays, see :func:`tables`.

    Args:
        histories: with item ids, for each user. seed: of the drawn candidates. left_out: see :func:`user_evidence`.

    Returns:
        the arrays; with included repeats also, for each side, "-repeats" [T, n], how many events of the history that
        makes the list are with the candidate.
    """
    known = [catalogue.known(history) for history in histories]
    evidence = list(user_evidence(bases, known, len(catalogue.index), settings, seed=seed, left_out=left_out))
    arrays = tables(evidence, catalogue, settings.candidates)
    if settings.repeats == "include":
        for side in ("query", "support"):
            arrays[f"{side}-repeats"] = np.zeros(arrays[f"{side}-items"].shape, dtype=np.int32)
        for row, history in enumerate(known):
            # All items of the history are candidates, in the order of their codes. In a list without a support item,
            # no item of the history is a candidate.
            codes = evidence[row].candidates.items
            arrays["query-repeats"][row, np.searchsorted(codes, history.items)] = history.counts
    return arrays


def tables(users: Sequence[UserEvidence], catalogue: Catalogue, most: int) -> dict[str, np.ndarray]:
    """The lists of T users as padded arrays.

    Args:
        most: the rank of an item that a base does not propose.

    Returns:
        for each side, "query" and "support": "-items" [T, n] codes, -1 in padding, "-scores", "-ranks" and
        "-percentiles" [T, n, A], and "-facts" [T, n, 3]; "support-targets" [T, S], 1 for a support item; "evidence"
        [T, A, 3], the number of support items with scores, and the sums of their percentiles and discounts; "history"
        [T, 3], the number of support items, and the mean and the deviation of their popularity.
    """
    query = [user.candidates for user in users]
    support, targets, evidence, history = [], [], [], []
    bases = query[0].scores.shape[1]
    for user in users:
        support.append(_joined([one.rows for one in user.left_out], bases))
        marks = [np.arange(len(one.rows.items)) == 0 for one in user.left_out]
        targets.append(np.concatenate([np.zeros(0), *marks]))
        ranks = np.stack([one.ranks for one in user.left_out]) if user.left_out else np.full((0, bases), np.nan)
        shares = np.stack([one.percentiles for one in user.left_out]) if user.left_out else ranks
        discounts = np.where(ranks < most, discount(ranks, most), np.where(np.isnan(ranks), np.nan, 0.0))
        evidence.append(
            np.stack([np.isfinite(ranks).sum(0), np.nansum(shares, axis=0), np.nansum(discounts, axis=0)], axis=1)
        )
        popularity = catalogue.facts[[one.rows.items[0] for one in user.left_out], 1]
        history.append(
            np.array([len(popularity), popularity.mean(), popularity.std()]) if len(popularity) else np.zeros(3)
        )
    return {
        **_side_tables("query", query, catalogue),
        **_side_tables("support", support, catalogue),
        "support-targets": padded(targets, max(1, max(map(len, targets))), 0.0),
        "evidence": np.stack(evidence),
        "history": np.stack(history),
    }


class UserPriors(NamedTuple):
    """A base's evidence on a user before any support item, [A] each; from train users only.

    Attributes:
        percentile: mean share of the catalogue below a support item. discount: mean discount of its rank.
    """

    percentile: np.ndarray
    discount: np.ndarray

    @classmethod
    def of(cls, evidence: np.ndarray) -> Self:
        """From the evidence [T, A, 3] of train users."""
        counts, shares, discounts = evidence.sum(0).T
        known = np.maximum(counts, 1)
        return cls(np.where(counts > 0, shares / known, 0.5), np.where(counts > 0, discounts / known, 0.0))


@dataclass(frozen=True)
class RankingStandards:
    """The standardisation of features, learned from the candidates of train users.

    Attributes:
        priors: of a user's evidence. algorithm: moments [A, F]; context: moments [C].
        damping: the weight of the priors in support items.
    """

    priors: UserPriors
    algorithm: Moments
    context: Moments
    damping: float


def query_side(arrays: Mapping[str, np.ndarray], priors: UserPriors, *, damping: float) -> Features:
    """The features of the candidates, with the user's evidence for each base, shrunk to the priors."""
    counts, shares, discounts = np.moveaxis(arrays["evidence"], -1, 0)
    total = counts + damping
    return _features(
        arrays,
        "query",
        (shares + damping * priors.percentile) / total,
        (discounts + damping * priors.discount) / total,
        np.log1p(arrays["history"][:, 0]),
    )


def support_side(arrays: Mapping[str, np.ndarray], priors: UserPriors) -> Features:
    """The features of the support rows, with the priors in place of the user's evidence.

    The evidence of the other support items comes from histories that hold this one, and so would tell that it is one.
    """
    users = len(arrays["evidence"])
    shape = (users, len(priors.percentile))
    return _features(
        arrays,
        "support",
        np.broadcast_to(priors.percentile, shape),
        np.broadcast_to(priors.discount, shape),
        np.zeros(users),
    )


def discount(ranks: np.ndarray, most: int) -> np.ndarray:
    """The discount of a rank in nDCG, 1 / log2(rank + 2) from rank 0; 0 from rank `most` on."""
    return np.where(ranks < most, 1 / np.log2(np.maximum(ranks, 0).astype(np.float32) + 2), np.float32(0))


def _features(
    arrays: Mapping[str, np.ndarray], side: str, shares: np.ndarray, discounts: np.ndarray, shots: np.ndarray
) -> Features:
    """Args: shares, discounts: [T, A] the user's evidence. shots: [T]."""
    # float32, because there are hundreds of millions of numbers.
    shares, discounts, shots = (values.astype(np.float32) for values in (shares, discounts, shots))
    scores, ranks = arrays[f"{side}-scores"], arrays[f"{side}-ranks"]
    facts, history = arrays[f"{side}-facts"], arrays["history"].astype(np.float32)
    mask = arrays[f"{side}-items"] >= 0
    available = np.isfinite(scores)
    counts = available.sum(-1)
    filled = np.where(available, scores, np.float32(0.5))
    mean = np.where(counts > 0, (filled * available).sum(-1) / np.maximum(counts, 1), 0.5)
    spread = np.sqrt((np.where(available, scores - mean[..., None], 0.0) ** 2).sum(-1) / np.maximum(counts, 1))
    most = int(arrays["most"])
    proposed = (ranks < most) & mask[..., None]
    algorithm = [
        filled,
        discount(ranks, most),
        proposed.astype(np.float32),
        arrays[f"{side}-percentiles"],
        shares[:, None, :],
        discounts[:, None, :],
    ]
    known = shots > 0
    context = [
        shots[:, None],
        np.where(known, history[:, 1], 0.5)[:, None],
        np.where(known, history[:, 2], 0.0)[:, None],
        facts[..., 0],
        facts[..., 1],
        facts[..., 2],
        np.log1p(mask.sum(1))[:, None],
        spread,
        proposed.mean(-1),
        mean,
    ]
    if f"{side}-repeats" in arrays:
        events = arrays[f"{side}-repeats"]
        context += [events > 0, events / np.maximum(events.sum(1, keepdims=True), 1)]
    predictions = np.where((counts == 0)[..., None], 0.5, scores)
    return Features(
        predictions,
        np.stack(np.broadcast_arrays(*algorithm), axis=-1),
        np.stack(np.broadcast_arrays(*context), axis=-1),
        mean,
    )


def _joined(parts: Sequence[UserList], bases: int) -> UserList:
    if not parts:
        nothing = np.zeros((0, bases))
        return UserList(np.zeros(0, dtype=np.int64), nothing, nothing.astype(np.int64), nothing)
    return UserList(*(np.concatenate(side) for side in zip(*parts, strict=True)))


def _side_tables(side: str, lists: Sequence[UserList], catalogue: Catalogue) -> dict[str, np.ndarray]:
    width, bases = max(1, max(len(one.items) for one in lists)), lists[0].scores.shape[1]
    items = np.full((len(lists), width), -1, dtype=np.int32)
    found: dict[str, np.ndarray] = {
        "scores": np.full((len(lists), width, bases), np.nan, dtype=np.float32),
        "ranks": np.full((len(lists), width, bases), np.iinfo(np.int16).max, dtype=np.int16),
        "percentiles": np.full((len(lists), width, bases), 0.5, dtype=np.float32),
    }
    facts = np.zeros((len(lists), width, catalogue.facts.shape[1]), dtype=np.float32)
    for row, one in enumerate(lists):
        length = len(one.items)
        items[row, :length] = one.items
        facts[row, :length] = catalogue.facts[one.items]
        for name, table in found.items():
            table[row, :length] = getattr(one, name)
    return {
        f"{side}-items": items,
        **{f"{side}-{name}": table for name, table in found.items()},
        f"{side}-facts": facts,
    }
