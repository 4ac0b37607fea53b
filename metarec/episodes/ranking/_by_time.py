"""Ranking episodes by time: everything before a cut may be learned from, and what follows is tested."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from metarec.episodes._split import MIN_USERS, Role, UserRoles, cut_tasks, deal_folds
from metarec.episodes.ranking._build import (
    ALL,
    Group,
    RankingEpisodes,
    check_domain,
    check_draws,
    episodes_of,
    lists_of_groups,
    with_relevant,
)
from metarec.episodes.ranking._checks import check_choice
from metarec.episodes.ranking._tasks import RankingTask, UserHistory, ranking_tasks
from metarec.episodes.ranking.settings import RankingSettings
from metarec.episodes.settings import EpisodeSettings, Progress
from metarec.errors import InputError
from metarec.ratings import Domain

__all__ = ["TimedEpisodes", "build_timed_episodes"]


class TimedEpisodes(NamedTuple):
    """Episodes that are split by time.

    Attributes:
        episodes: test episodes are about what happens from `cut` on; train and validation episodes about what happens
            from `inner_cut` on, and before `cut`. A user may have a train and a test episode.
        warm: [T] whether a test user has events before the cut.
    """

    episodes: RankingEpisodes
    warm: np.ndarray
    inner_cut: float
    cut: float


def build_timed_episodes(
    domain: Domain,
    settings: EpisodeSettings,
    ranking: RankingSettings,
    bases: Mapping[str, Mapping[str, Any]],
    *,
    share: float = 0.8,
    seed: int = 0,
    jobs: int = 1,
    on_progress: Progress | None = None,
) -> TimedEpisodes:
    """Ranking episodes by a global cut in time.

    The cut is the time before which `share` of the events happen. A warm user has events before it: these are the
    history. Its latest `settings.shots` items are left out one after the other. All later items are relevant. A cold
    user has none: the first `settings.shots` items after the cut are the history. Both need
    `settings.min_query` later items. A second cut, at the same share of the events before the first one, makes train
    and validation episodes in the same way, from events before the first cut alone.

    No base is fitted on an event of the cut or after it. Nor is it fitted on a user that it predicts: warm users are
    dealt into `settings.folds` folds, and the bases of a fold are fitted on the users of the other ones.

    Args:
        domain: a table of events with times. settings: `test_fraction`, `max_query` and `draws` are not used.
        bases: name -> options of each ranking base. share: in (0, 1). seed: of draws, folds and bases.
        jobs, on_progress: as in :func:`build_ranking_episodes`.

    Raises:
        InputError: as :func:`build_ranking_episodes`; or a table without times, a share outside of (0, 1), or too few
            users with episodes on one side of the cut.
    """
    check_draws(settings)
    check_domain(domain, ranking)
    check_choice(domain, settings)
    if not 0 < share < 1:
        raise InputError(f"the share of the events before the cut must be in (0, 1) but got {share}")
    if not domain.has_timestamps:
        raise InputError(f'domain "{domain.name}": a split by time needs times, but the table has none')
    settings = settings.model_copy(update={"max_query": ALL})
    events = domain.single_events()
    cut = _time_at(events, share)
    inner_cut = _time_at(events[events["timestamp"] < cut], share)
    end = np.inf
    learned, tested = (
        _Stage.of(domain, events, *times, settings, ranking, seed) for times in ((inner_cut, cut), (cut, end))
    )
    for stage, what in ((learned, "before"), (tested, "after")):
        if len(stage.tasks) < MIN_USERS:
            raise InputError(
                f'domain "{domain.name}": {len(stage.tasks)} users have an episode {what} the cut in time, but '
                f"at least {MIN_USERS} are needed; give more events, or lower episodes.shots or episodes.min_query"
            )
    rng = np.random.default_rng([seed, 5])
    tasks = [*learned.tasks, *tested.tasks]
    held_out = rng.permutation(len(learned.tasks)) < max(1, round(settings.validation_fraction * len(learned.tasks)))
    roles: list[Role] = ["validation" if held else "train" for held in held_out]
    roles += ["test"] * len(tested.tasks)
    groups = [*learned.groups(settings, rng, 0), *tested.groups(settings, rng, len(learned.tasks))]
    arrays = lists_of_groups(
        domain, groups, tasks, ranking, bases, left_out=settings.shots, seed=seed, jobs=jobs, on_progress=on_progress
    )
    arrays["catalogue"] = np.array(tested.past.num_items)
    kept, own = with_relevant(arrays)
    episodes = episodes_of(
        domain,
        np.array(roles, dtype=object)[kept],
        [tasks[row] for row in kept],
        own,
        ranking,
        tuple(bases),
        settings.damping,
    )
    warm = np.array([user in tested.warm for user in episodes.test.users], dtype=bool)
    return TimedEpisodes(episodes, warm, inner_cut, cut)


class _Stage(NamedTuple):
    """The tasks about the events of one span of time, and the domain of the events before it.

    Attributes:
        past: what bases may be fitted on. warm: users with events in it.
    """

    past: Domain
    tasks: list[RankingTask]
    warm: frozenset[str]

    @classmethod
    def of(
        cls,
        domain: Domain,
        events: pd.DataFrame,
        start: float,
        end: float,
        settings: EpisodeSettings,
        ranking: RankingSettings,
        seed: int,
    ) -> _Stage:
        """The stage of the events from `start` on and before `end`."""
        past, known = (_domain_of(domain, events[events["timestamp"] < time]) for time in (start, end))
        later = events[(events["timestamp"] >= start) & (events["timestamp"] < end)]
        warm = frozenset(past.ratings["user"])
        repeats = ranking.repeats == "include"
        cold = known.without(warm)
        roles: dict[str, Role] = dict.fromkeys(cold.ratings["user"], "train")
        cuts = cut_tasks(cold, UserRoles(roles, {}, 0), settings, seed) if roles else []
        tasks = [
            *_warm_tasks(past, later, settings.min_query, repeats, seed),
            *ranking_tasks(cold, cuts, repeats=repeats),
        ]
        return cls(past, sorted(tasks, key=lambda task: task.user), warm)

    def groups(self, settings: EpisodeSettings, rng: np.random.Generator, first: int) -> list[Group]:
        """The tasks by the users that their bases are fitted without; the first task has the place `first`."""
        warm = [task.user for task in self.tasks if task.user in self.warm]
        folds = deal_folds(warm, min(settings.folds, max(len(warm), 1)), rng)
        found = []
        for fold in [*range(settings.folds), None]:
            own = [first + row for row, task in enumerate(self.tasks) if folds.get(task.user) == fold]
            if own:
                outside = {user for user, theirs in folds.items() if theirs == fold}
                found.append((self.past.without(outside), own))
        return found


def _warm_tasks(past: Domain, later: pd.DataFrame, least: int, repeats: bool, seed: int) -> Iterator[RankingTask]:
    """The tasks of users with a past and at least `least` relevant items later."""
    table = past.ratings.sort_values(["user", "item"], kind="stable")
    # Items of one time are in a drawn order, which depends on ids only.
    table = table.assign(draw=np.random.default_rng([seed, 1]).random(len(table)))
    table = table.sort_values(["user", "timestamp", "draw"], kind="stable")
    counts = np.ones(len(table), dtype=np.int64)
    if past.repeats is not None:
        several = past.repeats.groupby(["user", "item"]).size()
        found = several.reindex(pd.MultiIndex.from_frame(table[["user", "item"]])).to_numpy()
        counts = np.where(np.isnan(found), 1, found).astype(np.int64)
    items_later = later.groupby("user")["item"].unique()
    for user, own in table.assign(count=counts).groupby("user", sort=False):
        items = own["item"].to_numpy(dtype=object)
        relevant = np.sort(np.asarray(items_later.get(user, []), dtype=object))
        if not repeats:
            relevant = relevant[~np.isin(relevant.astype(str), items.astype(str))]
        if len(relevant) >= max(least, 1):
            yield RankingTask(
                str(user), UserHistory(items, own["weight"].to_numpy(), own["count"].to_numpy()), relevant
            )


def _domain_of(domain: Domain, events: pd.DataFrame) -> Domain:
    # Weights are added up again, so that a later event is in no sum.
    return Domain(domain.name, events, items=domain.items, users=domain.users, feedback="implicit")


def _time_at(events: pd.DataFrame, share: float) -> float:
    """The time of the event before which `share` of the events are, at most."""
    times = np.sort(events["timestamp"].to_numpy())
    return float(times[min(int(share * len(times)), len(times) - 1)]) if len(times) else -np.inf
