"""The run of a study that was deleted, as in MLflow's UI, and is restored when the study goes on."""

from __future__ import annotations

import logging
from typing import Any

from metarec.tracking._mlflow_runs import Parent, Tag, content_of

__all__ = ["restored"]

logger = logging.getLogger(__name__)


def restored(parent: Parent) -> Any | None:
    """The run of `parent`, which is restored with its deleted child runs; None if the store does not have it any more.

    Of a child that has another run, no deleted one is restored. MLflow keeps the files of deleted runs.
    """
    from mlflow.exceptions import MlflowException

    try:
        run = parent.client.get_run(parent.run_id)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return None
    # The store may be another one by now.
    if (run.data.tags.get(Tag.STUDY), run.data.tags.get(Tag.ROLE)) != (parent.name, parent.role):
        return None
    children: dict[str, Any] = {}
    for role in parent.child_roles:
        there = {run.data.tags.get(f"metarec.{role}") for run in parent.runs_of(role)}
        deleted = sorted(parent.runs_of(role, deleted=True), key=content_of)
        own = {key: run for run in deleted if (key := run.data.tags.get(f"metarec.{role}")) not in there}
        children |= {run.info.run_id: run for run in own.values()}
    # The parent comes last, so that a process that is killed here leaves nothing half restored.
    for run_id in [*children, parent.run_id]:
        parent.client.restore_run(run_id)
    more = f" with {len(children)} of its child runs" if children else ""
    logger.warning('the run of %s "%s" had been deleted%s; it is restored', parent.role, parent.name, more)
    return run
