"""The whole way from rating tables to episodes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from metarec.bases._offsets import item_offsets
from metarec.episodes._batch import EpisodeBatch, FusionInputs
from metarec.episodes._cache import cache_key, load_arrays, save_arrays
from metarec.episodes._episodes import Episodes
from metarec.episodes._features import CONTEXT_NAMES, FEATURE_NAMES, Features, ItemFacts, Priors, Rows, make_features
from metarec.episodes._predictions import BasePredictions, base_predictions
from metarec.episodes._split import ROLES, Role, Task, UserRoles, assign_roles, cut_tasks
from metarec.episodes._workers import Map, worker_map
from metarec.episodes.settings import EpisodeSettings
from metarec.ratings import Domain

__all__ = ["DomainEpisodes", "build_episodes"]

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class DomainEpisodes:
    """One domain's episodes by the role of their users."""

    train: Episodes
    validation: Episodes
    test: Episodes


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
) -> dict[str, DomainEpisodes]:
    """Episodes of every domain, by the six points of the rule that makes the numbers true.

    Args:
        domains: the rating tables by name; target: the one whose users are split first.
        settings: how episodes are cut.
        bases: name -> options of each base recommender, in the order of the tensors' axis.
        seed: of the split, of the draws, and of the bases.
        cache: a folder for what took long; None keeps nothing.
        jobs: worker processes for fitting bases; the result does not depend on it.
        on_progress: called with (done, of how many, what) after each fit.

    Raises:
        InputError: a domain with too few users who have enough ratings.
    """
    roles = assign_roles(domains, target, settings, seed)
    facts = {
        "domains": {name: domain.fingerprint() for name, domain in domains.items()},
        "target": target,
        "settings": settings.model_dump(),
        "bases": {name: dict(options) for name, options in bases.items()},
        "order": list(bases),
        "seed": seed,
    }
    key = cache_key(facts)
    tasks = {name: cut_tasks(domain, roles, settings, seed) for name, domain in domains.items()}
    paths = {name: cache / f"{name}-{key}.npz" for name in domains} if cache else {}
    arrays = {name: stored for name, path in paths.items() if (stored := load_arrays(path)) is not None}
    missing = [name for name in domains if name not in arrays]
    if missing:
        with worker_map(jobs) as run:
            for name in missing:
                arrays[name] = _predict(domains[name], roles, tasks[name], settings, bases, seed, run, on_progress)
                if cache:
                    save_arrays(paths[name], arrays[name])
    return {
        name: _assemble(domain, roles, tasks[name], settings, tuple(bases), arrays[name])
        for name, domain in domains.items()
    }


def _predict(
    domain: Domain,
    roles: UserRoles,
    tasks: Mapping[str, tuple[Task, np.ndarray]],
    settings: EpisodeSettings,
    bases: Mapping[str, Mapping[str, Any]],
    seed: int,
    run: Map,
    on_progress: Progress | None,
) -> dict[str, np.ndarray]:
    """Everything that takes long, as padded arrays in the order of `tasks`: predictions and item facts."""
    order = {user: position for position, user in enumerate(tasks)}
    support = np.full((len(tasks), max(settings.shots, 1), len(bases)), np.nan)
    query = np.full((len(tasks), settings.max_query, len(bases)), np.nan)
    support_facts = np.zeros((4, len(tasks), max(settings.shots, 1)))
    query_facts = np.zeros((4, len(tasks), settings.max_query))

    groups: list[tuple[Domain, list[Task]]] = []
    for fold in [*range(roles.num_folds), None]:
        own = [task for user, (task, _) in tasks.items() if roles.folds.get(user) == fold]
        if own:
            fit_on = domain.without(roles.held_out(fold))
            groups.append((fit_on, own))
            facts = _item_facts(fit_on, settings.damping)
            for task in own:
                row = order[task.user]
                support_facts[:, row, : len(task.support_items)] = facts(task.support_items)
                query_facts[:, row, : len(task.query_items)] = facts(task.query_items)

    calls = [(group, base) for group in range(len(groups)) for base in range(len(bases))]
    names = list(bases)
    answers = run(
        base_predictions,
        [groups[group][0] for group, _ in calls],
        [names[base] for _, base in calls],
        [bases[names[base]] for _, base in calls],
        [seed] * len(calls),
        [groups[group][1] for group, _ in calls],
    )
    for done, ((group, base), answer) in enumerate(zip(calls, answers, strict=True), start=1):
        _store(answer, [order[task.user] for task in groups[group][1]], base, support, query)
        if on_progress:
            on_progress(done, len(calls), f"{domain.name}: {names[base]}")
    return {"support": support, "query": query, "support_facts": support_facts, "query_facts": query_facts}


def _store(answer: BasePredictions, rows: Sequence[int], base: int, support: np.ndarray, query: np.ndarray) -> None:
    for row, support_row, query_row in zip(rows, answer.support, answer.query, strict=True):
        support[row, : len(support_row), base] = support_row
        query[row, : len(query_row), base] = query_row


def _item_facts(fit_on: Domain, damping: float) -> Callable[[np.ndarray], np.ndarray]:
    """A function from [n] items to [4, n] facts (see :class:`ItemFacts`), learned from the ratings bases see."""
    codes, names = fit_on.ratings["item"].factorize(sort=True)
    unit = fit_on.scale.to_unit(fit_on.ratings["rating"].to_numpy())
    offsets = item_offsets(codes, unit, len(names), damping=damping)
    where = {item: code for code, item in enumerate(names)}
    table = np.stack([np.full(len(names), offsets.mean), offsets.offsets, offsets.counts, offsets.spreads])
    unknown = np.array([offsets.mean, 0.0, 0.0, 0.0])

    def facts(items: np.ndarray) -> np.ndarray:
        rows = [table[:, where[item]] if item in where else unknown for item in items]
        return np.array(rows).reshape(len(items), 4).T

    return facts


