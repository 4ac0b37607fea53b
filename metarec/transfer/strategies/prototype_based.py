"""Kinds of users carry what is to be changed in a combination, and a new user is a mixture of kinds."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from metarec.episodes import Episodes
from metarec.fusion.stackers import query_rows, true_ratings
from metarec.transfer.sources import LEVEL, STRENGTH, DomainStep, SourceModel, Sources, TransferredModel
from metarec.transfer.strategies._base import TransferStrategy
from metarec.transfer.strategies._user_prototypes import UserPrototypes

__all__ = ["PrototypeBased", "PrototypeMixture"]

MOST = 8
"""Prototypes, at the most; errors of 1 to 12 were within .1 % of each other on simulated domains."""

USERS_EACH = 20
"""Train users for each prototype, at the least."""

WORTH = 10.0
"""How many users of the target the sources' frequencies of prototypes are worth."""


class PrototypeBased(TransferStrategy):
    """Kinds of users carry what is to be changed in a combination, and a new user is a mixture of kinds.

    The sources' train users are clustered by what is known of them before the query's ratings are. Each prototype has
    coefficients of its own, which change what the sources teach where bases and models deviate from it. A user's
    prediction is changed by the mixture of prototypes that the user is; in the target, prototypes are as frequent as
    its few users say. Then the step to the domain is taken with all of them
    (:class:`~metarec.transfer.sources._domain_step.DomainStep`).
    """

    name: ClassVar[str] = "prototype_based"
    needs_sources: ClassVar[bool] = True

    def _fit(self, sources: Sources, target: Episodes) -> TransferredModel:
        model = sources.model(self.settings, self.seed)
        train = Episodes.joined([source.train for source in sources.values()])
        # What models say of users whom they learned from is closer to the truth than what they say of others; with
        # coefficients fitted on train users errors were 1 % larger.
        others = Episodes.joined([source.validation for source in sources.values()])
        count = min(MOST, max(2, len(train) // USERS_EACH), len(train))
        return PrototypeMixture(model, UserPrototypes(train, count, self.seed), others, target)


class PrototypeMixture(TransferredModel):
    """What sources model, changed for each user by a mixture of prototypes.

    The coefficients of all prototypes are fitted together by ridge regression, with the penalty of a step to a domain,
    on what the models' mean leaves over of the ratings of users weighted by their memberships; with no user they are
    zero, and change nothing.

    Args:
        model: the models. prototypes: K of them. users: of the sources, whom the models did not learn from.
        few: the target's.

    Attributes:
        coefficients: [K, A + M + 1] of each prototype, of how each of A bases and M models deviates from the models'
            mean, and of its level.
        priors: [K] how frequent prototypes are in the target.
    """

    def __init__(self, model: SourceModel, prototypes: UserPrototypes, users: Episodes, few: Episodes) -> None:
        self._model = model
        self._prototypes = prototypes
        members = model.members(users)
        columns = _deviations(users, members)
        weights = prototypes.memberships(users)[query_rows(users).task]
        design = (weights[:, :, None] * columns[:, None, :]).reshape(len(columns), -1)
        left_over = true_ratings(users.batch.query) - _rows(users, members).mean(1)
        penalty = STRENGTH * np.eye(design.shape[1])
        solved = np.linalg.solve(design.T @ design + penalty, design.T @ left_over)
        self.coefficients: np.ndarray = solved.reshape(weights.shape[1], columns.shape[1])
        self.priors = prototypes.priors(few, WORTH)
        self._step = DomainStep(few, self.members(few))

    def members(self, episodes: Episodes) -> np.ndarray:
        """[T, N, M] predictions of the query rows by each model, changed by the user's prototypes."""
        members = self._model.members(episodes)
        weights = self._prototypes.memberships(episodes, self.priors)[query_rows(episodes).task]
        changes = (_deviations(episodes, members) * (weights @ self.coefficients)).sum(1)
        changed = members.copy()
        changed[episodes.batch.query.mask.numpy()] += changes[:, None]
        return changed

    def predict(self, episodes: Episodes) -> np.ndarray:
        return self._step.predict(episodes, self.members(episodes))

    def reasons(self) -> dict[str, Any]:
        return {
            "prototypes": len(self.priors),
            "shares_in_sources": self._prototypes.shares.tolist(),
            "shares_in_target": self.priors.tolist(),
        }


def _rows(episodes: Episodes, members: np.ndarray) -> np.ndarray:
    """[R, M] of the query rows that count."""
    own: np.ndarray = members[episodes.batch.query.mask.numpy()]
    return own


def _deviations(episodes: Episodes, members: np.ndarray) -> np.ndarray:
    """[R, A + M + 1] how bases and models deviate from the models' mean, and the level."""
    own = _rows(episodes, members)
    said = np.concatenate([query_rows(episodes).predictions, own], axis=1) - own.mean(1, keepdims=True)
    return np.column_stack([said, np.full(len(own), LEVEL)])
