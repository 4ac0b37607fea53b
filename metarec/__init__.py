"""metarec: learns how to combine recommenders.

The package is imported lazily: ``import metarec`` loads nothing heavy, each subpackage loads what it needs.
``docs/architecture.md`` describes the folders.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from metarec.model import FusedRecommender, RankingRecommender

__all__ = ["__version__", "load"]

__version__ = "0.1.0"


def load(path_or_mlflow_uri: str, *, tracking_uri: str | None = None) -> FusedRecommender | RankingRecommender:
    """Load the recommender that a study has registered.

    No file is unpickled, and every file is compared with its digest.

    Args:
        path_or_mlflow_uri: a folder with the model, or ``models:/metarec-STUDY@champion``.
        tracking_uri: of MLflow's store. By default what MLflow is set to, or else ``mlruns/mlflow.db``.

    Raises:
        InputError: there is no such model, or a file differs from its digest.
    """
    from metarec.model.mlflow_model import load_from

    return load_from(str(path_or_mlflow_uri), tracking_uri=tracking_uri)
