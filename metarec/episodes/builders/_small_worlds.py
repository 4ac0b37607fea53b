"""Domains cut down to a few users: bases are fitted on these and predict others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from metarec.bases import BASES
from metarec.episodes._assemble import PredictedTasks
from metarec.episodes._cache import cache_key, load_arrays, save_arrays
from metarec.episodes._few_users import Fit, draw_worlds
from metarec.episodes._item_facts import item_facts, task_facts
from metarec.episodes._predictions import BasePredictions, base_predictions
from metarec.episodes._split import Cut, Role, UserRoles, cut_tasks, roles_of
from metarec.episodes.builders._linked import Joined, Links
from metarec.episodes.settings import EpisodeSettings
from metarec.ratings import Domain
from metarec.workers import Map

__all__ = ["SmallWorld", "small_worlds"]


@dataclass(frozen=True)
class SmallWorld:
    """One domain cut down to a few train users. Made by :func:`small_worlds`.

    Attributes:
        fit_on: the few users' ratings, on which the bases were fitted.
        others: shots -> tasks of other users.
        train: shots -> tasks of the few users, each predicted by bases fitted without it; empty but for the first
            world.
    """

    fit_on: Domain
    others: Mapping[int, PredictedTasks]
    train: Mapping[int, PredictedTasks]


def small_worlds(
    domain: Domain,
    settings: EpisodeSettings,
    bases: Mapping[str, Mapping[str, Any]],
    roles: Mapping[str, Role],
    *,
    count: int,
    shots: Sequence[int],
    worlds: int = 1,
    elsewhere: Mapping[str, Domain] | None = None,
    seed: int = 0,
    cache: Path | None = None,
    run: Map = map,
) -> list[SmallWorld]:
    """Cut a domain down to `count` of its train users, several times over, and predict others from each world.

    Args:
        domain: as for :func:`cross_validate`; so are `settings`, `bases` and `shots`.
        roles: user -> role. Worlds are drawn from the train users who have enough ratings for every number of shots.
        worlds: the number of worlds. The first one predicts test users too, and does not depend on the others.
        elsewhere: name -> other domains in which the same users rated. They are used in full, without the validation
            and test users and the predicted users: a new domain has few users, the old ones all of theirs. None: users
            are not linked.
        seed: of the draws and the bases.
        cache: a folder for the arrays of each fit.
        run: like the built-in ``map``, for the fits.

    Raises:
        InputError: `count` is below two, or the domain has too few train users.
    """
    shots = tuple(sorted(set(shots)))
    outer, inner = draw_worlds(domain, settings, roles, count=count, shots=shots, worlds=worlds, seed=seed)
    cut_settings = {k: settings.model_copy(update={"shots": k}) for k in shots}
    cuts = {k: cut_tasks(domain, UserRoles(roles, {}, 0), cut_as, seed) for k, cut_as in cut_settings.items()}
    maker = _Maker(Links(domain, elsewhere), settings, bases, roles, cuts, seed, cache)
    made = maker.arrays([*outer, *inner], run)

    def predicted(
        fits: Sequence[Fit], arrays: Sequence[Mapping[int, Mapping[str, np.ndarray]]], k: int
    ) -> PredictedTasks:
        whole = {name: np.concatenate([part[k][name] for part in arrays]) for name in arrays[0][k]}
        tasks = [cut for fit in fits for cut in maker.cuts_of(fit)[k]]
        return PredictedTasks(domain, cut_settings[k], tuple(bases), roles_of(tasks, roles), tasks, whole)

    return [
        SmallWorld(
            domain.restrict(fit.users),
            {k: predicted([fit], made[world : world + 1], k) for k in shots},
            {k: predicted(inner, made[worlds:], k) for k in shots} if world == 0 else {},
        )
        for world, fit in enumerate(outer)
    ]


class _Maker:
    """Makes the arrays of each fit, base predictions and item facts, and caches them on disk."""

    def __init__(
        self,
        links: Links,
        settings: EpisodeSettings,
        bases: Mapping[str, Mapping[str, Any]],
        roles: Mapping[str, Role],
        cuts: Mapping[int, Sequence[Cut]],
        seed: int,
        cache: Path | None,
    ) -> None:
        self._domain = domain = links.domain
        self._links = links
        self._held_out = {user for user, role in roles.items() if role != "train"}
        self._settings = settings
        self._bases = bases
        self._cuts = cuts
        self._seed = seed
        self._cache = cache
        self._facts = {
            **links.facts(),
            **({"held_out": sorted(self._held_out)} if links.are_on else {}),
            "domain": domain.fingerprint(),
            "settings": settings.model_dump(exclude={"shots", "validation_fraction", "test_fraction", "folds"}),
            "bases": [[name, dict(options)] for name, options in bases.items()],
            "plug-ins": BASES.code_of(bases),
            "shots": list(cuts),
            "seed": seed,
        }

    def cuts_of(self, fit: Fit) -> dict[int, list[Cut]]:
        """Shots -> the tasks of the predicted users."""
        return {k: [cut for cut in cuts if cut.task.user in fit.predicted] for k, cuts in self._cuts.items()}

    def arrays(self, fits: Sequence[Fit], run: Map) -> list[dict[int, dict[str, np.ndarray]]]:
        """For each fit: shots -> the arrays of :class:`PredictedTasks`."""
        paths = [self._path(fit) for fit in fits]
        stored = [load_arrays(path) if path else None for path in paths]
        missing = [place for place, arrays in enumerate(stored) if arrays is None]
        fit_on = {place: self._domain.restrict(fits[place].users) for place in missing}
        joined = {place: self._joined(fits[place], fit_on[place]) for place in missing}
        tasks = {place: self.cuts_of(fits[place]) for place in missing}
        calls = [(place, name) for place in missing for name in self._bases]
        answers = iter(
            run(
                base_predictions,
                [joined[place].fit_on(name) for place, name in calls],
                [name for _, name in calls],
                [self._bases[name] for _, name in calls],
                [self._seed] * len(calls),
                [
                    joined[place].tasks(name, [cut for cuts in tasks[place].values() for cut in cuts])
                    for place, name in calls
                ],
            )
        )
        for place in missing:
            whole = self._tables([next(answers) for _ in self._bases], fit_on[place], joined[place], tasks[place])
            stored[place] = whole
            if path := paths[place]:
                save_arrays(path, whole)
        return [
            {
                k: {name.partition("-")[2]: table for name, table in whole.items() if name.startswith(f"{k}-")}
                for k in self._cuts
            }
            for whole in stored
            if whole is not None
        ]

    def _joined(self, fit: Fit, fit_on: Domain) -> Joined:
        return self._links.joined(fit_on, self._held_out | fit.predicted, self._settings.damping)

    def _path(self, fit: Fit) -> Path | None:
        if self._cache is None:
            return None
        key = cache_key({**self._facts, "users": sorted(fit.users), "predicted": sorted(fit.predicted)})
        return self._cache / f"{self._domain.name}-{len(fit.users)}-users-{key}.npz"

    def _tables(
        self, predictions: Sequence[BasePredictions], fit_on: Domain, joined: Joined, tasks: Mapping[int, Sequence[Cut]]
    ) -> dict[str, np.ndarray]:
        item_table = item_facts(fit_on, self._settings.damping)
        whole: dict[str, np.ndarray] = {}
        start = 0
        for k, cuts in tasks.items():
            end = start + len(cuts)
            widths = {"support": max(k, 1), "query": self._settings.max_query}
            tables = [base.part(start, end).padded(*widths.values()) for base in predictions]
            whole |= {f"{k}-{what}": np.stack([table[what] for table in tables], axis=-1) for what in tables[0]}
            facts = task_facts(item_table, cuts, *widths.values()) | joined.facts(cuts)
            whole |= {f"{k}-{side}": table for side, table in facts.items()}
            start = end
        return whole
