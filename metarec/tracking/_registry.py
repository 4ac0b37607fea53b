"""MLflow's registry of models."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlflow import MlflowClient

__all__ = ["CHAMPION", "champion_uri", "model_name", "register"]

CHAMPION = "champion"
"""The alias of the version that a study proposed last."""


def model_name(study: str) -> str:
    """What the model of a study is called in the registry, where names have no colons."""
    return f"metarec-{study.replace(':', '-')}"


def champion_uri(study: str) -> str:
    """By which the latest model of a study is loaded."""
    return f"models:/{model_name(study)}@{CHAMPION}"


def register(client: MlflowClient, run_id: str, path: str, name: str, tags: Mapping[str, str]) -> None:
    """Make the model among a run's artifacts the champion of its name.

    Repeated, or called by several processes at once, it has no second effect.

    Args:
        path: the model's folder among the artifacts. tags: of the version; they identify it.
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
    first = _first_version(client, run_id, name, tags)
    if first is None:
        source = f"{client.get_run(run_id).info.artifact_uri}/{path}"
        own = int(client.create_model_version(name, source, run_id=run_id, tags=dict(tags)).version)
        # Another process may have made the same version meanwhile. All agree on the one with the lowest number.
        first = _first_version(client, run_id, name, tags) or own
        if first != own:
            client.delete_model_version(name, str(own))
    client.set_registered_model_alias(name, CHAMPION, str(first))


def _first_version(client: MlflowClient, run_id: str, name: str, tags: Mapping[str, str]) -> int | None:
    """The lowest version of this model with these tags; None if there is none."""
    versions = client.search_model_versions(f"run_id = '{run_id}'")
    # Names are compared here: queries cannot quote every one.
    same = [int(one.version) for one in versions if one.name == name and tags.items() <= one.tags.items()]
    return min(same, default=None)
