"""From rating tables to episodes, by one split of the users."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from metarec.bases import BASES
from metarec.episodes._assemble import DomainEpisodes, PredictedTasks
from metarec.episodes._cache import cache_key, load_arrays, save_arrays
from metarec.episodes._features import ItemFacts, Priors
from metarec.episodes._item_facts import item_facts, task_facts
from metarec.episodes._predictions import QueryScores, base_predictions
from metarec.episodes._split import Cut, UserRoles, assign_roles, cut_tasks, roles_of, validation_cuts
from metarec.episodes._standards import Moments, Standards
from metarec.episodes.settings import EpisodeSettings, Progress
from metarec.errors import check_name
from metarec.ratings import Domain, rated_domains
from metarec.workers import Map, worker_map

__all__ = ["Group", "build_episodes", "predicted_arrays", "scores_of", "validation_predictions"]

Group: TypeAlias = tuple[Domain, list[int]]
"""What bases are fitted on, and the places of the tasks that they predict."""


def build_episodes(
    domains: Mapping[str, Domain],
    target: str,
    settings: EpisodeSettings,
    bases: Mapping[str, Mapping[str, Any]],
    *,
    seed: int = 0,
    cache: Path | None = None,
    jobs: int = 1,
    on_progress: Progress | None = None,
    roles: UserRoles | None = None,
) -> dict[str, DomainEpisodes]:
    """Episodes of every domain, by the protocol of docs/honest.md.

    Args:
        domains: the rating tables by name; target: the one whose users are split first.
        settings: how episodes are cut.
        bases: name -> options of each base recommender, in the order of the tensors' axis.
        seed: of the split, of the draws, and of the bases.
        cache: a folder for base predictions; None caches nothing.
        jobs: worker processes for fitting bases; the result does not depend on it.
        on_progress: called after each fit, see :data:`Progress`.
        roles: the roles of the users, where the same users are cut into episodes in several ways; users with too few
            ratings make none. By default the users are split here.

    Raises:
        InputError: a domain with too few users who have enough ratings, or a name that breaks the rule of names.
    """
    # They name files of the cache.
    check_name("the name of a domain", *domains)
    domains = rated_domains(domains)
    given, roles = roles, roles or assign_roles(domains, target, settings, seed)
    facts = {
        "domains": {name: domain.fingerprint() for name, domain in domains.items()},
        "target": target,
        "settings": settings.model_dump(),
        "bases": {name: dict(options) for name, options in bases.items()},
        "order": list(bases),
        "plug-ins": BASES.code_of(bases),
        "seed": seed,
    }
    if given is not None:
        facts["roles"] = {"roles": dict(given.roles), "folds": dict(given.folds)}
    key = cache_key(facts)
    cuts = {name: cut_tasks(domain, roles, settings, seed) for name, domain in domains.items()}
    paths = {name: cache / f"{name}-{key}.npz" for name in domains} if cache else {}
    arrays = {name: stored for name, path in paths.items() if (stored := load_arrays(path)) is not None}
    missing = [name for name in domains if name not in arrays]
    if missing:
        with worker_map(jobs) as run:
            for name in missing:
                groups = _by_fold(domains[name], roles, cuts[name])
                arrays[name] = predicted_arrays(
                    cuts[name], groups, settings, bases, seed=seed, run=run, on_progress=on_progress
                )
                if cache:
                    save_arrays(paths[name], arrays[name])
    return {
        name: PredictedTasks(
            domain, settings, tuple(bases), roles_of(cuts[name], roles.roles), cuts[name], arrays[name]
        ).episodes()
        for name, domain in domains.items()
    }


def validation_predictions(
    domain: Domain, roles: UserRoles, settings: EpisodeSettings, name: str, options: Mapping[str, Any], *, seed: int
) -> QueryScores:
    """Fit one base on the train users, and predict the query rows of the validation users, as in episodes.

    A row without a prediction has the fallback, see :attr:`Episodes.query_fallback`.

    Raises:
        InputError: the base raised an error.
    """
    cuts = validation_cuts(domain, roles, settings, seed)
    arrays = predicted_arrays(cuts, _by_fold(domain, roles, cuts), settings, {name: options}, seed=seed, run=map)
    return scores_of(domain, settings, name, cuts, arrays)


def scores_of(
    domain: Domain, settings: EpisodeSettings, name: str, cuts: Sequence[Cut], arrays: Mapping[str, np.ndarray]
) -> QueryScores:
    """The scores of one base for the query rows of validation tasks."""
    # The features are not used, so their standards do not matter.
    nothing = Moments(np.zeros(1), np.zeros(1))
    standards = Standards(Priors(np.zeros(1), 0.0), nothing, nothing, settings.damping)
    tasks = PredictedTasks(domain, settings, (name,), ["validation"] * len(cuts), cuts, arrays)
    query = tasks.episodes(standards).validation.batch.query
    return QueryScores(query.predictions[..., 0].numpy(), query.targets.numpy(), query.mask.numpy())


def _by_fold(domain: Domain, roles: UserRoles, cuts: Sequence[Cut]) -> list[Group]:
    """The tasks of each fold of the train users, then all others; each with the ratings of the other train users."""
    groups: list[Group] = []
    for fold in [*range(roles.num_folds), None]:
        own = [row for row, cut in enumerate(cuts) if roles.folds.get(cut.task.user) == fold]
        if own:
            groups.append((domain.without(roles.held_out(fold)), own))
    return groups


def predicted_arrays(
    cuts: Sequence[Cut],
    groups: Sequence[Group],
    settings: EpisodeSettings,
    bases: Mapping[str, Mapping[str, Any]],
    *,
    seed: int,
    run: Map,
    on_progress: Progress | None = None,
    are_warm: bool = False,
) -> dict[str, np.ndarray]:
    """Base predictions and item facts as padded arrays in the order of `cuts`, see :func:`base_predictions`."""
    widths = {"support": max(settings.shots, 1), "query": settings.max_query}
    arrays = {
        f"{side}{what}": np.full((len(cuts), width, len(bases)), np.nan)
        for side, width in widths.items()
        for what in ("", "_evidence")
    }
    for side, width in widths.items():
        arrays[f"{side}_facts"] = np.zeros((len(cuts), width, len(ItemFacts._fields)))

    for fit_on, own in groups:
        item_table = item_facts(fit_on, settings.damping)
        for name, table in task_facts(item_table, [cuts[row] for row in own], *widths.values()).items():
            arrays[name][own] = table

    calls = [(group, base) for group in range(len(groups)) for base in range(len(bases))]
    names = list(bases)
    answers = run(
        partial(base_predictions, are_warm=True) if are_warm else base_predictions,
        [groups[group][0] for group, _ in calls],
        [names[base] for _, base in calls],
        [bases[names[base]] for _, base in calls],
        [seed] * len(calls),
        [[cuts[row].task for row in groups[group][1]] for group, _ in calls],
    )
    for done, ((group, base), answer) in enumerate(zip(calls, answers, strict=True), start=1):
        rows = groups[group][1]
        for name, table in answer.padded(*widths.values()).items():
            arrays[name][rows, :, base] = table
        if on_progress:
            on_progress(done, len(calls), f"{groups[group][0].name}: {names[base]}")
    return arrays
