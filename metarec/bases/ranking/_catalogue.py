"""The ranking bases by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from metarec.bases._base import base_errors
from metarec.bases._catalogue import made
from metarec.bases.ranking._base import RankingBase
from metarec.errors import InputError
from metarec.ratings import Domain
from metarec.registry import Registry

__all__ = ["RANKING_BASES", "applicable_ranking_bases", "fit_ranking_base", "make_ranking_base"]

RANKING_BASES = Registry(
    "ranking base",
    "metarec.ranking_bases",
    {
        "popularity": "metarec.bases.ranking.popularity:Popularity",
        "item-knn": "metarec.bases.ranking.item_knn:ItemKNN",
        "user-knn": "metarec.bases.ranking.user_knn:UserKNN",
        "ials": "metarec.bases.ranking.ials:ImplicitALS",
        "ease": "metarec.bases.ranking.ease:Ease",
        "content": "metarec.bases.ranking.content:Content",
        "next-item": "metarec.bases.ranking.next_item:NextItem",
        "vae": "metarec.bases.ranking.vae:MultinomialVAE",
    },
)


def make_ranking_base(name: str, *, seed: int = 0, **options: Any) -> RankingBase:
    """Build a ranking base by name. `seed` is passed to those with random draws.

    >>> make_ranking_base("ease", penalty=50.0, max_items=1000)
    Ease(penalty=50.0, max_items=1000, weights='binary')

    Raises:
        InputError: an unknown name (the near miss is suggested) or a setting out of its range; or its constructor
            raised an error.
    """
    base: RankingBase = made(RANKING_BASES, name, seed, options)
    return base


def fit_ranking_base(name: str, domain: Domain, options: Mapping[str, Any], seed: int = 0) -> RankingBase:
    """Build a ranking base by name, and fit it on `domain`.

    Raises:
        InputError: as for :func:`make_ranking_base`; or the domain's feedback is not implicit; or the base raised an
            error.
    """
    if domain.feedback != "implicit":
        raise InputError(
            f'domain "{domain.name}": a ranking base needs implicit feedback but got {domain.feedback}; '
            "use domain.as_implicit()"
        )
    with base_errors(name, f'domain "{domain.name}"'):
        return make_ranking_base(name, seed=seed, **options).fit(domain)


def applicable_ranking_bases(names: list[str], domains: list[Domain]) -> list[str]:
    """The ranking bases that can be fitted: what a base needs, at least one domain must have."""
    has = {
        "items": any(domain.items is not None for domain in domains),
        "timestamps": any(domain.has_timestamps for domain in domains),
        None: True,
    }
    return [name for name in names if has[RANKING_BASES.get(name).needs]]
