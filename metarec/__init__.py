"""metarec: learns how to combine recommenders.

The package is imported lazily: ``import metarec`` loads nothing heavy, each subpackage loads what it needs.
See ``docs/architecture.md`` for the house as a whole.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from metarec.model import FusedRecommender

__all__ = ["__version__", "load"]

__version__ = "0.1.0"


def load(path_or_mlflow_uri: str, *, tracking_uri: str | None = None) -> FusedRecommender:
    """The recommender that a study has registered, ready to adapt to users.

    Loading unpickles nothing, and compares every file with its digest.

    Args:
        path_or_mlflow_uri: a folder that holds the model, or ``models:/metarec-STUDY@champion``.
        tracking_uri: of MLflow's store. By default what MLflow is set to, or else ``mlruns/mlflow.db``.

    Raises:
        InputError: there is no such model, or it is not as it was written.
    """
    from metarec.model.mlflow_model import load_from

    return load_from(str(path_or_mlflow_uri), tracking_uri=tracking_uri)
