"""What is said of the few users by those models that have not seen them, and how far off it is."""

from __future__ import annotations

import numpy as np

from metarec.episodes import Episodes
from metarec.transfer.sources._domain_step import DomainStep
from metarec.transfer.sources._few import deal_places

__all__ = ["squared_errors", "stepped_out_of_fold"]


def stepped_out_of_fold(few: Episodes, members: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """[U, N] predictions for a few users, each by a step to the domain that was taken with the others of them.

    Args:
        few: U users. members: [U, N, M] what models that do not know them predict. folds: how many parts, at the most.
    """
    predictions = np.full(members.shape[:2], 0.5)
    for others, part in deal_places(len(few), folds, seed):
        step = DomainStep(few.select(others), members[others.numpy()])
        predictions[part.numpy()] = step.predict(few.select(part), members[part.numpy()])
    return predictions


def squared_errors(episodes: Episodes, predictions: np.ndarray) -> np.ndarray:
    """[U] squared errors on the unit scale, summed over each user's query rows."""
    query = episodes.batch.query
    errors = np.where(query.mask.numpy(), predictions - query.targets.numpy(), 0.0)
    sums: np.ndarray = np.square(errors).sum(1)
    return sums
