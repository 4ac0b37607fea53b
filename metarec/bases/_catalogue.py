"""The base recommenders by name."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from metarec.bases._base import BaseRecommender, Configured, base_errors
from metarec.errors import InputError
from metarec.ratings import Domain
from metarec.registry import Registry

__all__ = ["BASES", "applicable_bases", "fit_base", "make_base"]

BASES = Registry(
    "base recommender",
    "metarec.bases",
    {
        "bias": "metarec.bases.lenskit:BiasRecommender",
        "item-knn": "metarec.bases.lenskit:ItemKNNRecommender",
        "user-knn": "metarec.bases.lenskit:UserKNNRecommender",
        "biased-mf": "metarec.bases.lenskit:BiasedMFRecommender",
        "bayesian-mf": "metarec.bases.bayesian:BayesianMFRecommender",
        "content": "metarec.bases.content:ContentRecommender",
        "autoencoder": "metarec.bases.autoencoder:AutoencoderRecommender",
    },
)


def make_base(name: str, *, seed: int = 0, **options: Any) -> BaseRecommender:
    """Build a base recommender by name. `seed` is passed to those with random draws.

    >>> make_base("bias", damping=3.0)
    BiasRecommender(damping=3.0)

    Raises:
        InputError: an unknown name (the near miss is suggested) or a setting out of its range; or its constructor
            raised an error.
    """
    base: BaseRecommender = made(BASES, name, seed, options)
    return base


def made(registry: Registry, name: str, seed: int, options: Mapping[str, Any]) -> Any:
    """An object of a registry's kind with these options. `seed` is passed to those with such a setting."""
    kind = registry.get(name)
    if isinstance(kind, type) and issubclass(kind, Configured) and "seed" in kind.Config.model_fields:
        options = {"seed": seed, **options}
    try:
        inspect.signature(kind).bind(**options)
    except TypeError as error:
        raise InputError(f"bases.{name}: {kind.__name__} has other options: {error}") from None
    with base_errors(name, "its options"):
        return kind(**options)


def fit_base(name: str, domain: Domain, options: Mapping[str, Any], *, seed: int = 0) -> BaseRecommender:
    """Build a base recommender by name, and fit it on `domain`.

    Raises:
        InputError: as for :func:`make_base`; or the base raised an error.
    """
    with base_errors(name, f'domain "{domain.name}"'):
        return make_base(name, seed=seed, **options).fit(domain)


def applicable_bases(names: list[str], domains: list[Domain]) -> list[str]:
    """The bases that can be fitted: `content` needs item features in at least one domain."""
    has_items = any(domain.items is not None for domain in domains)
    return [name for name in names if has_items or name != "content"]
