"""metarec: learns how to combine recommenders.

The package is imported lazily: ``import metarec`` loads nothing heavy, each subpackage loads what it needs.
``docs/architecture.md`` describes the folders.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from typing import Any

    import pandas as pd

    from metarec.model import FusedRecommender, RankingRecommender
    from metarec.study.results import StudyResult

__all__ = ["__version__", "fit", "load"]

__version__ = "0.1.0"


def fit(
    data: pd.DataFrame | str | Path | Mapping[str, pd.DataFrame | str | Path],
    *,
    target: str | None = None,
    task: str | None = None,
    trials: int = 20,
    timeout: float | None = None,
    seed: int = 0,
    out: str | Path = "mlruns",
    **spec: Any,
) -> StudyResult:
    """Run a study: search, choose on validation users, and score the result once on test users.

    It is the study of ``python -m metarec.study`` with the spec ``cold-start``, or ``ranking`` for lists, and records
    the same in the folder `out`. Progress goes to the terminal's error stream, or into the notebook. Ctrl-C once
    finishes the running trial and stops.

    Args:
        data: a table of feedback, as a DataFrame or as a path of :func:`metarec.ratings.read_domain`; or name -> table
            of each domain. A domain without a name is called ``data``. Columns are found by their usual names, such as
            ``user_id``, and in other cases by ``columns={"user": "who"}``.
        target: the domain of the search; a single one is the target.
        task: ``"rating"`` or ``"ranking"``; by default the first if every row of the target has a rating, and else the
            second.
        trials: the total number of trials.
        timeout: seconds after which no new trial begins.
        seed: of all random draws.
        out: the folder for MLflow's store and the files of the study. The environment variables METAREC_TRACKING_URI
            and METAREC_STORAGE name other stores, as for the command.
        **spec: any other key of a spec, as ``metarec keys`` lists them, for example ``episodes={"shots": 5}`` or
            ``workers=2``. Of a part such as ``episodes``, only the given keys are replaced.

    Raises:
        InputError: the data or an argument is wrong.
        StudyFailed: no trial is complete.
        KeyboardInterrupt: a stop was requested.
    """
    from metarec.cli.running import fit as run

    return run(data, target=target, task=task, trials=trials, timeout=timeout, seed=seed, out=out, **spec)


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
