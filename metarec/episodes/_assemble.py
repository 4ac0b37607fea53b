"""From predictions and facts in padded arrays to the episodes of each role."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
import torch

from metarec.episodes._batch import EpisodeBatch, FusionInputs
from metarec.episodes._episodes import Episodes
from metarec.episodes._features import (
    CONTEXT_NAMES,
    FEATURE_NAMES,
    Features,
    ItemFacts,
    Priors,
    Rows,
    make_features,
)
from metarec.episodes._split import ROLES, Cut, Role
from metarec.episodes._standards import Moments, Standards, unit_rows
from metarec.episodes.settings import EpisodeSettings
from metarec.ratings import Domain, RatingScale

__all__ = ["Answered", "DomainEpisodes"]


@dataclass(frozen=True)
class DomainEpisodes:
    """One domain's episodes by the role of their users.

    `standards` is what their features were measured against, and so must be a new user's; None where the episodes were
    not made from ratings.
    """

    train: Episodes
    validation: Episodes
    test: Episodes
    standards: Standards | None = field(default=None, kw_only=True)

    @classmethod
    def joined(cls, several: Sequence[DomainEpisodes]) -> DomainEpisodes:
        """The episodes of several views of one domain together, role by role; their standards pooled."""
        roles = (Episodes.joined([getattr(one, role) for one in several]) for role in ROLES)
        standards = [one.standards for one in several if one.standards is not None]
        return cls(*roles, standards=Standards.pooled(standards) if len(standards) == len(several) else None)


@dataclass(frozen=True)
class Answered:
    """T tasks of one domain, and what bases and item facts say of them, before anything is standardised.

    Attributes:
        domain: what the tasks were cut from.
        settings: how they were cut.
        base_names: the A bases, in the order of the arrays' axis.
        roles: user -> role, of every user with a task.
        cuts: the tasks; draws above 0 of train users only.
        arrays: in the order of `cuts`; "support" [T, K, A] and "query" [T, N, A] predictions in the domain's units,
            "support_evidence" and "query_evidence" of the same shapes, "support_facts" [T, K, 5] and "query_facts"
            [T, N, 5] (see :class:`ItemFacts`), and, where users are linked to other domains, "background" [T, 1]: the
            offset on the domain's unit scale that is expected of each user.
        scale: what becomes the unit scale of the episodes, where it is not the domain's own.
    """

    domain: Domain
    settings: EpisodeSettings
    base_names: tuple[str, ...]
    roles: Mapping[str, Role]
    cuts: Sequence[Cut]
    arrays: Mapping[str, np.ndarray]
    scale: RatingScale | None = None

    def where(self, wanted: Callable[[str, Role], bool]) -> Answered:
        """The tasks of those users whom `wanted` accepts by id and role."""
        kept = [row for row, cut in enumerate(self.cuts) if wanted(cut.task.user, self.roles[cut.task.user])]
        cuts = [self.cuts[row] for row in kept]
        return replace(self, cuts=cuts, arrays={name: values[kept] for name, values in self.arrays.items()})

    def episodes(self, standards: Standards | None = None) -> DomainEpisodes:
        """Features and tensors.

        Args:
            standards: what features are measured against; by default learned from the train users' query rows.
        """
        scale, mask = self._unit, self._masks()
        role = self._role()
        users = np.array([cut.task.user for cut in self.cuts], dtype=object)
        support_items, support_ratings = _padded(
            [cut.task.support_items for cut in self.cuts],
            [scale.to_unit(cut.task.support_ratings) for cut in self.cuts],
            mask.support.shape[1],
        )
        query_items, query_ratings = _padded(
            [cut.task.query_items for cut in self.cuts], [cut.ratings for cut in self.cuts], mask.query.shape[1]
        )
        targets = scale.to_unit(query_ratings)
        support, query = self._rows("support", mask.support), self._rows("query", mask.query)
        train_rows = mask.query & (role == "train")[:, None]
        damping = self.settings.damping
        priors = _priors(query, targets, train_rows) if standards is None else standards.priors
        background = self._background()
        sides = make_features(support, support_ratings, query, priors, damping=damping, background=background)
        if standards is None:
            known = sides[1]
            moments = Moments.of(known.algorithm[train_rows]), Moments.of(known.context[train_rows])
            standards = Standards(priors, *moments, damping)

        def episodes(wanted: Role) -> Episodes:
            chosen = np.flatnonzero(role == wanted)

            def inputs(side: Features, ratings: np.ndarray, mask: np.ndarray) -> FusionInputs:
                return standards.inputs(Features(*(values[chosen] for values in side)), ratings[chosen], mask[chosen])

            return Episodes(
                domain=self.domain.name,
                scale=scale,
                base_names=self.base_names,
                feature_names=FEATURE_NAMES,
                context_names=CONTEXT_NAMES,
                batch=EpisodeBatch(
                    inputs(sides[0], support_ratings, mask.support),
                    inputs(sides[1], targets, mask.query),
                ),
                users=users[chosen],
                support_items=support_items[chosen],
                query_items=query_items[chosen],
                query_fallback=torch.from_numpy(sides[1].fallback[chosen]).float(),
                query_ratings=query_ratings[chosen],
            )

        return DomainEpisodes(*(episodes(wanted) for wanted in ROLES), standards=standards)

    def _role(self) -> np.ndarray:
        return np.array([self.roles[cut.task.user] for cut in self.cuts], dtype=object)

    def _masks(self) -> _Masks:
        shots = self.settings.shots
        lengths = np.array([len(cut.task.query_items) for cut in self.cuts], dtype=int)
        support = np.broadcast_to(np.arange(max(shots, 1)) < shots, (len(lengths), max(shots, 1)))
        return _Masks(support, np.arange(lengths.max(initial=1)) < lengths[:, None])

    def _rows(self, side: str, mask: np.ndarray) -> Rows:
        predictions, evidence, facts = (
            self.arrays[f"{side}{what}"][:, : mask.shape[1]] for what in ("", "_evidence", "_facts")
        )
        if self.scale is not None:
            facts = _rescaled(facts, self.domain.scale, self.scale)
        return unit_rows(predictions, evidence, facts, mask, self._unit)

    def _background(self) -> np.ndarray | None:
        if "background" not in self.arrays:
            return None
        return np.asarray(self.arrays["background"] * self.domain.scale.span / self._unit.span)

    @property
    def _unit(self) -> RatingScale:
        return self.domain.scale if self.scale is None else self.scale


def _rescaled(facts: np.ndarray, of: RatingScale, to: RatingScale) -> np.ndarray:
    """Item facts in the units of another scale; an item's number of ratings and its age have none of these units."""
    found = ItemFacts.of(facts)
    ratio = of.span / to.span
    mean = to.to_unit(of.to_ratings(found.mean))
    return np.stack([mean, found.offset * ratio, found.num_ratings, found.spread * ratio, found.age], axis=-1)


