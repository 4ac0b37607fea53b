"""From padded episodes to flat rows, and the correction that every stacker may apply. R rows, A bases."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch

from metarec.episodes import Episodes, FusionInputs

__all__ = ["SHRINKAGES", "Rows", "known_targets", "query_rows", "shrunk_corrections", "support_rows"]

SHRINKAGES = (math.inf, 200.0, 100.0, 50.0, 20.0, 10.0, 5.0, 3.0, 2.0, 1.0, 0.0)
"""How many ratings "no correction" is worth, from no correction at all to the plain mean of the residuals."""


class Rows(NamedTuple):
    """The unmasked rows of one side of some episodes, float64 and on the unit scale.

    The rows' true ratings are deliberately not in it: what predicts from these cannot look at them.

    Attributes:
        predictions: [R, A] of the bases; where a base cannot say, what stands for it.
        mean: [R] of the bases that could say something.
        algorithm_features: [R, A, F] and context: [R, C], as in :class:`metarec.episodes.FusionInputs`.
        task: [R] the position of the row's episode.
    """

    predictions: np.ndarray
    mean: np.ndarray
    algorithm_features: np.ndarray
    context: np.ndarray
    task: np.ndarray


def query_rows(episodes: Episodes) -> Rows:
    """The query rows; a base that cannot say predicts the row's fallback."""
    return _rows(episodes.batch.query, _flat(episodes.query_fallback, episodes.batch.query.mask))


def support_rows(episodes: Episodes) -> Rows:
    """The support rows; episodes hold no fallback for these, so the mean of the others stands for a silent base."""
    return _rows(episodes.batch.support, None)


def known_targets(inputs: FusionInputs) -> np.ndarray:
    """[R] true ratings of the unmasked rows. To learn from and to choose by, never to predict from."""
    return _flat(inputs.targets, inputs.mask)


def shrunk_corrections(residuals: np.ndarray, task: np.ndarray, num_tasks: int, shrinkage: float) -> np.ndarray:
    """[T, S] what to add to each episode's predictions: ``sum(residuals) / (k + shrinkage)`` over its k support rows.

    The posterior mean of a user's offset, when offsets and residuals are normal and `shrinkage` is the ratio of the
    residuals' variance to the offsets'.

    Args:
        residuals: [R, S] targets of the support rows minus S stackers' leave-one-out predictions of them.
        task: [R] the episode of each row. num_tasks: T.
        shrinkage: from 0 to infinity. An episode without support is never corrected.
    """
    count = np.bincount(task, minlength=num_tasks)
    sums = np.zeros((num_tasks, residuals.shape[1]))
    np.add.at(sums, task, residuals)
    return sums / np.where(count > 0, count + shrinkage, 1.0)[:, None]


def _rows(inputs: FusionInputs, fallback: np.ndarray | None) -> Rows:
    predictions = _flat(inputs.predictions, inputs.mask)
    says = np.isfinite(predictions)
    saying = says.sum(1)
    mean = np.where(says, predictions, 0.0).sum(1) / np.maximum(saying, 1)
    mean = np.where(saying > 0, mean, 0.5 if fallback is None else fallback)
    return Rows(
        predictions=np.where(says, predictions, (mean if fallback is None else fallback)[:, None]),
        mean=mean,
        algorithm_features=_flat(inputs.algorithm_features, inputs.mask),
        context=_flat(inputs.context, inputs.mask),
        task=np.nonzero(inputs.mask.cpu().numpy())[0],
    )


def _flat(values: torch.Tensor, mask: torch.Tensor) -> np.ndarray:
    return values.detach()[mask].cpu().numpy().astype(np.float64)
