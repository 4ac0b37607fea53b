"""From tables of events to ranking episodes, by one split of the users."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Self, TypeAlias

import numpy as np
import torch

from metarec.bases.ranking import RANKING_BASES, fit_ranking_base
from metarec.episodes._assemble import DomainEpisodes
from metarec.episodes._cache import cache_key, load_arrays, save_arrays
from metarec.episodes._episodes import EpisodeBatch, Episodes
from metarec.episodes._features import Features
from metarec.episodes._split import ROLES, Role, UserRoles, assign_roles, cut_tasks
from metarec.episodes._standards import Moments, standard_inputs
from metarec.episodes.ranking._checks import check_choice
from metarec.episodes.ranking._features import (
    RANKING_FEATURE_NAMES,
    Catalogue,
    RankingStandards,
    UserPriors,
    context_names,
    make_tables,
    query_side,
    support_side,
)
from metarec.episodes.ranking._tasks import RankingTask, UserHistory, check_repeats, ranking_tasks
from metarec.episodes.ranking.settings import RankingSettings
from metarec.episodes.settings import EpisodeSettings, Progress
from metarec.errors import InputError, check_name
from metarec.ratings import Domain, RatingScale
from metarec.threads import one_thread
from metarec.workers import worker_map

__all__ = [
    "ALL",
    "Group",
    "RankingEpisodes",
    "build_ranking_episodes",
    "check_domain",
    "check_draws",
    "episodes_of",
    "lists_of_groups",
    "with_relevant",
]

Group: TypeAlias = tuple[Domain, list[int]]
"""What bases are fitted on, and the places of the tasks that they make lists for."""

ALL = 1_000_000_000
"""Query items of a user at most: in ranking everything that follows the support is relevant."""


@dataclass(frozen=True)
class RankingEpisodes(DomainEpisodes):
    """One domain's ranking episodes by the role of their users.

    Attributes:
        ranking_standards: the standardisation of their features.
        num_items: of the catalogue that test users' candidates come from.
    """

    ranking_standards: RankingStandards
    num_items: int


def build_ranking_episodes(
    domains: Mapping[str, Domain],
    target: str,
    settings: EpisodeSettings,
    ranking: RankingSettings,
    bases: Mapping[str, Mapping[str, Any]],
    *,
    seed: int = 0,
    cache: Path | None = None,
    jobs: int = 1,
    on_progress: Progress | None = None,
    roles: UserRoles | None = None,
) -> dict[str, RankingEpisodes]:
    """Ranking episodes of every domain, by the protocol of docs/honest.md.

    The candidates of a user come from bases that were fitted without the user. A relevant item that no base proposes
    is missed: it counts in :attr:`Episodes.relevant`, and is no candidate. Items that the bases were not fitted on are
    outside of the catalogue, and count nowhere. A user without a relevant item in the catalogue makes no episode.

    With `repeats: include`, the items of the support are candidates too, and those with a later event are relevant. The
    users and their supports are the same.

    Args:
        domains: tables with events (``feedback="implicit"``) by name; target: the one whose users are split first.
        settings: how episodes are cut; `max_query` is not used, because everything that follows the support is
            relevant. ranking: how lists are made.
        bases: name -> options of each ranking base, in the order of the tensors' axis.
        seed: of the split, of the draws, and of the bases.
        cache: a folder for lists; None caches nothing.
        jobs: worker processes; the result does not depend on it.
        on_progress: called after each fold, see :data:`Progress`.
        roles: the roles of the users; by default the users are split here.

    Raises:
        InputError: a domain with ratings in place of events, a catalogue of one item, users who all have every item, a
            domain with too few users who have enough events, several draws of a user, `repeats: include` without
            repeated events, or a name that breaks the rule of names.
    """
    check_name("the name of a domain", *domains)
    check_draws(settings)
    for domain in domains.values():
        check_domain(domain, ranking)
        check_choice(domain, settings)
    settings = settings.model_copy(update={"max_query": ALL})
    given, roles = roles, roles or assign_roles(domains, target, settings, seed)
    facts = {
        "domains": {name: domain.fingerprint() for name, domain in domains.items()},
        "target": target,
        "settings": settings.model_dump(),
        "ranking": ranking.model_dump(exclude={"positive"}),
        "bases": {name: dict(options) for name, options in bases.items()},
        "order": list(bases),
        "plug-ins": RANKING_BASES.code_of(bases),
        "seed": seed,
    }
    if given is not None:
        facts["roles"] = {"roles": dict(given.roles), "folds": dict(given.folds)}
    key = cache_key(facts)
    built = {}
    for name, domain in domains.items():
        tasks = ranking_tasks(domain, cut_tasks(domain, roles, settings, seed), repeats=ranking.repeats == "include")
        path = cache / f"{name}-ranking-{key}.npz" if cache else None
        arrays = load_arrays(path) if path else None
        if arrays is None:
            groups = _groups(domain, roles, tasks)
            arrays = lists_of_groups(
                domain, groups, tasks, ranking, bases, seed=seed, jobs=jobs, on_progress=on_progress
            )
            # The catalogue of validation and test users, which are the last group.
            arrays["catalogue"] = np.array(groups[-1][0].num_items)
            if path:
                save_arrays(path, arrays)
        kept, own = with_relevant(arrays)
        mine = [tasks[row] for row in kept]
        role = np.array([roles.roles[task.user] for task in mine], dtype=object)
        built[name] = episodes_of(domain, role, mine, own, ranking, tuple(bases), settings.damping)
    return built


def check_draws(settings: EpisodeSettings) -> None:
    """Raises :class:`InputError` for several draws of a user."""
    if settings.draws != 1:
        raise InputError(
            f"episodes.draws must be 1 for ranking but got {settings.draws}: what a user chose before a later draw "
            "would count as not relevant"
        )


def check_domain(domain: Domain, ranking: RankingSettings) -> None:
    """Raises :class:`InputError` for a domain that makes no lists."""
    if domain.feedback != "implicit":
        raise InputError(
            f'domain "{domain.name}": ranking episodes need events but the feedback is {domain.feedback}; '
            "use as_implicit()"
        )
    if ranking.repeats == "include":
        check_repeats(domain)


def with_relevant(arrays: Mapping[str, np.ndarray]) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """The places of the tasks with a relevant item in the catalogue, and their rows of all arrays."""
    kept = np.flatnonzero(arrays["relevant"] > 0)
    return kept, {key: values[kept] if values.ndim else values for key, values in arrays.items()}


def _groups(domain: Domain, roles: UserRoles, tasks: Sequence[RankingTask]) -> list[Group]:
    """The tasks by the fold of their users; validation and test users are the last group."""
    groups = []
    for fold in [*range(roles.num_folds), None]:
        own = [row for row, task in enumerate(tasks) if roles.folds.get(task.user) == fold]
        if own:
            groups.append((domain.without(roles.held_out(fold)), own))
    return groups


def lists_of_groups(
    domain: Domain,
    groups: Sequence[Group],
    tasks: Sequence[RankingTask],
    ranking: RankingSettings,
    bases: Mapping[str, Mapping[str, Any]],
    *,
    left_out: int | None = None,
    seed: int,
    jobs: int,
    on_progress: Progress | None,
) -> dict[str, np.ndarray]:
    """The arrays of :func:`make_tables` for all tasks, with codes of the domain's own items, and what is relevant.

    Args:
        groups: what the bases of some tasks are fitted on, and the places of these tasks. left_out: of the items of a
            history, only so many of the latest are left out in turn; by default all.
    """
    parts = []
    with worker_map(jobs) as run:
        answers = run(
            _fold_lists,
            [fit_on for fit_on, _ in groups],
            [bases] * len(groups),
            # The histories alone: what is relevant reaches no list.
            [[tasks[row].history for row in own] for _, own in groups],
            [{tasks[row].user for row in own} for _, own in groups],
            [ranking] * len(groups),
            [seed] * len(groups),
            [left_out] * len(groups),
        )
        for done, ((fit_on, own), found) in enumerate(zip(groups, answers, strict=True), start=1):
            codes = domain.item_index.get_indexer(fit_on.item_index)
            for side in ("query-items", "support-items"):
                found[side] = np.where(found[side] >= 0, codes[found[side]], -1).astype(np.int32)
            in_catalogue = [fit_on.item_index.get_indexer(tasks[row].relevant) >= 0 for row in own]
            found["relevant"] = np.array([int(known.sum()) for known in in_catalogue])
            parts.append((own, found))
            if on_progress:
                on_progress(done, len(groups), f"{domain.name}: lists")
    return {**_in_order(parts, len(tasks)), "most": np.array(ranking.candidates)}


def _fold_lists(
    fit_on: Domain,
    bases: Mapping[str, Mapping[str, Any]],
    histories: Sequence[UserHistory],
    users: set[str],
    ranking: RankingSettings,
    seed: int,
    left_out: int | None = None,
) -> dict[str, np.ndarray]:
    """Fit all bases on `fit_on`, which holds none of the users, and make the users' lists. Runs in a worker process."""
    held_out = users.intersection(fit_on.ratings["user"].unique())
    if held_out:
        raise AssertionError(f"ranking bases would be fitted on {len(held_out)} of the users that they predict")
    with one_thread():
        fitted = {name: fit_ranking_base(name, fit_on, options, seed=seed) for name, options in bases.items()}
        return make_tables(fitted, Catalogue.of(fit_on), histories, ranking, seed=seed, left_out=left_out)


