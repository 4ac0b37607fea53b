"""What a study of transfer searches: how what many users of other domains say is carried to a target with few."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from typing import Any

from optuna.trial import FrozenTrial

from metarec.bases import applicable_bases
from metarec.errors import InputError
from metarec.ratings import Domain
from metarec.study.ensemble import member_name, member_trials
from metarec.study.evaluation import METAREC, base_unit_predictions, gains, prediction_rows, scores
from metarec.study.insight import Insight, crowd_of
from metarec.study.results import DomainResult
from metarec.study.segments import behaviour_of
from metarec.study.spec import StudySpec
from metarec.study.subject import Outcome, Subject, Surroundings
from metarec.study.tracking import StudyRun
from metarec.study.transfer_objective import Known, TransferObjective
from metarec.study.trial_files import FileKeeper
from metarec.transfer import FusionSettings, TransferRounds, predict_round

__all__ = ["TransferSubject"]

logger = logging.getLogger(__name__)


class TransferSubject(Subject):
    """Transfer strategies, in one round of the target (see :class:`~metarec.transfer.TransferRounds`).

    A trial learns from the sources and from a few users of the target, and is judged on the target's validation users.
    These are more than somebody has who knows but a few users: such a study compares strategies, for research, and
    what it finds of one domain is a guess for the next. To decide for one domain, from its few users alone, is what
    the strategy ``auto`` does.

    What is proposed is the best trial's strategy and nothing beside it: no combination of trials, which would take
    the validation users to fit. Baselines are fitted on the few users. Only the target is scored. No engine is
    compared.
    """

    def __init__(self, spec: StudySpec, domains: Mapping[str, Domain], around: Surroundings) -> None:
        assert spec.transfer is not None
        if len(domains) < 2:
            raise InputError(
                f"a study of transfer needs at least two domains but got {', '.join(domains)}; "
                "give the ratings of another one with --data NAME=PATH"
            )
        each = [applicable_bases(list(spec.bases), [domain]) for domain in domains.values()]
        names = [name for name in spec.bases if all(name in own for own in each)]
        for left_out in sorted(set(spec.bases) - set(names)):
            logger.warning("the base %s is left out: not every domain has item features", left_out)
        if not names:
            raise InputError(
                f"bases: none of {', '.join(spec.bases)} has something to learn from in every domain; add another"
            )
        self._spec, self._around = spec, around
        self._target = spec.target or ""
        self._domain = domains[self._target]
        self._rounds = TransferRounds(
            domains,
            [spec.episodes.shots],
            spec.episodes,
            bases={name: spec.bases[name] for name in names},
            cache=around.cache,
            jobs=around.jobs,
            on_progress=around.on_progress,
        )
        self._rounds.check(
            self._target, target_users=spec.transfer.target_users, regime=spec.transfer.regime, number=spec.seed
        )

    def prepare(self) -> None:
        transfer = self._spec.transfer
        assert transfer is not None
        self._around.on_stage("base recommenders, of every domain")
        self._round = self._rounds.round(
            self._target,
            shots=self._spec.episodes.shots,
            target_users=transfer.target_users,
            regime=transfer.regime,
            number=self._spec.seed,
        )
        if not len(self._round.validation):
            raise InputError(
                f'domain "{self._target}" has no user to validate on; give the ratings of more users, or another --seed'
            )

    def objective(self, run: StudyRun, keeper: FileKeeper, processes: Executor | None) -> TransferObjective:
        self._objective = TransferObjective(self._spec, Known.of(self._round), run, keeper)
        return self._objective

    def score(self, complete: Sequence[FrozenTrial]) -> Outcome:
        spec, given = self._spec, self._round
        best = member_trials(complete)[0]
        self._around.on_stage("scoring the best trial and the baselines on the test users")
        # What they are handed of the settings is how the few users are dealt into parts.
        said = {name: predict_round(name, given, FusionSettings(), spec.seed) for name in spec.baselines}
        rows = prediction_rows(
            given.plain_test,
            {
                METAREC: self._objective.fit(best.params).predict(given.test, given.plain_test),
                **{name: own.predictions for name, own in said.items()},
                **base_unit_predictions(given.plain_test),
            },
        )
        result = DomainResult(scores(rows, given.scale.span), gains(rows, seed=spec.seed), str(given.scale))
        settings: dict[str, Mapping[str, Any]] = {
            METAREC: {member_name(best): 1.0},
            **{name: own.reasons for name, own in said.items()},
        }
        crowd = crowd_of(self._domain, given.plain_validation, given.plain_test)
        insight = Insight(behaviour_of(self._domain, given.plain_test, crowd))
        return Outcome({self._target: result}, {self._target: settings}, rows, [], insight)
