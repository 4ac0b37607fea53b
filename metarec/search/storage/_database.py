"""Studies in a database that may be unreachable for a while."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any

from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.storages import RDBStorage
from optuna.trial import TrialState
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError, PendingRollbackError, SQLAlchemyError

from metarec.search.storage._optuna import DATABASE_METHODS, OnStale, StaleTrials, silent_trial_ids

__all__ = ["PatientDatabase"]

logger = logging.getLogger(__name__)

HEARTBEAT_S = 15
GRACE_S = 60
"""A running trial writes a heartbeat this often, and is stale after such a silence."""


class PatientDatabase(StaleTrials, RDBStorage):
    """A database whose methods wait while it cannot be reached.

    Attributes:
        patience: seconds that it may be away; 0 until it was reached for the first time.
    """

    patience = 0.0
    away_until = 0.0

    def __init__(self, url: str, on_stale: OnStale | None = None) -> None:
        super().__init__(url, engine_kwargs={"pool_pre_ping": True})
        # As arguments these two are experimental, and Optuna warns of them.
        self.heartbeat_interval, self.grace_period = HEARTBEAT_S, GRACE_S
        self.on_stale = on_stale

    def stale_trial_ids(self, study_id: int) -> list[int]:
        # After it was away, other processes first have to write their heartbeats.
        return [] if time.monotonic() < self.away_until + GRACE_S else silent_trial_ids(self, study_id)

    def set_trial_state_values(self, trial_id: int, state: TrialState, values: Sequence[float] | None = None) -> bool:
        try:
            return super().set_trial_state_values(trial_id, state, values)
        except UpdateFinishedTrialError:
            # The connection broke after the database had stored them, and they were sent again.
            if state in (TrialState.COMPLETE, TrialState.PRUNED):
                stored = self.get_trial(trial_id)
                if stored.state == state and stored.values == (None if values is None else list(values)):
                    return True
            raise


def _is_away(error: BaseException) -> bool:
    """Whether the database could not be reached; False if it refused the call."""
    cause = error.__cause__ or error
    return isinstance(cause, OperationalError | InterfaceError | PendingRollbackError) or (
        isinstance(cause, DBAPIError) and cause.connection_invalidated
    )


def _patient(method: Callable[..., Any]) -> Callable[..., Any]:
    """The method of a database, called again while the database is away."""

    @wraps(method)
    def wait_and_call(self: PatientDatabase, *args: Any, **kwargs: Any) -> Any:
        waiting_since = None
        pause = 0.1
        while True:
            try:
                answer = method(self, *args, **kwargs)
                break
            except (StorageInternalError, SQLAlchemyError) as error:
                if not _is_away(error) or self.patience <= 0:
                    raise
                now = time.monotonic()
                if waiting_since is None:
                    waiting_since = now
                    logger.warning("the database of the study does not answer; waiting for it")
                elif now - waiting_since >= self.patience:
                    raise
                time.sleep(pause)
                pause = min(2 * pause, 1.0)
        if waiting_since is not None:
            self.away_until = time.monotonic()
            logger.info("the database of the study answers again, after %.0f s", self.away_until - waiting_since)
        return answer

    return wait_and_call


for _name in DATABASE_METHODS:
    setattr(PatientDatabase, _name, _patient(getattr(PatientDatabase, _name)))
