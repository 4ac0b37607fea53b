"""The stages of a study of transfer strategies."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from typing import Any

from optuna.trial import FrozenTrial

from metarec.bases import applicable_bases
from metarec.bases.ranking import RANKING_BASES, applicable_ranking_bases
from metarec.errors import InputError
from metarec.evaluation.insight import Insight, crowd_of
from metarec.evaluation.metrics import METAREC, base_unit_predictions
from metarec.evaluation.segments import behaviour_of
from metarec.model.contrasts import STACK, STACK_MEAN
from metarec.ratings import Domain
from metarec.search import ranked
from metarec.study.records import FileKeeper
from metarec.study.results import DomainResult
from metarec.study.spec import StudySpec
from metarec.study.stages import Outcome, Prepared, RunTrials, Searched, StudyInput, Workspace, member_name
from metarec.study.transfer._objective import TransferObjective, TrialData
from metarec.study.transfer_spec import STRATEGY
from metarec.tracking import StudyRun
from metarec.transfer import RankingRounds, Round, Rounds, TransferRounds, TransferSettings, predict_round

__all__ = ["PreparedRound", "SearchedStrategies", "TransferInput"]

logger = logging.getLogger(__name__)


class TransferInput(StudyInput):
    """The input of a study of transfer strategies, in one round of the target.

    See :class:`~metarec.transfer.Rounds`. A trial learns from the sources and from a few users of the target,
    and is scored on the target's validation users. An application with only a few users does not have validation
    users: such a study compares strategies, for research, and its result on one domain is a guess for the next. The
    strategy ``auto`` decides for one domain, from its few users alone.
    """

    def __init__(self, spec: StudySpec, domains: Mapping[str, Domain], workspace: Workspace) -> None:
        assert spec.transfer is not None
        if len(domains) < 2:
            raise InputError(
                f"a study of transfer needs at least two domains but got {', '.join(domains)}; "
                "give the ratings of another one with --data NAME=PATH"
            )
        is_ranking = spec.task == "ranking"
        applicable = applicable_ranking_bases if is_ranking else applicable_bases
        each = [applicable(list(spec.bases), [domain]) for domain in domains.values()]
        names = [name for name in spec.bases if all(name in own for own in each)]
        for left_out in sorted(set(spec.bases) - set(names)):
            dated = is_ranking and RANKING_BASES.get(left_out).needs == "timestamps"
            what = "timestamps" if dated else "item features"
            logger.warning("the base %s is left out: not every domain has %s", left_out, what)
        if not names:
            raise InputError(
                f"bases: none of {', '.join(spec.bases)} has something to learn from in every domain; add another"
            )
        self._spec, self._workspace = spec, workspace
        self._target = spec.target or ""
        self._domain = domains[self._target]
        make: Callable[..., Rounds] = partial(RankingRounds, ranking=spec.ranking) if is_ranking else TransferRounds
        self._rounds = make(
            domains,
            [spec.episodes.shots],
            spec.episodes,
            bases={name: spec.bases[name] for name in names},
            cache=workspace.cache,
            jobs=workspace.jobs,
            on_progress=workspace.on_progress,
        )
        self._rounds.check(
            self._target, target_users=spec.transfer.target_users, regime=spec.transfer.regime, number=spec.seed
        )

    def prepare(self) -> PreparedRound:
        transfer = self._spec.transfer
        assert transfer is not None
        self._workspace.on_stage("base recommenders, of every domain")
        given = self._rounds.round(
            self._target,
            shots=self._spec.episodes.shots,
            target_users=transfer.target_users,
            regime=transfer.regime,
            number=self._spec.seed,
        )
        if not len(given.validation):
            raise InputError(
                f'domain "{self._target}" has no user to validate on; give the ratings of more users, or another --seed'
            )
        return PreparedRound(self._spec, given, self._domain, self._workspace)


@dataclass(frozen=True)
class PreparedRound(Prepared):
    """One round of the target, and the target's domain."""

    spec: StudySpec
    round: Round
    domain: Domain
    workspace: Workspace

    def objective(self, run: StudyRun | None, keeper: FileKeeper) -> TransferObjective:
        return TransferObjective(self.spec, TrialData.of(self.round), run, keeper)

    def search(
        self, run_trials: RunTrials, *, run: StudyRun | None, keeper: FileKeeper, processes: Executor | None = None
    ) -> SearchedStrategies:
        objective = self.objective(run, keeper)
        best = ranked(run_trials(objective))
        # Ranked trials: the first of a strategy is its best one.
        firsts = {trial.params[STRATEGY]: trial for trial in reversed(best)}
        return SearchedStrategies(self, objective, best[0], firsts)


def strategy_row(strategy: str) -> str:
    """The name of a searched strategy that is not proposed, in the table of test users. Baselines have other names.

    >>> strategy_row("pooled")
    'strategy pooled'
    """
    return f"strategy {strategy}"


@dataclass(frozen=True)
class SearchedStrategies(Searched):
    """The best trial, and that of each strategy.

    The strategy of the best trial is proposed alone, because the weights of a combination would need the validation
    users. The other strategies are scored beside it. Baselines are fitted on the few users. Only the target is scored,
    and no engine is compared.
    """

    prepared: PreparedRound
    objective: TransferObjective
    best: FrozenTrial
    firsts: Mapping[str, FrozenTrial]

    def score(self) -> Outcome:
        spec, given, domain = self.prepared.spec, self.prepared.round, self.prepared.domain
        self.prepared.workspace.on_stage("scoring the best trial and the baselines on the test users")
        # The folds of the few users are the only settings that baselines need.
        names = [STACK, STACK_MEAN, *spec.baselines]
        baselines = {
            name: predict_round(name, given, TransferSettings(task=given.few.task), spec.seed) for name in names
        }
        others = {strategy_row(name): trial for name, trial in self.firsts.items() if trial is not self.best}
        fitted = {name: self.objective.fit(trial.params) for name, trial in {METAREC: self.best, **others}.items()}
        judged = spec.measure.judge(
            given.plain_test,
            {
                **{name: model.predict(given.test, given.plain_test) for name, model in fitted.items()},
                **{name: own.predictions for name, own in baselines.items()},
                **base_unit_predictions(given.plain_test),
            },
        )
        result = DomainResult.of(spec.measure, judged, seed=spec.seed, transfer=True)
        settings: dict[str, Mapping[str, Any]] = {
            **{name: {member_name(trial): 1.0} for name, trial in {METAREC: self.best, **others}.items()},
            **{name: own.reasons for name, own in baselines.items()},
        }
        crowd = crowd_of(domain, given.plain_validation, given.plain_test)
        insight = Insight(behaviour_of(domain, given.plain_test, crowd))
        target = spec.target or ""
        return Outcome({target: result}, {target: settings}, judged.rows, [], insight)
