"""Logistic regression of relevance."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression

from metarec.bases import Learned
from metarec.fusion._combiner import Family
from metarec.fusion._linear import LinearCombination, Standardiser, everything
from metarec.fusion.rankers._base import ByRow, Judged, Ranker, drawn, relevance

__all__ = ["LogisticRanker"]

STRENGTHS = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
"""Penalties per train row; scikit-learn's C is 1 / (penalty x rows)."""

MOST_ROWS = 100_000


class LogisticRanker(Ranker):
    """Logistic regression on the bases' scores, all their features and the context of the train users' candidates.

    The penalty is chosen on validation users. A draw of the candidates that are not relevant changes the intercept
    alone, which moves no candidate.

    >>> LogisticRanker().name
    'logistic'
    """

    name = "logistic"

    def _families(self, train: Judged, validation: Judged, seed: int) -> Iterator[Family]:
        mask = drawn(train, MOST_ROWS, seed)
        columns = everything(train.lists.rows(mask)).astype(np.float64)
        standardise, labels = Standardiser.of(columns), relevance(train, mask)
        standard = standardise(columns)
        strongest_first = sorted(STRENGTHS, reverse=True)
        if labels.all():
            # Without a candidate that is not relevant there is no class to tell from.
            coefficients = np.zeros((len(strongest_first), standard.shape[1]))
        else:
            model = LogisticRegression(warm_start=True, max_iter=300, tol=1e-4)
            coefficients = np.concatenate(
                [
                    model.set_params(C=1 / (strength * len(labels))).fit(standard, labels).coef_.copy()
                    for strength in strongest_first
                ]
            )
        nothing = np.zeros(len(strongest_first))
        combine = LinearCombination(everything, standardise, coefficients, nothing, nothing)
        yield Family([{"penalty": strength} for strength in strongest_first], ByRow(combine))

    def _learned(self, combine: Any, column: int) -> dict[str, Learned]:
        own: LinearCombination = combine.of_rows
        return own.learned(column)

    def _combination(self, state: Mapping[str, Learned], settings: Mapping[str, Any]) -> ByRow:
        return ByRow(LinearCombination.of(everything, state))