def _assemble(
    domain: Domain,
    roles: UserRoles,
    tasks: Mapping[str, tuple[Task, np.ndarray]],
    settings: EpisodeSettings,
    base_names: tuple[str, ...],
    arrays: Mapping[str, np.ndarray],
) -> DomainEpisodes:
    """Features and tensors. Statistics of any kind come from the train users' rows."""
    shots, scale = settings.shots, domain.scale
    users = np.array(list(tasks), dtype=object)
    role = np.array([roles.roles[user] for user in users], dtype=object)
    lengths = np.array([len(task.query_items) for task, _ in tasks.values()])
    width = int(lengths.max())
    unit = {side: np.clip(scale.to_unit(arrays[side].astype(np.float64)), 0.0, 1.0) for side in ("support", "query")}
    support_mask = np.broadcast_to(np.arange(max(shots, 1)) < shots, (len(users), max(shots, 1)))
    query_mask = np.arange(width) < lengths[:, None]
    support_items, support_ratings = _padded(
        [task.support_items for task, _ in tasks.values()],
        [scale.to_unit(task.support_ratings) for task, _ in tasks.values()],
        support_mask.shape[1],
    )
    query_items, query_ratings = _padded(
        [task.query_items for task, _ in tasks.values()], [ratings for _, ratings in tasks.values()], width
    )
    targets = scale.to_unit(query_ratings)
    support = Rows(unit["support"], ItemFacts(*arrays["support_facts"]), support_mask)
    query = Rows(unit["query"][:, :width], ItemFacts(*arrays["query_facts"][..., :width]), query_mask)

    train_rows = query_mask & (role == "train")[:, None]
    errors = np.abs(query.predictions - targets[..., None])[train_rows]
    said = np.isfinite(errors)
    # A base that never says anything on train users gets the error of a coin toss; its features are constant anyway.
    absolute_error = np.where(said.any(0), np.nansum(errors, 0) / np.maximum(said.sum(0), 1), 0.5)
    train_targets = [targets[row][query_mask[row]] for row in np.flatnonzero(role == "train")]
    priors = Priors(absolute_error, float(np.mean([ratings.var() for ratings in train_targets])))
    sides = make_features(support, support_ratings, query, priors, damping=settings.damping)
    scaled = [_standardised(side, sides[1], train_rows) for side in sides]

    def episodes(wanted: Role) -> Episodes:
        chosen = np.flatnonzero(role == wanted)
        return Episodes(
            domain=domain.name,
            scale=scale,
            base_names=base_names,
            feature_names=FEATURE_NAMES,
            context_names=CONTEXT_NAMES,
            batch=EpisodeBatch(
                _inputs(scaled[0], support_ratings, support_mask, chosen),
                _inputs(scaled[1], targets, query_mask, chosen),
            ),
            users=users[chosen],
            support_items=support_items[chosen],
            query_items=query_items[chosen],
            query_fallback=torch.from_numpy(sides[1].fallback[chosen]).float(),
            query_ratings=query_ratings[chosen],
        )

    return DomainEpisodes(*(episodes(wanted) for wanted in ROLES))


def _padded(items: Sequence[np.ndarray], ratings: Sequence[np.ndarray], width: int) -> tuple[np.ndarray, np.ndarray]:
    padded_items = np.full((len(items), width), "", dtype=object)
    padded_ratings = np.zeros((len(items), width))
    for row, (own_items, own_ratings) in enumerate(zip(items, ratings, strict=True)):
        padded_items[row, : len(own_items)] = own_items
        padded_ratings[row, : len(own_ratings)] = own_ratings
    return padded_items, padded_ratings


def _standardised(side: Features, reference: Features, train_rows: np.ndarray) -> Features:
    """Features with mean 0 and deviation 1 over the train users' query rows; what is constant there becomes 0."""

    def standardise(values: np.ndarray, known: np.ndarray) -> np.ndarray:
        mean, spread = known.mean(0), known.std(0)
        varies = spread > 1e-6
        # Far outside of what training saw a network only extrapolates; five deviations are far enough.
        return np.where(varies, np.clip((values - mean) / np.where(varies, spread, 1.0), -5, 5), 0.0)

    return side._replace(
        algorithm=standardise(side.algorithm, reference.algorithm[train_rows]),
        context=standardise(side.context, reference.context[train_rows]),
    )


def _inputs(side: Features, targets: np.ndarray, mask: np.ndarray, chosen: np.ndarray) -> FusionInputs:
    rows = mask[chosen]

    def tensor(values: np.ndarray, padding: float) -> torch.Tensor:
        kept = values[chosen]
        hidden = ~rows.reshape(rows.shape + (1,) * (kept.ndim - 2))
        return torch.from_numpy(np.where(hidden, padding, kept)).float()

    return FusionInputs(
        predictions=tensor(side.predictions, 0.5),
        algorithm_features=tensor(side.algorithm, 0.0),
        context=tensor(side.context, 0.0),
        targets=tensor(targets, 0.0),
        mask=torch.from_numpy(rows.copy()),
    )