def _in_order(parts: Sequence[tuple[list[int], dict[str, np.ndarray]]], count: int) -> dict[str, np.ndarray]:
    """The arrays of all groups in the order of the cuts; the second axis of lists is the longest of all."""
    paddings = {"items": -1, "scores": np.nan, "ranks": np.iinfo(np.int16).max, "percentiles": 0.5}
    whole = {}
    for name, first in parts[0][1].items():
        shape = list(first.shape)
        is_list = "-" in name
        if is_list:
            shape[1] = max(found[name].shape[1] for _, found in parts)
        whole[name] = np.full([count, *shape[1:]], paddings.get(name.partition("-")[2], 0), dtype=first.dtype)
        for own, found in parts:
            if is_list:
                whole[name][own, : found[name].shape[1]] = found[name]
            else:
                whole[name][own] = found[name]
    return whole


def episodes_of(
    domain: Domain,
    role: np.ndarray,
    tasks: Sequence[RankingTask],
    arrays: Mapping[str, np.ndarray],
    ranking: RankingSettings,
    base_names: tuple[str, ...],
    damping: float,
) -> RankingEpisodes:
    """The episodes of tasks with arrays of :func:`lists_of_groups`; role: [T] of each task."""
    ids = domain.item_index.to_numpy()
    priors = UserPriors.of(arrays["evidence"][role == "train"])
    of_role = {wanted: _of_role(arrays, role == wanted) for wanted in ROLES}
    sides = {wanted: _Sides.of(own, priors, damping) for wanted, own in of_role.items()}
    rows = of_role["train"]["query-items"] >= 0
    moments = Moments.of(sides["train"].query.algorithm[rows]), Moments.of(sides["train"].query.context[rows])

    def episodes(wanted: Role) -> Episodes:
        own, (support, query) = of_role[wanted], sides[wanted]
        mine = [tasks[row] for row in np.flatnonzero(role == wanted)]
        masks = {side: own[f"{side}-items"] >= 0 for side in ("query", "support")}
        targets = np.zeros(masks["query"].shape)
        for row, task in enumerate(mine):
            relevant = domain.item_index.get_indexer(task.relevant)
            targets[row] = np.isin(own["query-items"][row], relevant) & masks["query"][row]
        support_inputs = standard_inputs(support, *moments, own["support-targets"], masks["support"])
        return Episodes(
            domain=domain.name,
            scale=RatingScale(0, 1),
            base_names=base_names,
            feature_names=RANKING_FEATURE_NAMES,
            context_names=context_names(ranking),
            batch=EpisodeBatch(support_inputs, standard_inputs(query, *moments, targets, masks["query"])),
            users=np.array([task.user for task in mine], dtype=object),
            support_items=np.where(masks["support"], ids[own["support-items"]], ""),
            query_items=np.where(masks["query"], ids[own["query-items"]], ""),
            query_fallback=torch.from_numpy(query.fallback).float(),
            query_ratings=targets,
            relevant=own["relevant"],
        )

    standards = RankingStandards(priors, *moments, damping)
    return RankingEpisodes(
        episodes("train"),
        episodes("validation"),
        episodes("test"),
        ranking_standards=standards,
        num_items=int(arrays["catalogue"]),
    )


class _Sides(NamedTuple):
    support: Features
    query: Features

    @classmethod
    def of(cls, arrays: Mapping[str, np.ndarray], priors: UserPriors, damping: float) -> Self:
        return cls(support_side(arrays, priors), query_side(arrays, priors, damping=damping))


def _of_role(arrays: Mapping[str, np.ndarray], wanted: np.ndarray) -> dict[str, np.ndarray]:
    """The users' rows of all arrays, without the columns that are padding for all of them."""
    own = {name: values[wanted] if values.ndim else values for name, values in arrays.items()}
    for side in ("query", "support"):
        width = max(1, int((own[f"{side}-items"] >= 0).sum(1).max(initial=0)))
        for name in own:
            if name.startswith(f"{side}-"):
                own[name] = own[name][:, :width]
    return own
