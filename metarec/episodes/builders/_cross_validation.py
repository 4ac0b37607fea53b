"""Episodes for cross-validation over users: each user is a test user once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from metarec.bases import BASES
from metarec.episodes._assemble import DomainEpisodes, PredictedTasks
from metarec.episodes._cache import cache_key, load_arrays, save_arrays
from metarec.episodes._item_facts import item_facts, task_facts
from metarec.episodes._predictions import base_predictions
from metarec.episodes._split import (
    MIN_USERS,
    Cut,
    Role,
    UserRoles,
    cut_tasks,
    deal_folds,
    eligible_users,
    roles_of,
    too_few,
)
from metarec.episodes.builders._linked import Joined, Links
from metarec.episodes.settings import EpisodeSettings, Progress
from metarec.errors import InputError
from metarec.ratings import Domain, rated_domains
from metarec.workers import worker_map

__all__ = ["CrossValidation", "cross_validate", "shared_folds"]

Fit = frozenset[int]
"""A fit of the bases, by the folds that it leaves out."""


@dataclass(frozen=True)
class CrossValidation:
    """Episodes of one domain for every fold of users and every number of shots. Made by :func:`cross_validate`.

    Attributes:
        settings: how episodes are cut; its number of shots is not used.
        base_names: the bases, in the order of the tensors' axis.
        shots: the sizes of support sets.
        folds: user -> the fold in which the user is tested.
    """

    domain: Domain
    settings: EpisodeSettings
    base_names: tuple[str, ...]
    shots: tuple[int, ...]
    folds: Mapping[str, int]
    num_folds: int
    _cuts: Mapping[int, Sequence[Cut]]
    _answers: Mapping[tuple[Fit, int], Mapping[str, np.ndarray]]

    def episodes(self, fold: int, shots: int) -> DomainEpisodes:
        """The episodes whose test users are those of `fold`; the next fold's users validate, all others train."""
        return self.predicted_tasks(fold, shots).episodes()

    def predicted_tasks(self, fold: int, shots: int) -> PredictedTasks:
        """The tasks of :meth:`episodes` before features are made.

        Raises:
            InputError: there is no such fold, or no predictions for this number of shots.
        """
        if not 0 <= fold < self.num_folds:
            raise InputError(f"fold must be in 0..{self.num_folds - 1} but got {fold}")
        if shots not in self.shots:
            raise InputError(f"shots must be one of {', '.join(map(str, self.shots))} but got {shots}")
        roles = {user: self._role(own, fold) for user, own in self.folds.items()}
        cuts = [cut for cut in self._cuts[shots] if cut.draw == 0 or roles[cut.task.user] == "train"]
        owners = np.array([self.folds[cut.task.user] for cut in cuts])
        arrays: dict[str, np.ndarray] = {}
        for own in range(self.num_folds):
            # Test users are predicted by the fit without their fold, all others by the fit without both folds.
            fit = frozenset((fold, own))
            members = _members(self._cuts[shots], self.folds, fit)
            mine = np.array([self.folds[cut.task.user] == own for cut in members])
            kept = np.array([roles[cut.task.user] == "train" or cut.draw == 0 for cut in members])
            rows, chosen = owners == own, mine & kept
            for name, values in self._answers[fit, shots].items():
                if name not in arrays:
                    arrays[name] = np.zeros((len(cuts), *values.shape[1:]))
                arrays[name][rows] = values[chosen]
        settings = self.settings.model_copy(update={"shots": shots})
        return PredictedTasks(self.domain, settings, self.base_names, roles_of(cuts, roles), cuts, arrays)

    def _role(self, own: int, fold: int) -> Role:
        if own == fold:
            return "test"
        return "validation" if own == (fold + 1) % self.num_folds else "train"


