"""The task and the data of a comparison, from the options of its command."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from pydantic import ValidationError

from metarec.config import explained
from metarec.episodes.ranking import RankingSettings
from metarec.errors import InputError, shown
from metarec.fusion import Task
from metarec.plain import assign
from metarec.ratings import Domain, simulate_domains, simulate_implicit_domains
from metarec.ratings.settings import ReadingSettings

__all__ = ["SIMULATED_TARGETS", "ComparisonSettings", "settings_of", "simulated", "task_of"]

SIMULATED_TARGETS: Mapping[Task, str] = {"rating": "movies", "ranking": "shop"}
"""The target of the simulated world of each task."""

SHOPS = ("shop", "market", "store")


class ComparisonSettings(ReadingSettings):
    """What ``--set`` can change in a comparison."""

    ranking: RankingSettings = RankingSettings()
    "How lists are made."


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


def settings_of(assignments: Sequence[str], domains: Collection[str]) -> ComparisonSettings:
    """The settings from ``KEY=VALUE`` of ``--set``.

    Args:
        domains: names of those that are read.

    Raises:
        InputError: another key, or a value that breaks its rule.
    """
    content: dict[str, Any] = {}
    for assignment in assignments:
        assign(content, assignment)
    try:
        settings = ComparisonSettings.model_validate(content)
        settings.check_columns(domains)
    except ValidationError as error:
        raise InputError(f"--set {shown(explained(error, ComparisonSettings), 700)}") from None
    except InputError as error:
        raise InputError(f"--set {error}") from None
    return settings
