"""What a study searches by default: a fusion network, meta-learned on many train users."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from functools import partial
from pathlib import Path

import torch
from optuna.trial import FrozenTrial

from metarec.bases import applicable_bases
from metarec.episodes import TaskMaker, assign_roles, build_episodes
from metarec.fusion.stackers import Stacker
from metarec.meta import MetaLearner
from metarec.model import FusedRecommender, Prescription, save_model
from metarec.model.mlflow_model import write_mlflow_model
from metarec.ratings import Domain
from metarec.study.engine_check import check_engines
from metarec.study.ensemble import member_name, member_trials
from metarec.study.evaluation import METAREC
from metarec.study.insight import look_into
from metarec.study.objective import Objective, learner_config, make_learner
from metarec.study.scoring import Settings, fit_ahead, score_on_test_users
from metarec.study.spec import StudySpec
from metarec.study.subject import Outcome, Subject, Surroundings
from metarec.study.tracking import StudyRun
from metarec.study.trial_files import FileKeeper

__all__ = ["NetworkSubject"]

logger = logging.getLogger(__name__)

LOOKS_BACK = 4
"""Times the shots that a network has learned from: so many ratings of a history its model looks at."""


class NetworkSubject(Subject):
    """A fusion network with many train users; sources are trained on together with the target."""

    def __init__(self, spec: StudySpec, domains: Mapping[str, Domain], around: Surroundings) -> None:
        names = applicable_bases(list(spec.bases), list(domains.values()))
        for left_out in sorted(set(spec.bases) - set(names)):
            logger.warning("the base %s is left out: no domain has item features", left_out)
        self._bases = {name: spec.bases[name] for name in names}
        self._target = spec.target or ""
        assign_roles(domains, self._target, spec.episodes, spec.seed)
        self._spec, self._domains, self._around = spec, domains, around

    def prepare(self) -> None:
        self._episodes = build_episodes(
            self._domains,
            self._target,
            self._spec.episodes,
            self._bases,
            seed=self._spec.seed,
            cache=self._around.cache,
            jobs=self._around.jobs,
            on_progress=self._around.on_progress,
        )

    def objective(self, run: StudyRun, keeper: FileKeeper, processes: Executor | None) -> Objective:
        self._objective = Objective.of(self._spec, self._episodes, run, self._around.networks, keeper)
        self._stackers = fit_ahead(self._spec, self._episodes, processes)
        return self._objective

    def score(self, complete: Sequence[FrozenTrial]) -> Outcome:
        objective, members = self._objective, member_trials(complete)
        self._around.on_stage(f"scoring the best {len(members)} trials and the baselines on the test users")
        learners = {member_name(trial): _network_of(objective, trial) for trial in members}
        fitted = dict(self._stackers)
        table, settings, rows = score_on_test_users(self._spec, self._episodes, learners, fitted)
        self._around.on_stage("comparing the engines")
        engines = check_engines(self._spec, objective.train[objective.validation.domain], members[0].params)
        domain, episodes, best = self._domains[self._target], self._episodes[self._target], member_name(members[0])
        self._around.on_stage("fitting the bases that serve")
        maker, fitted_on = self._serving()
        insight = look_into(domain, episodes, learners[best], maker)
        prescription = self._prescription(members, learners, fitted, settings)
        return Outcome(
            {self._target: table[self._target], **table},
            settings,
            rows,
            engines,
            insight,
            partial(self._keep, maker, fitted_on, prescription),
        )

    def _serving(self) -> tuple[TaskMaker, frozenset[str]]:
        """The bases as they predicted for the test users, and whom they were fitted on."""
        spec, standards = self._spec, self._episodes[self._target].standards
        assert standards is not None, "these episodes were made from ratings"
        outside = assign_roles(self._domains, self._target, spec.episodes, spec.seed).held_out(None)
        known = self._domains[self._target].without(outside)
        maker = TaskMaker.fit(known, self._bases, standards, seed=spec.seed)
        return maker, frozenset(known.ratings["user"].unique())

    def _prescription(
        self,
        members: Sequence[FrozenTrial],
        learners: Mapping[str, MetaLearner],
        fitted: Mapping[str, Mapping[str, Stacker]],
        settings: Settings,
    ) -> Prescription:
        """The combination as it was scored."""
        configs = {
            member_name(trial): learner_config(self._spec, self._objective.validation, trial.params)
            for trial in members
        }
        whole = Prescription(
            {name: (config, learners[name]) for name, config in configs.items()},
            fitted.get(self._target, {}),
            settings[self._target][METAREC],
        )
        return whole.without_idle()

    def _keep(self, maker: TaskMaker, fitted_on: frozenset[str], prescription: Prescription, folder: Path) -> str:
        spec, domain = self._spec, self._domains[self._target]
        longest = LOOKS_BACK * max(spec.episodes.shots, 1)
        recommender = FusedRecommender(maker, prescription, domain.name, domain.ratings, fitted_on, longest)
        return write_mlflow_model(
            folder,
            recommender,
            partial(save_model, recommender, bases=self._bases, seed=spec.seed, items=domain.items),
        )


def _network_of(objective: Objective, trial: FrozenTrial) -> MetaLearner:
    """The network of a trial: kept by the trial, or learned again where the file is gone."""
    weights = objective.weights(trial.number)
    if not weights.exists():
        logger.warning("the network of trial %d is not in %s; it is learned again", trial.number, weights.parent)
        return objective.fit(trial.params)[0]
    learner = make_learner(objective.spec, objective.validation, trial.params, engine=objective.spec.engine)
    learner.load_state_dict(torch.load(weights, weights_only=True))
    return learner
