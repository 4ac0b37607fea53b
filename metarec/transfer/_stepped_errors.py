"""How far off the step to a domain is on users of the few whom it has not seen."""

from __future__ import annotations

import numpy as np

from metarec.episodes import Episodes
from metarec.fusion.stackers._common import known_targets
from metarec.transfer._domain_step import DomainStep
from metarec.transfer._few import deal_places

__all__ = ["stepped_errors"]


def stepped_errors(few: Episodes, members: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """[U] squared errors on the unit scale, summed over each user's query rows, by cross-validation among the users.

    Args:
        few: U users. members: [U, N, M] what models that do not know them predict. folds: how many parts, at the most.
    """
    errors = np.zeros(len(few))
    for others, part in deal_places(len(few), folds, seed):
        step = DomainStep(few.select(others), members[others.numpy()])
        judged = few.select(part)
        mask = judged.batch.query.mask.numpy()
        missed = step.predict(judged, members[part.numpy()])[mask] - known_targets(judged.batch.query)
        errors[part.numpy()] = np.bincount(np.nonzero(mask)[0], np.square(missed), len(part))
    return errors
