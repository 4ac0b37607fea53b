"""The search of the settings of each base, in a study of Optuna of its own, beside the study that it belongs to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from metarec.bases import BASES, Setting, applicable_bases, searched_settings
from metarec.bases.ranking import RANKING_BASES, applicable_ranking_bases
from metarec.episodes import (
    EpisodeSettings,
    Progress,
    QueryScores,
    RatingRoles,
    UserRoles,
    validation_predictions,
    warm_validation_predictions,
)
from metarec.episodes.ranking import validation_lists
from metarec.errors import InputError
from metarec.files import content_key
from metarec.fusion import Task
from metarec.ratings import Domain
from metarec.registry import Registry
from metarec.search import SearchSettings, ranked
from metarec.search.storage import end_stale_trials
from metarec.search.trials import counted_trials, join_study, open_study, run_trials
from metarec.study.bases._objective import BaseObjective
from metarec.study.results import TunedBase, complete_trials
from metarec.workers import worker_map

__all__ = ["BaseSearch", "tune_bases", "tuned_bases"]


@dataclass(frozen=True)
class BaseSearch:
    """What the settings of bases are searched on: the train users of one domain fit, its validation users judge.

    Args:
        study: the study that the bases belong to. storage: the path of a journal file, or the URL of a database.
        domain: the target, as its task reads it. roles: of its users. task: of the study.
        episodes: how histories are cut. bases: name -> options that are fixed.
        trials: for each base. seed: of the cut, of the bases and of the search.
    """

    study: str
    storage: str
    domain: Domain
    roles: UserRoles | RatingRoles
    task: Task
    episodes: EpisodeSettings
    bases: Mapping[str, Mapping[str, Any]]
    trials: int
    seed: int

    def searched(self) -> dict[str, dict[str, Setting]]:
        """Base -> its searched settings, for those that have some and can be fitted on this domain.

        Raises:
            InputError: a plug-in's `searched` breaks a rule.
        """
        applicable = applicable_ranking_bases if self.task == "ranking" else applicable_bases
        names = applicable(list(self.bases), [self.domain])
        spaces = {name: searched_settings(self._registry, name, self.bases[name]) for name in names}
        return {name: space for name, space in spaces.items() if space}

    @property
    def _registry(self) -> Registry:
        return RANKING_BASES if self.task == "ranking" else BASES

    def run(self, name: str, space: Mapping[str, Setting]) -> None:
        """Search the settings of one base. Runs in a worker process, or in this one.

        Trials that have ended are not run again. Several processes share the trials.

        Raises:
            InputError: the base fails with its defaults; or earlier trials had other data or ranges.
        """
        settings = SearchSettings(self.trials, "tpe", "none", 1, self.seed)
        objective = BaseObjective(space, partial(self._score, name), settings)
        facts = {
            "data": self.domain.fingerprint(),
            "roles": self.roles.digest if isinstance(self.roles, RatingRoles) else dict(self.roles.roles),
            "task": self.task,
            "episodes": self.episodes.model_dump(),
            "base": name,
            "options": dict(self.bases[name]),
            "searched": {setting: repr(own) for setting, own in space.items()},
            "plug-ins": self._registry.code_of([name]),
            "seed": self.seed,
        }
        study = open_study(
            study_of(self.study, name),
            self.storage,
            settings,
            identity=content_key(facts),
            first_trials=[objective.usual],
        )
        end_stale_trials(study)
        run_trials(study, objective, lambda trial: None)

    def _score(self, name: str, chosen: Mapping[str, Any]) -> QueryScores:
        options = {**self.bases[name], **chosen}
        if isinstance(self.roles, RatingRoles):
            return warm_validation_predictions(self.roles, self.episodes, name, options, seed=self.seed)
        score = validation_lists if self.task == "ranking" else validation_predictions
        return score(self.domain, self.roles, self.episodes, name, options, seed=self.seed)


def study_of(study: str, base: str) -> str:
    """The name of the study of Optuna in which a base is tuned."""
    return f"{study}.bases.{base}"


def tune_bases(search: BaseSearch, *, jobs: int = 1, on_progress: Progress | None = None) -> dict[str, TunedBase]:
    """Search the settings of every base that names some in `searched`, each base in a process.

    Args:
        jobs: processes; the result does not depend on it. on_progress: called after each base.

    Raises:
        InputError: as in :meth:`BaseSearch.run`.
    """
    spaces = search.searched()
    with worker_map(jobs) as run:
        ended = run(search.run, list(spaces), list(spaces.values()))
        for done, (name, _) in enumerate(zip(spaces, ended, strict=True), start=1):
            if on_progress:
                on_progress(done, len(spaces), f"tuning {name}")
    return tuned_bases(search)


def tuned_bases(search: BaseSearch) -> dict[str, TunedBase]:
    """The finished searches of the bases, from the storage.

    Raises:
        InputError: a search is not finished.
    """
    found = {}
    for name, space in search.searched().items():
        study = join_study(study_of(search.study, name), search.storage)
        trials = counted_trials(study)
        if len(trials) < search.trials:
            raise InputError(
                f'base "{name}" of study "{search.study}" has {len(trials)} of {search.trials} trials: '
                "the process that began the study is still tuning its bases; try again later"
            )
        usual = next(trial for trial in trials if trial.params == {key: own.default for key, own in space.items()})
        best = ranked(complete_trials(trials))[0]
        found[name] = TunedBase(trials, usual, best, {**search.bases[name], **best.params})
    return found
