"""From predictions and facts in padded arrays to the episodes of each role."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from metarec.episodes._episodes import EpisodeBatch, Episodes, FusionInputs
from metarec.episodes._features import CONTEXT_NAMES, FEATURE_NAMES, Features, ItemFacts, Priors, Rows, make_features
from metarec.episodes._predictions import padded
from metarec.episodes._split import ROLES, Cut, Role
from metarec.episodes._standards import Moments, Standards, unit_rows
from metarec.episodes.settings import EpisodeSettings
from metarec.ratings import Domain, RatingScale

__all__ = ["DomainEpisodes", "PredictedTasks"]


@dataclass(frozen=True)
class DomainEpisodes:
    """One domain's episodes by the role of their users.

    `standards` standardised their features and must standardise those of new users; None where the episodes were not
    made from ratings.
    """

    train: Episodes
    validation: Episodes
    test: Episodes
    standards: Standards | None = field(default=None, kw_only=True)

    @classmethod
    def joined(cls, several: Sequence[DomainEpisodes]) -> DomainEpisodes:
        """The episodes of several views of one domain joined by role, with pooled standards."""
        roles = (Episodes.joined([getattr(one, role) for one in several]) for role in ROLES)
        standards = [one.standards for one in several if one.standards is not None]
        return cls(*roles, standards=Standards.pooled(standards) if len(standards) == len(several) else None)


@dataclass(frozen=True)
class PredictedTasks:
    """T tasks of one domain with base predictions and item facts, before features are made.

    Attributes:
        domain: the domain that the tasks were cut from.
        settings: the settings of the cut.
        base_names: the A bases, in the order of the arrays' axis.
        roles: of the tasks, in the order of `cuts`.
        cuts: the tasks; draws above 0 of train users only.
        arrays: in the order of `cuts`; "support" [T, K, A] and "query" [T, N, A] predictions in the domain's units,
            "support_evidence" and "query_evidence" of the same shapes, "support_facts" [T, K, 5] and "query_facts"
            [T, N, 5] (see :class:`ItemFacts`), and, where users are linked to other domains, "background" [T, 1]: each
            user's expected offset on the domain's unit scale.
        scale: the scale of the episodes, where it is not the domain's own.
    """

    domain: Domain
    settings: EpisodeSettings
    base_names: tuple[str, ...]
    roles: Sequence[Role]
    cuts: Sequence[Cut]
    arrays: Mapping[str, np.ndarray]
    scale: RatingScale | None = None

    def where(self, wanted: Callable[[str, Role], bool]) -> PredictedTasks:
        """The tasks of the users that `wanted` accepts by id and role."""
        pairs = zip(self.cuts, self.roles, strict=True)
        kept = [row for row, (cut, role) in enumerate(pairs) if wanted(cut.task.user, role)]
        cuts, roles = [self.cuts[row] for row in kept], [self.roles[row] for row in kept]
        arrays = {name: values[kept] for name, values in self.arrays.items()}
        return replace(self, cuts=cuts, roles=roles, arrays=arrays)

    def episodes(self, standards: Standards | None = None) -> DomainEpisodes:
        """Features and tensors.

        Args:
            standards: the standardisation of features; by default learned from the train users' query rows.
        """
        scale, (support_mask, query_mask) = self._unit, self._masks()
        role = np.array(self.roles, dtype=object)
        users = np.array([cut.task.user for cut in self.cuts], dtype=object)
        shots, queries = support_mask.shape[1], query_mask.shape[1]
        support_items = padded([cut.task.support_items for cut in self.cuts], shots, "")
        support_ratings = padded([scale.to_unit(cut.task.support_ratings) for cut in self.cuts], shots, 0.0)
        query_items = padded([cut.task.query_items for cut in self.cuts], queries, "")
        query_ratings = padded([cut.ratings for cut in self.cuts], queries, 0.0)
        targets = scale.to_unit(query_ratings)
        support, query = self._rows("support", support_mask), self._rows("query", query_mask)
        train_rows = query_mask & (role == "train")[:, None]
        damping = self.settings.damping
        priors = _priors(query, targets, train_rows) if standards is None else standards.priors
        background = self._background()
        sides = make_features(support, support_ratings, query, priors, damping=damping, background=background)
        if standards is None:
            moments = Moments.of(sides[1].algorithm[train_rows]), Moments.of(sides[1].context[train_rows])
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
                    inputs(sides[0], support_ratings, support_mask), inputs(sides[1], targets, query_mask)
                ),
                users=users[chosen],
                support_items=support_items[chosen],
                query_items=query_items[chosen],
                query_fallback=torch.from_numpy(sides[1].fallback[chosen]).float(),
                query_ratings=query_ratings[chosen],
            )

        return DomainEpisodes(*(episodes(wanted) for wanted in ROLES), standards=standards)

    def _masks(self) -> tuple[np.ndarray, np.ndarray]:
        """[T, K] of the support and [T, N] of the query, true for rows that are not padding."""
        support, query = (
            np.array([len(getattr(cut.task, items)) for cut in self.cuts], dtype=int)
            for items in ("support_items", "query_items")
        )
        shots = np.arange(max(self.settings.shots, 1))
        return shots < support[:, None], np.arange(query.max(initial=1)) < query[:, None]

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
    """Item facts in the units of another scale; the number of ratings and the age do not change."""
    found = ItemFacts.of(facts)
    ratio = of.span / to.span
    mean = to.to_unit(of.to_ratings(found.mean))
    return np.stack([mean, found.offset * ratio, found.num_ratings, found.spread * ratio, found.age], axis=-1)


def _priors(query: Rows, targets: np.ndarray, train_rows: np.ndarray) -> Priors:
    """The priors from the train users' query rows."""
    errors = np.abs(query.predictions - targets[..., None])[train_rows]
    finite = np.isfinite(errors)
    # A base without a prediction for train users gets 0.5, the error of a coin toss; its features are constant anyway.
    absolute_error = np.where(finite.any(0), np.nansum(errors, 0) / np.maximum(finite.sum(0), 1), 0.5)
    by_user = [targets[row][train_rows[row]] for row in np.flatnonzero(train_rows.any(1))]
    return Priors(absolute_error, float(np.mean([ratings.var() for ratings in by_user])))