def cross_validate(
    domain: Domain,
    settings: EpisodeSettings,
    bases: Mapping[str, Mapping[str, Any]],
    *,
    shots: Sequence[int],
    folds: int | Mapping[str, int] = 5,
    elsewhere: Mapping[str, Domain] | None = None,
    seed: int = 0,
    cache: Path | None = None,
    jobs: int = 1,
    on_progress: Progress | None = None,
) -> CrossValidation:
    """Fit the bases without each fold, and without each pair of folds, and predict the users left out.

    With F folds these are F (F + 1) / 2 fits of each base. When a fold is tested, its users are predicted by the fits
    without it, and the users of any other fold by the fits without both: no user is predicted by a base that saw the
    user, and no rating of a test user is used. Bases that predict *train* users may have seen the round's validation
    users, unlike in :func:`build_episodes`, where bases see train users only. Predictions of train and of validation
    users come from fits of the same size, so that what is learned on the first can be scored on the second.

    Args:
        domain: the ratings. settings: how episodes are cut; `shots` replaces its own number.
        bases: name -> options of each base recommender.
        shots: sizes of support sets; a user has episodes of those that leave enough ratings for the query.
        folds: the number of folds of users, >= 3; or user -> fold from :func:`shared_folds`, where the same users may
            be in other domains. Users without a fold make no episode, and the bases learn from them.
        elsewhere: name -> other domains in which the same users rated: the bases are fitted on these too, without the
            users left out, whose ratings there before the queries become their background. `folds` must then be shared.
            None: users are not linked.
        seed: of the folds, the draws and the bases.
        cache: as for :func:`build_episodes`; so are `jobs` and `on_progress`.

    Raises:
        InputError: fewer than three folds, no shots, or too few users with enough ratings.
    """
    num_folds = folds if isinstance(folds, int) else max(folds.values(), default=-1) + 1
    if num_folds < 3:
        raise InputError(f"folds must be >= 3, to train, validate and test, but got {num_folds}")
    if not shots or min(shots) < 0:
        raise InputError(f"shots must name at least one number >= 0 but got {list(shots)}")
    domain, elsewhere = domain.rated(), elsewhere and rated_domains(elsewhere)
    shots = tuple(sorted(set(shots)))
    cut_settings = {count: settings.model_copy(update={"shots": count}) for count in shots}
    users = eligible_users(domain, cut_settings[shots[-1]])
    needed = max(MIN_USERS, 2 * num_folds)
    if len(users) < needed:
        raise InputError(too_few(domain, cut_settings[shots[-1]], len(users), needed))
    candidates = eligible_users(domain, cut_settings[shots[0]])
    own = dict(folds) if isinstance(folds, Mapping) else deal_folds(candidates, folds, np.random.default_rng([seed, 2]))
    all_train = UserRoles({user: "train" for user in candidates if user in own}, {}, 0)
    cuts = {count: cut_tasks(domain, all_train, cut_as, seed) for count, cut_as in cut_settings.items()}
    fits = [frozenset(pair) for size in (1, 2) for pair in combinations(range(num_folds), size)]
    answers: dict[tuple[Fit, int], dict[str, np.ndarray]] = {}
    links = Links(domain, elsewhere)
    base_arrays = _predict(
        links,
        settings,
        bases,
        cuts=cuts,
        folds=own,
        fits=fits,
        seed=seed,
        cache=cache,
        jobs=jobs,
        on_progress=on_progress,
    )
    for fit in fits:
        facts = item_facts(_fitted_on(domain, own, fit), settings.damping)
        joined = _joined(links, own, fit, settings.damping)
        for count in shots:
            members = _members(cuts[count], own, fit)
            arrays = {
                side: np.stack([base_arrays[fit, name][f"{side}-{count}"] for name in bases], axis=-1)
                for side in ("support", "query", "support_evidence", "query_evidence")
            }
            arrays |= task_facts(facts, members, max(count, 1), settings.max_query) | joined.facts(members)
            answers[fit, count] = arrays
    return CrossValidation(domain, settings, tuple(bases), shots, own, num_folds, cuts, answers)


