"""All competitors by name: strategies, controls, and baselines on the target alone."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from metarec.errors import InputError
from metarec.fusion import Task
from metarec.model import mean_of, stackers_of
from metarec.model.contrasts import AVERAGED, STACK, STACK_MEAN
from metarec.registry import suggest
from metarec.transfer.rounds import Round
from metarec.transfer.sources import CrossFitted, SourceModel, Sources, TransferredModel, TransferSettings
from metarec.transfer.strategies import STRATEGIES

__all__ = [
    "ORACLE",
    "ORACLE_USERS",
    "RoundPrediction",
    "baselines",
    "check_competitors",
    "competitors",
    "controls",
    "predict_round",
]

ORACLE = "oracle"
ORACLE_USERS = (
    "learns from more train users of the target: from all of them where only labels are few; where everything is few, "
    "from at most 100 others, with bases of the few users, so it is no upper bound there"
)
"""What the oracle is, for every table that shows it."""

PLAIN = ("scratch", STACK, "zero_shot", "pooled")
"""The strategies that are controls: they use no source, no model of a source, or the sources plainly."""


class RoundPrediction(NamedTuple):
    """A competitor's predictions in a round.

    Attributes:
        predictions: [T, N] of the test users' query rows, on the unit scale of the target's own ratings; in ranking
            scores of the candidates, higher is better.
        reasons: the choices behind them, as JSON values.
    """

    predictions: np.ndarray
    reasons: dict[str, Any]


def baselines(task: Task = "rating") -> list[str]:
    """The stackers, in ranking the rankers, that are fitted on the target's few users alone, and the mean of some."""
    return [STACK_MEAN, *stackers_of(task).names()]


def controls(task: Task = "rating") -> list[str]:
    """Everything that a transfer strategy has to beat: plain strategies and baselines."""
    return [*PLAIN, *baselines(task)]


def competitors(task: Task = "rating") -> list[str]:
    """All names, in the order of a table: strategies and controls, the oracle, the baselines."""
    return [*STRATEGIES.names(), ORACLE, *baselines(task)]


def check_competitors(names: list[str], task: Task = "rating") -> None:
    """Raise InputError for an unknown or repeated name."""
    for place, name in enumerate(names):
        if name not in competitors(task):
            raise InputError(f'unknown strategy "{name}"; {suggest(name, competitors(task))}')
        if name in names[:place]:
            raise InputError(f'strategy "{name}" is named twice')


def predict_round(name: str, given: Round, settings: TransferSettings, seed: int) -> RoundPrediction:
    """Fit a strategy, a control or a baseline to a round and predict for its test users.

    Competitors that need no source see the target on its own scale, without any source statistics.

    Raises:
        InputError: an unknown name, or settings of another task than the round's.
    """
    task = given.few.task
    check_competitors([name], task)
    if settings.task != task:
        raise InputError(f"settings must be of the round's task {task} but are of {settings.task}")
    if name == ORACLE:
        model: TransferredModel = SourceModel.learn([given.more_users], settings.fusion, seed)
        # These are more users of the target, so that rows may be longer than the test users need.
        width = given.plain_test.batch.query.mask.shape[1]
        return RoundPrediction(given.to_unit(model.predict(given.more_users.test)[:, :width], plain=True), {})
    if name in baselines(task):
        names = AVERAGED[task] if name == STACK_MEAN else (name,)
        fitted = [CrossFitted(one, given.plain_few, settings.folds, seed) for one in names]
        mean = mean_of([one.predict(given.plain_test) for one in fitted], given.plain_test)
        return RoundPrediction(
            given.to_unit(mean, plain=True), {"settings": [chosen for one in fitted for chosen in one.settings["fits"]]}
        )
    strategy = STRATEGIES.get(name)(settings, seed=seed)
    plain = not strategy.needs_sources
    model = strategy.fit(Sources({}), given.plain_few) if plain else strategy.fit(given.sources, given.few)
    predictions = model.predict(given.plain_test if plain else given.test)
    return RoundPrediction(given.to_unit(predictions, plain=plain), model.reasons())
