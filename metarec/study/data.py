"""The domains of a study, their facts, its target, and the identity of its data and settings."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
from typing import Any

import pandas as pd

from metarec.episodes.ranking import check_choice
from metarec.errors import InputError
from metarec.ratings import Domain, rated_domains, simulate_domains, simulate_implicit_domains
from metarec.registry import suggest
from metarec.study.spec import SIMULATED, SIMULATED_EVENTS, StudySpec

__all__ = ["FREE", "IN_MEMORY", "choose_target", "data_of", "domains_of", "identity_of", "read_data", "settled"]

IN_MEMORY = "DataFrame"
"""What a spec has as the path of a table that was a DataFrame."""


def read_data(spec: StudySpec, frames: Mapping[str, pd.DataFrame] | None = None) -> dict[str, Domain]:
    """Read and check the domains of a spec.

    Args:
        frames: the tables of domains that have no file.

    Raises:
        InputError: a file, a row or a name is wrong.
    """
    if isinstance(spec.domains, str):
        worlds = {SIMULATED: simulate_domains, SIMULATED_EVENTS: simulate_implicit_domains}
        if spec.domains not in worlds:
            names = " or ".join(f'"{name}"' for name in worlds)
            raise InputError(f'domains must be {names} or a mapping NAME: PATH but got "{spec.domains}"')
        return worlds[spec.domains](spec.seed)
    domains = {}
    for name, path in spec.domains.items():
        table = (frames or {}).get(name, path)
        if isinstance(table, str) and table == IN_MEMORY:
            raise InputError(
                f'domain "{name}" was a DataFrame, which no file has; save its rows and give their path: '
                f"--data {name}=PATH"
            )
        domains[name] = spec.read(table, name)
    return domains


def settled(spec: StudySpec, domains: Mapping[str, Domain]) -> StudySpec:
    """The spec with its target and its task, which may depend on the domains.

    Raises:
        InputError: as in :func:`choose_target`, or a key does not fit the task.
    """
    target = choose_target(spec, domains)
    task = spec.task or ("ranking" if domains[target].feedback == "implicit" else "rating")
    try:
        return spec.for_task(task).model_copy(update={"target": target})
    except InputError as error:
        if spec.task is not None or task == "rating":
            raise
        raise InputError(
            f'domain "{target}" has only events, so that the task is ranking, but {error}; use the spec ranking'
        ) from None


def domains_of(spec: StudySpec, domains: Mapping[str, Domain]) -> dict[str, Domain]:
    """The domains as the task of the spec reads them: their ratings, or their events.

    Raises:
        InputError: a domain without ratings, `ranking.positive` does not fit its scale, or there is nothing to rank
            (:func:`~metarec.episodes.ranking.check_choice`).
    """
    if spec.task != "ranking":
        return rated_domains(domains)
    events = {name: domain.as_implicit(spec.ranking.positive) for name, domain in domains.items()}
    for domain in events.values():
        check_choice(domain, spec.episodes)
    return events


def choose_target(spec: StudySpec, domains: Collection[str]) -> str:
    """The target's name; a single domain is the target.

    Raises:
        InputError: several domains without a target, or an unknown target.
    """
    if spec.target is None:
        if len(domains) == 1:
            return next(iter(domains))
        raise InputError(f"--target must say which of the domains is the target: {', '.join(domains)}")
    if spec.target not in domains:
        raise InputError(f'--target "{spec.target}" is not one of the domains; {suggest(spec.target, domains)}')
    return spec.target


def data_of(domains: Mapping[str, Domain]) -> list[dict[str, Any]]:
    """A line for each domain: its counts, its scale, and the hash of its content."""
    return [
        {
            "domain": name,
            "users": domain.num_users,
            "items": domain.num_items,
            "ratings": len(domain.ratings),
            "scale": domain.feedback if domain.scale is None else str(domain.scale),
            "fingerprint": domain.fingerprint(),
        }
        for name, domain in domains.items()
    ]


FREE = frozenset(
    {"name", "description", "trials", "workers", "timeout", "domains", "sampler", "warm_start", "cross_fit"}
)
"""Keys that may change when a study continues."""


def identity_of(spec: StudySpec, domains: Mapping[str, Domain]) -> str:
    """A hash of everything that makes trials comparable, such as data and settings, but not their number."""
    ignored = set(FREE)
    # Studies that were begun before these keys existed can continue.
    if spec.transfer is None:
        ignored.add("transfer")
    if len(spec.objectives) == 1:
        ignored.add("objectives")
    if spec.task != "ranking":
        ignored |= {"task", "ranking"}
    if spec.protocol == "cold":
        ignored |= {"protocol", "held_out"}
    if not spec.tune_bases:
        ignored.add("tune_bases")
    ignored |= {key for key in ("event_weights", "missing", "encoding") if not getattr(spec, key)}
    settings = spec.model_dump(mode="json", exclude=ignored)
    data = {name: domain.fingerprint() for name, domain in domains.items()}
    return hashlib.sha256(json.dumps([settings, data], sort_keys=True).encode()).hexdigest()
