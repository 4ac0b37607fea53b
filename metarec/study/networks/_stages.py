"""The stages of a study of fusion networks."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from optuna.trial import FrozenTrial

from metarec.bases import applicable_bases
from metarec.bases.ranking import RANKING_BASES, applicable_ranking_bases
from metarec.episodes import DomainEpisodes, Episodes, TaskMaker
from metarec.episodes.ranking import RankingEpisodes, RankingTaskMaker
from metarec.evaluation.engine_check import check_engines
from metarec.evaluation.insight import Insight, look_into
from metarec.evaluation.metrics import METAREC, base_unit_predictions
from metarec.evaluation.segments import behaviour_of
from metarec.fusion import Task
from metarec.fusion.stackers import Stacker
from metarec.meta import MetaLearner, NetworkConfig, NonFiniteLossError
from metarec.model import (
    FusedRecommender,
    Fusion,
    FusionConfig,
    RankingRecommender,
    Stacked,
    Trained,
    fit_stacker,
    save_model,
    user_parts,
)
from metarec.model.contrasts import NO_INNER_LOOP, contrasts_of, without_inner_loop
from metarec.model.mlflow_model import write_mlflow_model
from metarec.ratings import Domain, titles_of
from metarec.search import ranked
from metarec.study.networks._objective import NetworkObjective, network_config
from metarec.study.protocols import protocol_of
from metarec.study.records import FileKeeper
from metarec.study.results import DomainResult
from metarec.study.spec import StudySpec
from metarec.study.stages import Keep, Outcome, Prepared, RunTrials, Searched, StudyInput, Workspace, member_name
from metarec.threads import one_thread
from metarec.tracking import StudyRun

__all__ = ["NetworkInput", "PreparedNetworks", "SearchedNetworks"]

logger = logging.getLogger(__name__)

MEMBERS = 3
"""How many trials' networks a study proposes. Networks that adapt and networks that do not err differently: on
MovieLens' latest-small the mean of one of each was 0.2 to 0.3 % better than either."""

Stackers = Mapping[str, Mapping[str, Stacker]]
"""Domain -> name -> the fitted stacker."""


class NetworkInput(StudyInput):
    """The input of a study of fusion networks. Sources are trained on together with the target."""

    def __init__(self, spec: StudySpec, domains: Mapping[str, Domain], workspace: Workspace) -> None:
        applicable = applicable_ranking_bases if spec.task == "ranking" else applicable_bases
        names = applicable(list(spec.bases), list(domains.values()))
        self._bases = {name: spec.bases[name] for name in names}
        self._protocol = protocol_of(spec, domains)
        self._spec, self._domains, self._workspace = spec, domains, workspace

    def prepare(self) -> PreparedNetworks:
        spec = self._spec
        for left_out in sorted(set(spec.bases) - set(self._bases)):
            needs = RANKING_BASES.get(left_out).needs if spec.task == "ranking" else "items"
            what = "timestamps" if needs == "timestamps" else "item features"
            logger.warning("the base %s is left out: no domain has %s", left_out, what)
        episodes = self._protocol.episodes(self._bases, self._workspace)
        if spec.cross_fit:
            # Before the search, and not after it.
            target = episodes[spec.target or ""]
            user_parts([target.train, target.validation], spec.cross_fit, spec.seed)
        return PreparedNetworks(self._spec, episodes, self._workspace, self._domains, self._bases)


@dataclass(frozen=True)
class PreparedNetworks(Prepared):
    """The episodes of a study of fusion networks.

    Attributes:
        domains, bases: what the episodes were made from; a model can be kept only with both.
    """

    spec: StudySpec
    episodes: Mapping[str, DomainEpisodes]
    workspace: Workspace
    domains: Mapping[str, Domain]
    bases: Mapping[str, Mapping[str, Any]]

    def objective(self, run: StudyRun | None, keeper: FileKeeper) -> NetworkObjective:
        train = {name: domain.train for name, domain in self.episodes.items()}
        validation = self.episodes[self.spec.target or ""].validation
        return NetworkObjective(self.spec, train, validation, run, self.workspace.networks, keeper)

    def search(
        self, run_trials: RunTrials, *, run: StudyRun | None, keeper: FileKeeper, processes: Executor | None = None
    ) -> SearchedNetworks:
        objective = self.objective(run, keeper)
        # With cross_fit they are fitted with the networks.
        stackers = iter(()) if self.spec.cross_fit else self._fit_stackers(processes)
        complete = run_trials(objective)
        return SearchedNetworks(self, objective, ranked(complete)[:MEMBERS], dict(stackers))

    def _fit_stackers(self, processes: Executor | None) -> Iterator[tuple[str, dict[str, Stacker]]]:
        """Each domain's name and stackers. Without other processes they are fitted lazily."""
        able = {name: domain for name, domain in self.episodes.items() if len(domain.train) and len(domain.validation)}
        sides = [domain.train for domain in able.values()], [domain.validation for domain in able.values()]
        mapped = processes.map if processes else map
        return zip(able, mapped(partial(_fit_stackers, self.spec), *sides), strict=True)


