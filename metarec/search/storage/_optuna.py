"""The only file that uses private names of Optuna; ``tests/search/test_optuna_adapter.py`` tests each of them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import BaseStorage, RDBStorage
from optuna.storages._heartbeat import BaseHeartbeat
from optuna.storages.journal._storage import JournalOperation
from optuna.trial import FrozenTrial, TrialState

__all__ = [
    "DATABASE_METHODS",
    "OnStale",
    "StaleTrials",
    "end_stale_trials",
    "id_of",
    "may_be_lost",
    "queued_params",
    "silent_trial_ids",
]

OnStale = Callable[[optuna.Study, FrozenTrial], None]
"""Called with a trial that was just ended because its process is gone."""

DATABASE_METHODS = (
    *sorted(BaseStorage.__abstractmethods__),
    "_create_new_trial",
    "_get_best_trial_id",
    "_get_stale_trial_ids",
    "_get_trials",
    "_set_trial_param",
    "get_trial_id_from_study_id_trial_number",
    "record_heartbeat",
)
"""The methods of a database that Optuna, its cache and its heartbeats call."""

_FLEETING = {
    JournalOperation.SET_TRIAL_PARAM,
    JournalOperation.SET_TRIAL_INTERMEDIATE_VALUE,
    JournalOperation.SET_TRIAL_USER_ATTR,
    JournalOperation.SET_TRIAL_SYSTEM_ATTR,
}


class StaleTrials(BaseHeartbeat):
    """A storage that finds the running trials whose process is gone.

    Attributes:
        on_stale: what :func:`end_stale_trials` calls.
    """

    on_stale: OnStale | None = None

    @abstractmethod
    def stale_trial_ids(self, study_id: int) -> list[int]:
        """The ids of these trials."""

    def _get_stale_trial_ids(self, study_id: int) -> list[int]:
        return self.stale_trial_ids(study_id)

    def get_heartbeat_stale_trial_callback(self) -> OnStale | None:
        return self.on_stale


def end_stale_trials(study: optuna.Study) -> None:
    """End each running trial whose process is gone, and pass it to the storage's `on_stale`."""
    # Optuna's fail_stale_trials ends all of them before it calls back: a process that is killed in between loses them.
    storage: Any = study._storage
    for stale in storage._get_stale_trial_ids(study._study_id):
        try:
            storage.set_trial_state_values(stale, state=TrialState.FAIL)
        except UpdateFinishedTrialError:
            # Another process was faster, or the trial has ended.
            continue
        on_stale = storage.get_heartbeat_stale_trial_callback()
        if on_stale is not None:
            on_stale(study, storage.get_trial(stale))


def silent_trial_ids(database: RDBStorage, study_id: int) -> list[int]:
    """The ids of the running trials without a heartbeat for the database's `grace_period`."""
    return RDBStorage._get_stale_trial_ids(database, study_id)


def id_of(trial: FrozenTrial) -> int:
    """The id of a trial in its storage."""
    return trial._trial_id


def queued_params(trial: FrozenTrial) -> dict[str, Any]:
    """The parameters that the trial was enqueued with, drawn or not; empty if it was not enqueued."""
    params: dict[str, Any] = trial.system_attrs.get("fixed_params", {})
    return params


def may_be_lost(logs: Iterable[Mapping[str, Any]]) -> bool:
    """Whether these lines of a journal are about running trials only, so that a crash of the machine may lose them."""
    return {log["op_code"] for log in logs} <= _FLEETING
