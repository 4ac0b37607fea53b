"""Corrects the source model by prototypes of users."""

from __future__ import annotations

from typing import Any

import numpy as np

from metarec.episodes import Episodes
from metarec.fusion.stackers import query_rows
from metarec.transfer.sources import DomainStep, SourceModel, Sources, TransferredModel, corrections, mean_deviations
from metarec.transfer.strategies._base import TransferStrategy
from metarec.transfer.strategies.parts.user_prototypes import UserPrototypes

__all__ = ["PrototypeBased", "PrototypeMixture"]

MOST_PROTOTYPES = 8
"""Errors of 1 to 12 were within .1 % of each other on simulated domains."""

USERS_EACH = 20
"""The least train users for each prototype."""

PRIOR_USERS = 10.0
"""The weight of the sources' frequencies of prototypes, in users of the target."""


class PrototypeBased(TransferStrategy):
    """Corrects the source model for each user by a mixture of user prototypes.

    The sources' train users are clustered by their features and support ratings. Each prototype has coefficients that
    correct the source model by the deviations of bases and models from their mean. A user's correction is weighted by
    the user's memberships in the prototypes, whose frequencies in the target are estimated from its few users. Then
    the step to the domain is taken (:class:`~metarec.transfer.sources.DomainStep`).
    """

    name = "prototype_based"

    def _fit(self, sources: Sources, target: Episodes) -> TransferredModel:
        model = sources.model(self.settings, self.seed)
        train = Episodes.joined([source.train for source in sources.values()])
        # The models fit their own train users too closely: with coefficients fitted on these, errors were 1 % larger.
        others = Episodes.joined([source.validation for source in sources.values()])
        count = min(MOST_PROTOTYPES, max(2, len(train) // USERS_EACH), len(train))
        return PrototypeMixture(model, UserPrototypes(train, count, self.seed), others, target)


class PrototypeMixture(TransferredModel):
    """A source model with a correction for each user by a mixture of prototypes.

    The coefficients of all prototypes are fitted together by ridge regression, with the penalty of a domain step, on
    the residuals of the models' mean, with users weighted by their memberships.

    Args:
        model: the source model. prototypes: K of them. users: of the sources, but not train users of the model.
        few: the target's few users.

    Attributes:
        coefficients: [K, A + M + 1] of each prototype, for the deviations of A bases and M models from the models'
            mean, and for the level.
        priors: [K] the frequencies of prototypes in the target.
    """

    def __init__(self, model: SourceModel, prototypes: UserPrototypes, users: Episodes, few: Episodes) -> None:
        self._model = model
        self._prototypes = prototypes
        columns, mean = mean_deviations(users, model.members(users))
        weights = prototypes.memberships(users)[query_rows(users).task]
        design = (weights[:, :, None] * columns[:, None, :]).reshape(len(columns), -1)
        self.coefficients: np.ndarray = corrections(users, design, mean).reshape(weights.shape[1], columns.shape[1])
        self.priors = prototypes.priors(few, PRIOR_USERS)
        self._step = DomainStep(few, self.members(few))

    def members(self, episodes: Episodes) -> np.ndarray:
        """[T, N, M] predictions of the query rows by each model, corrected by the user's prototypes."""
        members = self._model.members(episodes)
        weights = self._prototypes.memberships(episodes, self.priors)[query_rows(episodes).task]
        corrections = (mean_deviations(episodes, members)[0] * (weights @ self.coefficients)).sum(1)
        corrected = members.copy()
        corrected[episodes.batch.query.mask.numpy()] += corrections[:, None]
        return corrected

    def predict(self, episodes: Episodes) -> np.ndarray:
        return self._step.predict(episodes, self.members(episodes))

    def reasons(self) -> dict[str, Any]:
        return {
            "prototypes": len(self.priors),
            "shares_in_sources": self._prototypes.shares.tolist(),
            "shares_in_target": self.priors.tolist(),
        }
