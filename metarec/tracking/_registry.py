"""MLflow's registry of models."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from metarec.stores import sqlite_path
from metarec.tracking._address import shown_uri
from metarec.tracking._limits import DESCRIPTION_LENGTH, clean_key, cut

if TYPE_CHECKING:
    from mlflow import MlflowClient

__all__ = ["CHAMPION", "champion_uri", "loading_code", "model_name", "register"]

CHAMPION = "champion"
"""The alias of the version that a study proposed last."""


def model_name(study: str) -> str:
    """What the model of a study is called in the registry, where names have no colons."""
    return f"metarec-{study.replace(':', '-')}"


def champion_uri(study: str) -> str:
    """By which the latest model of a study is loaded."""
    return f"models:/{model_name(study)}@{CHAMPION}"


def loading_code(study: str, tracking_uri: str | None) -> str:
    """The line of Python that loads the latest model of a study from a store.

    >>> loading_code("films", "sqlite:////data/runs/mlflow.db")
    'metarec.load("models:/metarec-films@champion", tracking_uri="sqlite:////data/runs/mlflow.db")'
    """
    given = [json.dumps(champion_uri(study), ensure_ascii=False)]
    # The default of metarec.load.
    if tracking_uri is not None and sqlite_path(tracking_uri) != Path("mlruns").resolve() / "mlflow.db":
        given.append(f"tracking_uri={json.dumps(shown_uri(tracking_uri), ensure_ascii=False)}")
    return f"metarec.load({', '.join(given)})"


def register(client: MlflowClient, run_id: str, path: str, name: str, tags: Mapping[str, str], about: str = "") -> None:
    """Make the model among a run's artifacts the champion of its name.

    Repeated, or called by several processes at once, it has no second effect.

    Args:
        path: the model's folder among the artifacts. tags: of the version; they identify it. about: the version's
            description, and so long as it is the champion the model's, too.
    """
    from mlflow.exceptions import MlflowException

    try:
        client.get_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        try:
            client.create_registered_model(name)
        except MlflowException as made:
            # Another process has been faster.
            if made.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
    tags, about = {clean_key(key): value for key, value in tags.items()}, cut(about, DESCRIPTION_LENGTH)
    first = _first_version(client, run_id, name, tags)
    if first is None:
        source = f"{client.get_run(run_id).info.artifact_uri}/{path}"
        own = int(client.create_model_version(name, source, run_id=run_id, tags=tags, description=about).version)
        # Another process may have made the same version meanwhile. All agree on the one with the lowest number.
        first = _first_version(client, run_id, name, tags) or own
        if first != own:
            client.delete_model_version(name, str(own))
    client.set_registered_model_alias(name, CHAMPION, str(first))
    if about:
        client.update_registered_model(name, about)


def _first_version(client: MlflowClient, run_id: str, name: str, tags: Mapping[str, str]) -> int | None:
    """The lowest version of this model with these tags; None if there is none."""
    versions = client.search_model_versions(f"run_id = '{run_id}'")
    # Names are compared here: queries cannot quote every one.
    same = [int(one.version) for one in versions if one.name == name and tags.items() <= one.tags.items()]
    return min(same, default=None)