class _Masks(NamedTuple):
    """[T, K] and [T, N]: which rows are real."""

    support: np.ndarray
    query: np.ndarray


def _priors(query: Rows, targets: np.ndarray, train_rows: np.ndarray) -> Priors:
    """What train users' query rows say of users in general."""
    errors = np.abs(query.predictions - targets[..., None])[train_rows]
    said = np.isfinite(errors)
    # A base that never says anything on train users gets the error of a coin toss; its features are constant anyway.
    absolute_error = np.where(said.any(0), np.nansum(errors, 0) / np.maximum(said.sum(0), 1), 0.5)
    by_user = [targets[row][train_rows[row]] for row in np.flatnonzero(train_rows.any(1))]
    return Priors(absolute_error, float(np.mean([ratings.var() for ratings in by_user])))


def _padded(items: Sequence[np.ndarray], ratings: Sequence[np.ndarray], width: int) -> tuple[np.ndarray, np.ndarray]:
    padded_items = np.full((len(items), width), "", dtype=object)
    padded_ratings = np.zeros((len(items), width))
    for row, (own_items, own_ratings) in enumerate(zip(items, ratings, strict=True)):
        padded_items[row, : len(own_items)] = own_items
        padded_ratings[row, : len(own_ratings)] = own_ratings
    return padded_items, padded_ratings