@dataclass(frozen=True)
class SearchedNetworks(Searched):
    """The trials whose networks a study proposes, the best first, and the stackers that may be combined with them."""

    prepared: PreparedNetworks
    objective: NetworkObjective
    members: Sequence[FrozenTrial]
    stackers: Stackers

    def fusion(self, domain: str) -> Fusion:
        """The proposed fusion of one domain, weighted on its validation users, or by its `cross_fit`."""
        if self.prepared.spec.cross_fit:
            return self._fit(domain, self._configs, {}, {})
        return self._fit(domain, self._configs, self.networks, self.stackers.get(domain, {}))

    def contrasts(self, domain: str, fusion: Fusion) -> dict[str, Fusion]:
        """The models that show what the gain of this domain's fusion is made of."""
        found = contrasts_of(fusion, member_name(self.members[0]))
        plain = {name: without_inner_loop(config) for name, config in self._configs.items()}
        try:
            networks = self._cross_fitted_plain(fusion) if self.prepared.spec.cross_fit else self.plain_networks
            found[NO_INNER_LOOP] = self._fit(domain, plain, networks, fusion.stackers)
        except NonFiniteLossError as error:
            logger.warning("%s is left out: a network diverges without inner steps (%s)", NO_INNER_LOOP, error)
        return found

    def _cross_fitted_plain(self, fusion: Fusion) -> dict[str, Trained]:
        """The cross-fitted networks that have no inner steps anyway."""
        plain = {member_name(trial) for trial in self.members if trial.params["inner_steps"] == 0}
        return {name: fusion.networks[name] for name in plain}

    def _fit(
        self,
        domain: str,
        configs: Mapping[str, NetworkConfig],
        networks: Mapping[str, Trained],
        stackers: Mapping[str, Stacked],
    ) -> Fusion:
        spec = self.prepared.spec
        task: Task = spec.task or "rating"
        names = tuple(dict.fromkeys(spec.baselines))
        config = FusionConfig(task=task, networks=dict(configs), stackers=names, cross_fit=spec.cross_fit)
        # Networks of trials have learned from all domains, too.
        beside = [episodes for name, episodes in self.objective.train.items() if name != domain]
        fusion = Fusion(config, seed=spec.seed)
        with one_thread():
            return fusion.fit(
                self.prepared.episodes[domain],
                beside=beside if spec.cross_fit else (),
                networks=networks,
                stackers=stackers,
            )

    @cached_property
    def _configs(self) -> dict[str, NetworkConfig]:
        return {member_name(trial): network_config(self.prepared.spec, trial.params) for trial in self.members}

    @cached_property
    def networks(self) -> dict[str, MetaLearner]:
        """The members' networks, by the names of their trials."""
        return {member_name(trial): self.objective.network(trial) for trial in self.members}

    @cached_property
    def plain_networks(self) -> dict[str, MetaLearner]:
        """The same networks, trained without inner steps; NonFiniteLossError where the training of one diverges."""
        with one_thread():
            return {
                member_name(trial): self.networks[member_name(trial)]
                if trial.params["inner_steps"] == 0
                else self.objective.fit({**trial.params, "inner_steps": 0}).learner
                for trial in self.members
            }

    def score(self) -> Outcome:
        prepared, spec = self.prepared, self.prepared.spec
        target = spec.target or ""
        workspace = prepared.workspace
        if spec.cross_fit:
            workspace.on_stage(f"fitting each model {spec.cross_fit} times, on other users each time")
        else:
            workspace.on_stage(f"scoring the best {len(self.members)} trials and the baselines on the test users")
        tested = [name for name, domain in prepared.episodes.items() if len(domain.test)]
        fusions = {name: self.fusion(name) for name in sorted(tested, key=lambda name: name != target)}
        contrasts = {name: self.contrasts(name, fusion) for name, fusion in fusions.items()}
        judged = {
            name: spec.measure.judge(test, _predictions(fusion, contrasts[name], test))
            for name, fusion in fusions.items()
            for test in [prepared.episodes[name].test]
        }
        workspace.on_stage("comparing the engines")
        best = self.members[0]
        engines = check_engines(network_config(spec, best.params), self.objective.train[target], seed=spec.seed)
        insight, keep = self._served(fusions[target])
        return Outcome(
            {name: DomainResult.of(spec.measure, own, seed=spec.seed) for name, own in judged.items()},
            {name: _settings(fusion, contrasts[name]) for name, fusion in fusions.items()},
            pd.concat([judged[name].rows for name in tested], ignore_index=True),
            engines,
            insight,
            keep,
        )

    def _served(self, fusion: Fusion) -> tuple[Insight, Keep | None]:
        """What the best network does for the target's test users, and how the fusion is kept, if it is."""
        prepared, spec = self.prepared, self.prepared.spec
        target = spec.target or ""
        domain, episodes = prepared.domains[target], prepared.episodes[target]
        prepared.workspace.on_stage("fitting the bases that serve")
        protocol = protocol_of(spec, prepared.domains)
        # The bases that predicted for the test users.
        train = protocol.learned_from(target)
        # Held-out ratings of users whose other ratings are known are in no model.
        kept_of = train if spec.protocol == "warm" else domain
        events = kept_of.single_events() if spec.ranking.repeats == "include" else kept_of.ratings
        kept = fusion.used(), domain.name, events, frozenset(train.ratings["user"].unique())
        titles = titles_of(domain.items)
        if isinstance(episodes, RankingEpisodes):
            insight = Insight(behaviour_of(domain, episodes.test, train))
            lists = RankingTaskMaker.fit(
                train, prepared.bases, episodes.ranking_standards, spec.ranking, seed=spec.seed
            )
            return insight, partial(self._keep, RankingRecommender(lists, *kept, protocol.max_history, titles))
        assert episodes.standards is not None, "these episodes were made from ratings"
        # A network gets worse with more ratings than it was trained on; a base gets better.
        shots = spec.episodes.shots
        maker = TaskMaker.fit(train, prepared.bases, episodes.standards, shots=shots, seed=spec.seed)
        insight = look_into(domain, train, episodes, self.networks[member_name(self.members[0])], maker)
        return insight, partial(self._keep, FusedRecommender(maker, *kept, protocol.max_history, titles))

    def _keep(self, recommender: FusedRecommender | RankingRecommender, folder: Path) -> str:
        prepared = self.prepared
        items = prepared.domains[prepared.spec.target or ""].items
        save = partial(save_model, recommender, bases=prepared.bases, seed=prepared.spec.seed, items=items)
        return write_mlflow_model(folder, recommender, save)


def _fit_stackers(spec: StudySpec, train: Episodes, validation: Episodes) -> dict[str, Stacker]:
    """Every baseline on one domain. Runs in a worker process, or in this one."""
    with one_thread():
        return {name: fit_stacker(name, train, validation, seed=spec.seed) for name in spec.baselines}


def _predictions(fusion: Fusion, contrasts: Mapping[str, Fusion], test: Episodes) -> dict[str, np.ndarray]:
    """Model -> [T, N] predictions of the fusion, of its contrasts and stackers, and of the bases."""
    members = fusion.members(test)
    shown = {name: contrast.predict(test) for name, contrast in contrasts.items()}
    baselines = {name: members[name] for name in fusion.stackers}
    return {METAREC: fusion.combine(members), **shown, **baselines, **base_unit_predictions(test)}


def _settings(fusion: Fusion, contrasts: Mapping[str, Fusion]) -> dict[str, Mapping[str, Any]]:
    combined = {METAREC: fusion, **contrasts}
    return {
        **{name: one.weights for name, one in combined.items()},
        **{name: stacker.settings for name, stacker in fusion.stackers.items()},
    }
