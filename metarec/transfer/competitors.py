"""Everything that a comparison knows by name: strategies, controls, and the baselines on the target alone."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from metarec.errors import InputError
from metarec.fusion.stackers import STACKERS
from metarec.registry import suggest
from metarec.transfer.rounds import Round
from metarec.transfer.sources import CrossFitted, SourceModel, Sources, TransferredModel, TransferSettings
from metarec.transfer.strategies import STRATEGIES

__all__ = ["ORACLE", "Said", "baselines", "check_competitors", "competitors", "predict_round"]

ORACLE = "oracle"


class Said(NamedTuple):
    """What a competitor says in a round.

    Attributes:
        predictions: [T, N] of the test users' query rows, on the unit scale of the target's own ratings.
        reasons: what was chosen and why, as values that JSON knows.
    """

    predictions: np.ndarray
    reasons: dict[str, Any]


def baselines() -> list[str]:
    """The ways of combining that are fitted on the target's few users alone."""
    return STACKERS.names()


def competitors() -> list[str]:
    """All names, in the order of a table: strategies and controls, the oracle, the baselines."""
    return [*STRATEGIES.names(), ORACLE, *baselines()]


def check_competitors(names: list[str]) -> None:
    """Raise InputError for an unknown name, or one that is given twice."""
    for place, name in enumerate(names):
        if name not in competitors():
            raise InputError(f'unknown strategy "{name}"; {suggest(name, competitors())}')
        if name in names[:place]:
            raise InputError(f'strategy "{name}" is named twice')


def predict_round(name: str, given: Round, settings: TransferSettings, seed: int) -> Said:
    """What a strategy, a control or a baseline predicts for a round's test users.

    What needs no source sees the target on its own scale; nothing of the sources reaches it.

    Raises:
        InputError: an unknown name.
    """
    check_competitors([name])
    if name == ORACLE:
        model: TransferredModel = SourceModel.learn([given.everyone], settings.fusion, seed)
        # All users of the target stand in one table there, whose rows may be longer than the test users need.
        width = given.plain_test.batch.query.mask.shape[1]
        return Said(given.to_unit(model.predict(given.everyone.test)[:, :width], plain=True), {})
    if name in baselines():
        fitted = CrossFitted(name, given.plain_few, settings.folds, seed)
        return Said(given.to_unit(fitted.predict(given.plain_test), plain=True), {"settings": list(fitted.settings)})
    strategy = STRATEGIES.get(name)(settings, seed=seed)
    if not strategy.needs_sources:
        model = strategy.fit(Sources({}), given.plain_few)
        return Said(given.to_unit(model.predict(given.plain_test), plain=True), model.reasons())
    model = strategy.fit(given.sources, given.few)
    return Said(given.to_unit(model.predict(given.test), plain=False), model.reasons())
