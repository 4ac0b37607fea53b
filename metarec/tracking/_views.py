"""Shared views of MLflow's table of runs: filter, order and columns behind one address."""

from __future__ import annotations

import json

from metarec.tracking._facts import View
from metarec.tracking._limits import clean_key

__all__ = ["view_content", "view_key", "view_tag"]

# MLflow's page reads a shared view from a tag of the experiment, whose name ends in the key of the address.
_TAG = "mlflow.sharedViewState."

_NAME = "attributes.`Run Name`"

_WIDTHS = {"metrics": 100, "params": 100, "tags": 330}
"""The widths of the columns in pixels. Tags are sentences."""


def view_key(run_id: str, kind: str) -> str:
    """The key of the view of a run's children of one kind, as it stands in an address."""
    return f"metarec-{run_id}-{kind}"


def view_tag(key: str) -> str:
    """The tag of the experiment that holds a view."""
    return f"{_TAG}{key}"


def view_content(view: View, run_id: str) -> str:
    """The state of the table of runs that MLflow's page reads, as JSON.

    Args:
        run_id: of the parent run.

    >>> content = json.loads(view_content(View("row", "ndcg@10", False, ["ndcg@10"], where={"domain": "it's"}), "ab12"))
    >>> print(content["orderByKey"], content["selectedColumns"])
    metrics.`ndcg_at_10` ['metrics.`ndcg_at_10`']
    >>> print(content["searchFilter"])
    tags.`mlflow.parentRunId` = 'ab12' and tags.`metarec.role` = 'row' and tags.`domain` LIKE 'it_s'
    """
    where = {"mlflow.parentRunId": run_id, "metarec.role": view.kind, **view.where}
    chosen = {"metrics": view.metrics, "params": view.params, "tags": view.tags}
    widths = {f"{kind}.`{clean_key(name)}`": _WIDTHS[kind] for kind, names in chosen.items() for name in names}
    state = {
        "searchFilter": " and ".join(f"tags.`{name}` {_matches(value)}" for name, value in where.items()),
        "orderByKey": f"metrics.`{clean_key(view.metric)}`",
        "orderByAsc": view.ascending,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "selectedColumns": list(widths),
        "columnOrder": [_NAME, *widths],
        "columnWidths": {_NAME: 260, **widths},
        # The charts beside the table would show the first ten runs.
        "runsHiddenMode": "SHOW_ALL",
    }
    return json.dumps(state, ensure_ascii=False)


def _matches(value: str) -> str:
    # A query has no escapes, but a pattern's "_" is any character.
    return f"= '{value}'" if "'" not in value else "LIKE '{}'".format(value.replace("'", "_"))
