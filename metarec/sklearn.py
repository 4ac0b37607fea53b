"""An estimator for scikit-learn: see :mod:`metarec.integrations.sklearn`."""

from metarec.integrations.sklearn import FusionRegressor

__all__ = ["FusionRegressor"]
