"""The fused recommender as an MLflow model. MLflow loads it through this module, without pickles."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

import metarec
from metarec.episodes import History
from metarec.errors import InputError, check_address
from metarec.model.files import load_model
from metarec.model.recommender import NO_HISTORY, FusedRecommender

if TYPE_CHECKING:
    from mlflow.models import ModelSignature

__all__ = ["DIGEST", "ServedModel", "load_from", "signature", "write_mlflow_model"]

DIGEST = "metarec.digest"
"""The key of the digest, in the metadata of the MLflow model and in a tag of its registered version."""

_DATA = "metarec"

_LIBRARIES = ("mlflow", "numpy", "pandas", "pyarrow", "scipy", "torch", "lenskit", "scikit-learn", "lightgbm")


def write_mlflow_model(folder: Path, recommender: FusedRecommender, save: Callable[[Path], str]) -> str:
    """Write an MLflow model (a pyfunc with signature, example and pinned requirements), and return its digest.

    Args:
        folder: must not exist yet.
        save: writes the recommender itself to an empty folder and returns its digest, as
            :func:`metarec.model.save_model` does.
    """
    import mlflow.pyfunc

    data = folder.parent / _DATA
    digest = save(data)
    mlflow.pyfunc.save_model(
        str(folder),
        loader_module=__name__,
        data_path=str(data),
        signature=signature(),
        input_example=_example(recommender),
        pip_requirements=[f"metarec=={metarec.__version__}", *(f"{name}=={version(name)}" for name in _LIBRARIES)],
        metadata={DIGEST: digest},
    )
    return digest


def load_from(uri: str, *, tracking_uri: str | None = None) -> FusedRecommender:
    """The recommender in a folder, a run or the registry.

    Args:
        uri: a folder that holds the model, or ``models:/NAME@ALIAS``, ``models:/NAME/VERSION``, ``runs:/ID/model``.
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
    if tracking_uri is None and not mlflow.is_tracking_uri_set() and local.exists():
        tracking_uri = f"sqlite:///{local.absolute()}"
    try:
        source, digest = _registered(uri, tracking_uri) if uri.startswith("models:/") else (uri, None)
        folder = Path(mlflow.artifacts.download_artifacts(source, tracking_uri=tracking_uri))
    except (MlflowException, OSError) as error:
        raise InputError(f"{uri}: cannot be loaded: {' '.join(str(error).split())}") from None
    return load_model(_data_of(folder), digest or _noted_digest(folder))


def _data_of(folder: Path) -> Path:
    inner = folder / "data" / _DATA
    return inner if inner.is_dir() else folder


def _noted_digest(folder: Path) -> str | None:
    """The digest in the metadata of the MLflow model; None for a folder without that file."""
    import yaml

    if not (folder / "MLmodel").is_file():
        return None
    try:
        noted = yaml.safe_load((folder / "MLmodel").read_text(encoding="utf-8"))["metadata"][DIGEST]
    except (yaml.YAMLError, KeyError, TypeError, ValueError):
        raise InputError(f"{folder / 'MLmodel'}: it does not name the model's digest; it is not loaded") from None
    return str(noted)


def _registered(uri: str, tracking_uri: str | None) -> tuple[str, str | None]:
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
    return client.get_model_version_download_uri(found.name, found.version), found.tags.get(DIGEST)


def signature() -> ModelSignature:
    """The input and output columns of a served model."""
    from mlflow.models import ModelSignature
    from mlflow.types.schema import Array, ColSpec, DataType, Object, Property, Schema

    rated = Object(
        [
            Property("item", DataType.string),
            Property("rating", DataType.double),
            Property("timestamp", DataType.double, required=False),
        ]
    )
    return ModelSignature(
        inputs=Schema(
            [
                ColSpec(DataType.string, "item"),
                ColSpec(DataType.string, "user", required=False),
                ColSpec(Array(rated), "history", required=False),
            ]
        ),
        outputs=Schema([ColSpec(DataType.double, "prediction")]),
    )


def _example(recommender: FusedRecommender) -> pd.DataFrame:
    items = recommender.items[:2].tolist()
    return pd.DataFrame({"item": items, "user": [str(recommender.users[0])] * len(items)})


def _load_pyfunc(path: str) -> ServedModel:
    """Load a model from the path of its data; MLflow requires this name."""
    folder = Path(path)
    whole = folder.parent.parent if folder.name == _DATA else folder
    return ServedModel(load_model(folder, _noted_digest(whole)))


class ServedModel:
    """The model that MLflow serves. Each row has an item, and optionally a user or a history."""

    def __init__(self, recommender: FusedRecommender) -> None:
        self._recommender = recommender

    def predict(self, model_input: pd.DataFrame, params: Mapping[str, Any] | None = None) -> pd.DataFrame:
        """A prediction for each row.

        Args:
            model_input: ``item`` in every row; ``user``, one of the model's; or ``history``, a list of ``item`` and
                ``rating`` (and ``timestamp``), which replaces the user's. Rows with neither have an empty history.

        Returns:
            The column ``prediction``, in the domain's own units.

        Raises:
            MlflowException: a row breaks a rule; a server answers it with 400 and the rule.
        """
        try:
            return pd.DataFrame({"prediction": self._predict(model_input)})
        except InputError as error:
            from mlflow.exceptions import MlflowException
            from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE

            raise MlflowException(str(error), error_code=INVALID_PARAMETER_VALUE) from None

    def _predict(self, rows: pd.DataFrame) -> np.ndarray:
        if not len(rows):
            raise InputError("there must be at least one row with an item, but there is none")
        items = rows["item"].to_numpy(dtype=object)
        rated = pd.Index(self._recommender.items)
        codes = rated.get_indexer(items)
        if (codes < 0).any():
            row = int((codes < 0).argmax())
            raise InputError(f'row {row}: unknown item "{items[row]}"; the model knows {len(rated):,} items')
        users = rows["user"].tolist() if "user" in rows.columns else [None] * len(rows)
        histories = rows["history"].tolist() if "history" in rows.columns else [None] * len(rows)
        groups: dict[str, tuple[History, list[int]]] = {}
        for row, (user, history) in enumerate(zip(users, histories, strict=True)):
            # The text of a list is complete; numpy abbreviates a long array.
            key = f"history {list(history)!r}" if _given(history) else f"user {user}" if _given(user) else ""
            if key not in groups:
                groups[key] = (self._history(row, user, history), [])
            groups[key][1].append(row)
        predicted = np.empty(len(rows))
        given, places = zip(*groups.values(), strict=True)
        answers = self._recommender.predict(given, [items[own] for own in places])
        for own, values in zip(places, answers, strict=True):
            predicted[own] = values
        return predicted

    def _history(self, row: int, user: Any, history: Any) -> History:
        try:
            if _given(history):
                table = pd.DataFrame(list(history), columns=["item", "rating", "timestamp"])
                if table["timestamp"].isna().any():
                    table = table.drop(columns="timestamp")
                given = History.of(table)
                self._recommender.maker.check(given)
                return given
            if _given(user):
                return self._recommender.history_of(user)
        except InputError as error:
            raise InputError(f"row {row}: {error}") from None
        return NO_HISTORY


def _given(value: Any) -> bool:
    """Whether a cell has a value; an empty history is a value."""
    return value is not None and not (isinstance(value, float) and np.isnan(value))
