"""Linear stacking with weights that depend on features."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from metarec.fusion._combiner import Rows
from metarec.fusion._linear import Design, predictions_only
from metarec.fusion.stackers.ridge import RidgeStacker

__all__ = ["FeatureWeightedStacker"]


def by_context(rows: Rows) -> np.ndarray:
    """[R, A + C + A * C] products of predictions and context, both with a constant beside them.

    Predictions are taken around the middle of the scale: the columns span the same, and a penalty on a product then
    is not one on the context feature alone.
    """
    centred = rows.predictions - 0.5
    products = centred[:, :, None] * rows.context[:, None, :]
    return np.concatenate([rows.predictions, rows.context, products.reshape(len(centred), -1)], axis=1)


def by_context_and_own(rows: Rows) -> np.ndarray:
    """As `by_context`, with each base's own features, and their products with its deviation from the mean."""
    deviations = rows.predictions - rows.mean[:, None]
    own = rows.algorithm_features
    products = deviations[:, :, None] * own
    flat = (len(own), -1)
    return np.concatenate([by_context(rows), own.reshape(flat), products.reshape(flat)], axis=1)


class FeatureWeightedStacker(RidgeStacker):
    """Feature-weighted linear stacking: each base's weight is a linear function of meta-features.

    Ridge regression on the products of every base's prediction with every meta-feature. The meta-features are chosen
    on validation users: only the constant; the context; the context and, for each base, its own features (with its
    errors on the user's support, so that the weights depend on the user).
    J. Sill, G. Takács, L. Mackey, D. Lin, "Feature-Weighted Linear Stacking", arXiv:0911.0460, 2009.

    >>> FeatureWeightedStacker().name
    'fwls'
    """

    name = "fwls"
    setting = "meta_features"
    designs: ClassVar[Mapping[str, Design]] = {
        "constant": predictions_only,
        "context": by_context,
        "context and own": by_context_and_own,
    }
