"""The first of two levels of adaptation: from what sources teach to one target domain, by its few users."""

from __future__ import annotations

import numpy as np

from metarec.episodes import Episodes
from metarec.fusion.stackers import query_rows, true_ratings

__all__ = ["LEVEL", "STRENGTH", "DomainStep"]

STRENGTH = 5.0
"""Of the penalty: how much a squared coefficient costs, in units of a squared error on the common scale. Ratings
differ from the mean of the models by about a twentieth of it, so that this is worth about 2,000 rows. Chosen on
validation users of seven sets: 1,000 to 5,000 rows are within .1 % of each other for 5, 20 and 100 known users."""

LEVEL = 0.1
"""The column that stands for the domain's level: its coefficient is as free as that of a base that deviates by this."""


class DomainStep:
    """Ridge regression of what the mean of several models leaves over, on how bases and models deviate from that mean.

    With no user it changes nothing; with many it becomes a stacking of bases and models. In between its penalty says
    how much the sources' word is worth: it is the posterior mean when domains differ from what sources teach by normal
    coefficients (Lindley and Smith 1972), and the only thing that is learned of the domain.

    Args:
        few: the known users. members: [T, N, M] what the models predict of their query rows.
    """

    def __init__(self, few: Episodes, members: np.ndarray) -> None:
        columns, mean = _columns(few, members)
        left_over = true_ratings(few.batch.query) - mean
        penalty = STRENGTH * np.eye(columns.shape[1])
        self.coefficients = np.linalg.solve(columns.T @ columns + penalty, columns.T @ left_over)

    def predict(self, episodes: Episodes, members: np.ndarray) -> np.ndarray:
        """[T, N] predictions of the query rows, in [0, 1]; 0.5 in padding.

        Args:
            members: [T, N, M] what the models predict.
        """
        columns, mean = _columns(episodes, members)
        mask = episodes.batch.query.mask.numpy()
        predictions = np.full(mask.shape, 0.5)
        predictions[mask] = np.clip(mean + columns @ self.coefficients, 0.0, 1.0)
        return predictions


def _columns(episodes: Episodes, members: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """[R, A + M + 2] how bases and models deviate from the models' mean, the level, the slope; [R] that mean."""
    own = members[episodes.batch.query.mask.numpy()]
    mean = own.mean(1)
    bases = query_rows(episodes).predictions
    said = np.concatenate([bases, own], axis=1) - mean[:, None]
    return np.column_stack([said, np.full(len(mean), LEVEL), mean - 0.5]), mean
