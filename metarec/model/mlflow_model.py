"""The fused recommender as an MLflow model. MLflow loads it through this module, without pickles."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pandas as pd

import metarec
from metarec.errors import InputError, check_address, shown
from metarec.files import Limit, open_regular
from metarec.model.files import load_model
from metarec.model.ranking_recommender import RankingRecommender
from metarec.model.recommender import FusedRecommender
from metarec.model.requests import requests_of
from metarec.stores import announce_migration, sqlite_path, sqlite_uri

__all__ = ["DIGEST", "ServedModel", "load_from", "write_mlflow_model"]

DIGEST = "metarec.digest"
"""The key of the digest, in the metadata of the MLflow model and in a tag of its registered version."""

_DATA = "metarec"

_ARTIFACTS = "artifacts"
"""The folder of files beside a SQLite store."""

_FILES = {
    *("MLmodel", "conda.yaml", "python_env.yaml", "requirements.txt", "data"),
    *("input_example.json", "serving_input_example.json", "registered_model_meta"),
}
"""What MLflow writes beside the model; none of it is read but MLmodel."""

_MLMODEL = Limit("METAREC_MAX_MLMODEL_BYTES", 1 << 20)

_LIBRARIES = ("mlflow", "numpy", "pandas", "pyarrow", "scipy", "torch", "lenskit", "scikit-learn", "lightgbm")


def write_mlflow_model(
    folder: Path, recommender: FusedRecommender | RankingRecommender, save: Callable[[Path], str]
) -> str:
    """Write an MLflow model (a pyfunc with signature, example and pinned requirements), and return its digest.

    Args:
        folder: must not exist yet.
        save: writes the recommender itself to an empty folder and returns its digest, as
            :func:`metarec.model.save_model` does.
    """
    import mlflow.pyfunc

    data = folder.parent / _DATA
    digest = save(data)
    requests = requests_of(recommender)
    mlflow.pyfunc.save_model(
        str(folder),
        loader_module=__name__,
        data_path=str(data),
        signature=requests.signature(),
        input_example=requests.example(),
        pip_requirements=[f"metarec=={metarec.__version__}", *(f"{name}=={version(name)}" for name in _LIBRARIES)],
        metadata={DIGEST: digest},
    )
    return digest


def load_from(uri: str, *, tracking_uri: str | None = None) -> FusedRecommender | RankingRecommender:
    """The recommender in a folder, a run or the registry.

    Args:
        uri: a folder that holds the model, or ``models:/NAME@ALIAS``, ``models:/NAME/VERSION``, ``runs:/ID/FOLDER``.
        tracking_uri: of MLflow's store. By default what MLflow is set to, or else ``mlruns/mlflow.db``.

    Raises:
        InputError: there is no such model, or a file differs from its digest.
    """
    if "://" not in uri and ":/" not in uri:
        return load_model(_data_of(Path(uri)), _noted_digest(Path(uri)))
    if tracking_uri is not None:
        check_address("tracking URI", tracking_uri)
    import mlflow
    from mlflow.exceptions import MlflowException

    local = Path("mlruns") / "mlflow.db"
    if tracking_uri is None and not mlflow.is_tracking_uri_set():
        tracking_uri = sqlite_uri(local)
    store = tracking_uri or mlflow.get_tracking_uri()
    database = sqlite_path(store)
    # MLflow would make a new store there.
    if database is not None and not database.exists():
        raise InputError(f"{uri}: there is no store {shown(database, 200)}; name the store with tracking_uri")
    try:
        announce_migration(store)
        source, digest = _registered(uri, tracking_uri) if uri.startswith("models:/") else (uri, None)
        source = _beside(source, database)
        folder = Path(mlflow.artifacts.download_artifacts(source, tracking_uri=tracking_uri))
    except (MlflowException, OSError) as error:
        raise InputError(f"{uri}: cannot be loaded: {' '.join(str(error).split())}") from None
    noted = _noted_digest(folder)
    return load_model(_data_of(folder), digest or noted)


def _beside(source: str, database: Path | None) -> str:
    """The address of a model's files: those beside a store that was moved together with them, else the given one."""
    address = urlsplit(source)
    path = Path(unquote(address.path))
    if database is None or address.scheme not in ("", "file") or path.exists() or _ARTIFACTS not in path.parts:
        return source
    own = database.parent.joinpath(*path.parts[path.parts.index(_ARTIFACTS) :])
    return own.resolve().as_uri() if own.exists() else source