def shared_folds(domains: Iterable[Domain], settings: EpisodeSettings, folds: int, seed: int) -> dict[str, int]:
    """user -> fold, the same in all domains: the test users of a round are train users of no domain.

    Args:
        settings: how episodes are cut, for the smallest number of shots: users with an episode in any domain have a
            fold.
    """
    users = sorted({user for domain in domains for user in eligible_users(domain, settings)})
    return deal_folds(users, folds, np.random.default_rng([seed, 3]))


def _fitted_on(domain: Domain, folds: Mapping[str, int], fit: Fit) -> Domain:
    return domain.without(_left_out(folds, fit))


def _left_out(folds: Mapping[str, int], fit: Fit) -> set[str]:
    return {user for user, fold in folds.items() if fold in fit}


def _joined(links: Links, folds: Mapping[str, int], fit: Fit, damping: float) -> Joined:
    return links.joined(_fitted_on(links.domain, folds, fit), _left_out(folds, fit), damping)


def _members(cuts: Sequence[Cut], folds: Mapping[str, int], fit: Fit) -> list[Cut]:
    return [cut for cut in cuts if folds[cut.task.user] in fit]


def _predict(
    links: Links,
    settings: EpisodeSettings,
    bases: Mapping[str, Mapping[str, Any]],
    *,
    cuts: Mapping[int, Sequence[Cut]],
    folds: Mapping[str, int],
    fits: Sequence[Fit],
    seed: int,
    cache: Path | None,
    jobs: int,
    on_progress: Progress | None,
) -> dict[tuple[Fit, str], dict[str, np.ndarray]]:
    """Each fit's predictions: for K shots "support-K" [T, K], "query-K" [T, N], and their evidence."""
    domain = links.domain
    facts = {
        "domain": domain.fingerprint(),
        "settings": settings.model_dump(exclude={"shots", "validation_fraction", "test_fraction", "folds"}),
        "shots": list(cuts),
        "folds": sorted(folds.items()),
        "seed": seed,
    }
    arrays: dict[tuple[Fit, str], dict[str, np.ndarray]] = {}
    paths: dict[tuple[Fit, str], Path] = {}
    for fit in fits:
        for name, options in bases.items():
            if cache:
                key = cache_key(
                    {**facts, **links.facts(name), "base": name, "options": dict(options), "fit": sorted(fit)}
                    | {"plug-ins": BASES.code_of([name])}
                )
                paths[fit, name] = cache / f"{domain.name}-{name}-{key}.npz"
                stored = load_arrays(paths[fit, name])
                if stored is not None:
                    arrays[fit, name] = stored
    calls = [(fit, name) for fit in fits for name in bases if (fit, name) not in arrays]
    done = len(arrays)
    fit_on = {fit: _joined(links, folds, fit, settings.damping) for fit in dict.fromkeys(fit for fit, _ in calls)}
    groups = {(fit, count): _members(cuts[count], folds, fit) for fit in fit_on for count in cuts}
    with worker_map(jobs if calls else 1) as run:
        found = run(
            base_predictions,
            [fit_on[fit].fit_on(name) for fit, name in calls],
            [name for _, name in calls],
            [bases[name] for _, name in calls],
            [seed] * len(calls),
            [fit_on[fit].tasks(name, [cut for count in cuts for cut in groups[fit, count]]) for fit, name in calls],
        )
        for (fit, name), answer in zip(calls, found, strict=True):
            arrays[fit, name] = {}
            start = 0
            for count in cuts:
                end = start + len(groups[fit, count])
                tables = answer.part(start, end).padded(max(count, 1), settings.max_query)
                arrays[fit, name] |= {f"{side}-{count}": table for side, table in tables.items()}
                start = end
            if cache:
                save_arrays(paths[fit, name], arrays[fit, name])
            done += 1
            if on_progress:
                on_progress(done, len(fits) * len(bases), f"{domain.name}: {name}")
    return arrays
