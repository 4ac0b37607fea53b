"""The task and the data of a comparison, from the options of its command."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import yaml
from pydantic import ValidationError

from metarec.episodes.ranking import RankingSettings
from metarec.errors import InputError, shown
from metarec.fusion import Task
from metarec.ratings import Domain, simulate_domains, simulate_implicit_domains
from metarec.registry import suggest

__all__ = ["SIMULATED_TARGETS", "ranking_settings", "simulated", "task_of"]

SIMULATED_TARGETS: Mapping[Task, str] = {"rating": "movies", "ranking": "shop"}
"""The target of the simulated world of each task."""

SHOPS = ("shop", "market", "store")
PREFIX = "ranking."


def simulated(task: str | None) -> dict[str, Domain]:
    """The simulated domains of a task: three with ratings, or three shops with users of their own."""
    if task != "ranking":
        return simulate_domains(seed=0)
    shops = {}
    for seed, name in enumerate(SHOPS):
        (domain,) = simulate_implicit_domains(seed, num_users=200, num_items=150).values()
        shops[name] = replace(domain, name=name, ratings=domain.ratings.assign(user=name + domain.ratings["user"]))
    return shops


def task_of(task: str | None, domains: Mapping[str, Domain], target: str | None) -> Task:
    """The task: by default ratings, or a ranking where the target has only events."""
    if task is None:
        return "ranking" if target and target in domains and domains[target].feedback == "implicit" else "rating"
    return "ranking" if task == "ranking" else "rating"


def ranking_settings(assignments: Sequence[str]) -> RankingSettings:
    """The settings of lists from ``ranking.NAME=VALUE`` of ``--set``.

    Raises:
        InputError: another key, or a value that breaks its rule.
    """
    values = {}
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals:
            raise InputError(f'--set must be KEY=VALUE but got "{shown(assignment)}"')
        known = [f"{PREFIX}{name}" for name in RankingSettings.model_fields]
        if key not in known:
            raise InputError(f'--set: unknown key "{shown(key)}"; {suggest(key, known)}')
        try:
            values[key.removeprefix(PREFIX)] = yaml.safe_load(text)
        except yaml.YAMLError:
            raise InputError(f'--set {key} must be a number but got "{shown(text)}"') from None
    try:
        return RankingSettings(**values)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        raise InputError(f"--set {PREFIX}{name}: {first['msg']}, but got {shown(repr(first['input']))}") from None