def _data_of(folder: Path) -> Path:
    inner = folder / "data" / _DATA
    return inner if inner.is_dir() else folder


def _noted_digest(folder: Path) -> str | None:
    """The digest in the metadata of the MLflow model; None for a folder without that file.

    Raises:
        InputError: the file is damaged, or MLflow's own loaders would run other code for it than metarec's.
    """
    import yaml

    path = folder / "MLmodel"
    if not os.path.lexists(path):
        return None
    beside = sorted({one.name for one in folder.iterdir()} - _FILES)
    beside += sorted(f"data/{one.name}" for one in (folder / "data").glob("*") if one.name != _DATA)
    if beside:
        raise InputError(f"{folder / shown(beside[0])}: not a file of a model of metarec; it is not loaded")
    with open_regular(path) as file:
        content = _MLMODEL.read(file, str(path))
    try:
        noted = yaml.safe_load(content)
        digest, flavor = noted["metadata"][DIGEST], noted["flavors"]["python_function"]
        loader, code = flavor["loader_module"], flavor.get("code")
    except (yaml.YAMLError, LookupError, TypeError, ValueError, AttributeError, RecursionError):
        raise InputError(f"{path}: it does not name the model's digest; it is not loaded") from None
    if not isinstance(digest, str) or len(digest) != 64:
        raise InputError(f"{path}: the model's digest must be a sha256 but is {shown(type(digest).__name__)}")
    if loader != __name__ or code is not None or set(noted["flavors"]) != {"python_function"}:
        raise InputError(f"{path}: it names code that is not metarec's; it is not loaded")
    return digest


def _registered(uri: str, tracking_uri: str | None) -> tuple[str, str]:
    """The address of a registered model's files, and its digest, which is stored apart from them."""
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=tracking_uri, registry_uri=tracking_uri)
    name, at, alias = uri.removeprefix("models:/").rpartition("@")
    if at:
        found = client.get_model_version_by_alias(name, alias)
    else:
        name, _, number = uri.removeprefix("models:/").rpartition("/")
        if not (name and number.isdigit()):
            raise InputError(f"a registered model is models:/NAME@ALIAS or models:/NAME/VERSION but got {uri}")
        found = client.get_model_version(name, number)
    digest = found.tags.get(DIGEST)
    if digest is None:
        raise InputError(f"{uri}: this version has no tag {DIGEST}, so its files cannot be checked; it is not loaded")
    return client.get_model_version_download_uri(found.name, found.version), digest


def _load_pyfunc(path: str) -> ServedModel:
    """Load a model from the path of its data; MLflow requires this name."""
    folder = Path(path)
    whole = folder.parent.parent if folder.name == _DATA else folder
    return ServedModel(load_model(folder, _noted_digest(whole)))


class ServedModel:
    """The model that MLflow serves. Each row asks for a prediction, or in ranking for a list."""

    def __init__(self, recommender: FusedRecommender | RankingRecommender) -> None:
        self._requests = requests_of(recommender)

    def predict(self, model_input: pd.DataFrame, params: Mapping[str, Any] | None = None) -> pd.DataFrame:
        """An answer for each row.

        Args:
            model_input: ``user``, one of the model's; or ``history``, which replaces the user's. Rows with neither have
                an empty history. A model of ratings: ``item`` in every row, and in a history ``item`` and ``rating``
                (and ``timestamp``). A model of lists: ``n`` optionally, and in a history ``item`` (and ``weight`` and
                ``timestamp``).

        Returns:
            A model of ratings: ``prediction``, in the domain's own units. A model of lists: ``items``, the best first,
            and their ``scores``. And ``unknown_in_history``, the number of unknown items in each row's history, where
            there is any.

        Raises:
            MlflowException: a row breaks a rule; a server answers it with 400 and the rule.
        """
        names = self._requests.columns
        columns = [model_input[name] if name in model_input else [None] * len(model_input) for name in names]
        try:
            return self._requests.answer(list(zip(*columns, strict=True)))
        except InputError as error:
            from mlflow.exceptions import MlflowException
            from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE

            raise MlflowException(str(error), error_code=INVALID_PARAMETER_VALUE) from None
