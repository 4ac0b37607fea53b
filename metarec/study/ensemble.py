"""What a study proposes: its best trials' networks together, leaning on the stackers as far as validation users say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from optuna.trial import FrozenTrial

from metarec.episodes import DomainEpisodes, Episodes
from metarec.fusion.stackers import Stacker
from metarec.meta import MetaLearner
from metarec.study.recorded_trial import error_of

__all__ = ["MEMBERS", "combine", "member_name", "member_trials"]

MEMBERS = 3
"""How many trials' networks. Networks that adapt and networks that do not err differently: on MovieLens' latest-small
the mean of one of each was 0.2 to 0.3 % better than either."""


def member_trials(complete: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """The trials whose networks are proposed: the best, best first."""
    return sorted(complete, key=lambda trial: (error_of(trial), trial.number))[:MEMBERS]


def member_name(trial: FrozenTrial) -> str:
    """What a trial is called among the members."""
    return f"trial {trial.number}"


def combine(
    episodes: DomainEpisodes, learners: Mapping[str, MetaLearner], stackers: Mapping[str, Stacker]
) -> tuple[np.ndarray, dict[str, float]]:
    """The convex combination of networks and stackers that is best on one domain's validation users.

    Args:
        learners: name -> a meta-learned network. stackers: name -> a stacker that was fitted on this domain.

    Returns:
        [T, N] its unit-scale predictions of the test users' query rows, and the weight of each member.
    """
    # It brings scipy's optimizers, which nothing before the end of a search needs.
    from metarec.fusion.blend import convex_weights

    validation = _predictions(episodes.validation, learners, stackers)
    known = episodes.validation.batch.query
    rows = known.mask.numpy()
    weights = convex_weights(
        np.stack([predicted[rows] for predicted in validation.values()], axis=1), known.targets.numpy()[rows]
    )
    test = np.stack(list(_predictions(episodes.test, learners, stackers).values()), axis=-1)
    return test @ weights, dict(zip(validation, weights.tolist(), strict=True))


def _predictions(
    episodes: Episodes, learners: Mapping[str, MetaLearner], stackers: Mapping[str, Stacker]
) -> dict[str, np.ndarray]:
    support, query = episodes.batch
    said = {name: learner.adapt(support).predict(query).numpy() for name, learner in learners.items()}
    return said | {name: stacker.predict(episodes) for name, stacker in stackers.items()}
