"""Simulated domains in which different recommenders are best for different users."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd

from metarec.errors import InputError
from metarec.ratings._domain import Domain, RatingScale

__all__ = ["SIGNALS", "SimulatedWorld", "simulate_domains", "simulate_world"]

SIGNALS = ("crowd", "factors", "genres", "herd")
"""The signals behind ratings; a user's mixture of them decides which recommender predicts that user best."""


class _Kind(NamedTuple):
    """The parameters of one domain: its scale, the step between ratings, the mean rating on the unit scale, genres."""

    scale: RatingScale
    step: float
    mean: float
    genres: tuple[str, ...]


_KINDS = {
    "movies": _Kind(
        RatingScale(0.5, 5), 0.5, 0.62, ("action", "comedy", "crime", "drama", "fantasy", "horror", "romance", "war")
    ),
    "books": _Kind(
        RatingScale(1, 5), 1.0, 0.65, ("classic", "crime", "essay", "fantasy", "history", "poetry", "science", "travel")
    ),
    "music": _Kind(
        RatingScale(0, 10), 1.0, 0.58, ("blues", "classical", "folk", "jazz", "metal", "pop", "rap", "soul")
    ),
}

CONCENTRATION = 0.2
"""Of the Dirichlet of mixtures; below 1 one signal dominates for most users."""
NUM_FACTORS = 2
NUM_COMMUNITIES = 5
BIAS = 0.35
SPREAD = 0.2
FEWEST_RATINGS = 15
_DAY = 86_400


@dataclass(frozen=True, eq=False)
class SimulatedWorld:
    """The simulated domains and their latent variables.

    Attributes:
        domains: name -> domain.
        tastes: columns ``user`` and one for each of `SIGNALS`: the user's mixture, which sums to 1.
        signals: name -> a table with a column for each of `SIGNALS` and a row for each rating of the domain, in the
            same order: the signal's value for that user and item, with mean 0 and variance 1 over items.
    """

    domains: dict[str, Domain]
    tastes: pd.DataFrame
    signals: dict[str, pd.DataFrame]


def simulate_domains(
    seed: int = 0,
    *,
    num_users: int = 300,
    num_items: int = 250,
    ratings_per_user: int = 45,
    shared: float = 0.4,
    noise: float = 0.4,
) -> dict[str, Domain]:
    """The domains of `simulate_world`: movies (0.5..5 in halves), books (1..5) and music (0..10).

    >>> {name: str(domain.scale) for name, domain in simulate_domains(seed=0).items()}
    {'movies': '0.5..5', 'books': '1..5', 'music': '0..10'}
    """
    world = simulate_world(
        seed, num_users=num_users, num_items=num_items, ratings_per_user=ratings_per_user, shared=shared, noise=noise
    )
    return world.domains


def simulate_world(
    seed: int = 0,
    *,
    num_users: int = 300,
    num_items: int = 250,
    ratings_per_user: int = 45,
    shared: float = 0.4,
    noise: float = 0.4,
) -> SimulatedWorld:
    r"""Draw three domains, movies, books and music, that share some users, from a latent model.

    For every user u, once for all domains::

        mixture     w_u  ~ Dirichlet(0.2, 0.2, 0.2, 0.2)     over crowd, factors, genres, herd
        bias        b_u  ~ Normal(0, 0.35²)
        tastes      p_u  ~ Normal(0, I_2)
        community   k_u  ~ Uniform{1..5}

    For every domain d, its items i and its users::

        quality       q_i  ~ Normal(0, 1)
        factors       v_i  ~ Normal(0, I_2)
        genres        G_i    1 to 3 of 8 genres, as 0/1
        genre weights h_u  ~ Normal(0, I_8)                   independent of p_u and of other domains
        opinions      c_ki ~ Normal(0, 1)                     opinion of community k on item i

        s_crowd(u, i) = q_i     s_factors = p_u·v_i     s_genres = h_u·G_i     s_herd = c_{k_u, i}

        z_ui = b_u + Σ_s sqrt(w_us) · std_i(s_s(u, i)) + noise · ε_ui,      ε_ui ~ Normal(0, 1)
        rating = round(scale.low + span · clip(mean_d + 0.2 · z_ui, 0, 1)) to the domain's step

    ``std_i`` standardises over the domain's items, so every signal has the same variance, and the square root keeps
    that of their mixture near 1 for every user. A bias model fits the crowd, matrix factorisation the factors, a
    content model the genres, neighbourhood models the herd.

    User u rates n_u items, lognormal around `ratings_per_user` and at least 15 (long-tailed activity), drawn without
    replacement with probability proportional to 1 / (rank_i + 10) of a random ranking (long-tailed popularity). A user
    starts on a random day of 2015 to 2018 and rates in random order with exponential gaps.

    Args:
        seed: the same seed gives the same tables, byte for byte.
        num_users: users of each domain.
        num_items: items of each domain; each has the features ``genres`` (``"drama|war"``) and ``year``.
        ratings_per_user: mean number of ratings of a user in a domain.
        shared: the least share of a domain's users who are users of all three domains, under the same ids.
        noise: standard deviation of the noise; that of each signal is 1.

    Raises:
        InputError: an argument out of its range.
    """
    _check(num_users, num_items, ratings_per_user, shared, noise)
    rng = np.random.default_rng([seed, 0])
    num_shared = round(shared * num_users)
    num_own = num_users - num_shared
    total = num_shared + len(_KINDS) * num_own
    names = np.array([f"u{number:04d}" for number in rng.permutation(total)], dtype=object)
    people = _People(
        mixture=rng.dirichlet(np.full(len(SIGNALS), CONCENTRATION), total),
        bias=BIAS * rng.standard_normal(total),
        tastes=rng.standard_normal((total, NUM_FACTORS)),
        community=rng.integers(NUM_COMMUNITIES, size=total),
    )
    domains, signals = {}, {}
    for position, (name, kind) in enumerate(_KINDS.items()):
        first = num_shared + position * num_own
        members = np.concatenate([np.arange(num_shared), np.arange(first, first + num_own)])
        drawn = _draw_domain(
            kind,
            people.select(members),
            num_items=num_items,
            ratings_per_user=ratings_per_user,
            noise=noise,
            rng=np.random.default_rng([seed, position + 1]),
        )
        items = np.array([f"{name[0]}{number:03d}" for number in range(num_items)], dtype=object)
        ratings = pd.DataFrame(
            {
                "user": names[members][drawn.users],
                "item": items[drawn.items],
                "rating": drawn.ratings,
                "timestamp": drawn.timestamps,
            }
        )
        features = pd.DataFrame({"item": items, "genres": drawn.genres, "year": drawn.years})
        domains[name] = Domain(name, ratings, kind.scale, features)
        signals[name] = pd.DataFrame(drawn.signals, columns=list(SIGNALS))
    tastes = pd.DataFrame({"user": names, **dict(zip(SIGNALS, people.mixture.T, strict=True))})
    return SimulatedWorld(domains, tastes.sort_values("user", ignore_index=True), signals)


class _People(NamedTuple):
    """The users' variables in all domains: [U, 4] mixtures, [U] biases, [U, 2] tastes, [U] communities."""

    mixture: np.ndarray
    bias: np.ndarray
    tastes: np.ndarray
    community: np.ndarray

    def select(self, members: np.ndarray) -> _People:
        return _People(*(values[members] for values in self))


class _Drawn(NamedTuple):
    """R ratings of one domain: [R] user and item positions, ratings, seconds; [R, 4] signals; [I] item features."""

    users: np.ndarray
    items: np.ndarray
    ratings: np.ndarray
    timestamps: np.ndarray
    signals: np.ndarray
    genres: list[str]
    years: np.ndarray


def _draw_domain(
    kind: _Kind, people: _People, *, num_items: int, ratings_per_user: int, noise: float, rng: np.random.Generator
) -> _Drawn:
    num_users = len(people.bias)
    has_genre = _draw_genres(num_items, len(kind.genres), rng)
    signals = np.stack(
        [
            _standardised(np.tile(rng.standard_normal(num_items), (num_users, 1))),
            _standardised(people.tastes @ rng.standard_normal((NUM_FACTORS, num_items))),
            _standardised(rng.standard_normal((num_users, len(kind.genres))) @ has_genre.T),
            _standardised(rng.standard_normal((NUM_COMMUNITIES, num_items)))[people.community],
        ],
        axis=-1,
    )
    users, items, timestamps = _draw_events(num_users, num_items, ratings_per_user, rng)
    values = signals[users, items]
    mixed = (np.sqrt(people.mixture[users]) * values).sum(-1)
    latent = people.bias[users] + mixed + noise * rng.standard_normal(len(users))
    unit = np.clip(kind.mean + SPREAD * latent, 0, 1)
    ratings = kind.scale.low + kind.step * np.round(kind.scale.span * unit / kind.step)
    names = ["|".join(genre for genre, has in zip(kind.genres, row, strict=True) if has) for row in has_genre]
    years = rng.integers(1950, 2015, num_items).astype(np.float64)
    return _Drawn(users, items, ratings, timestamps, values, names, years)


def _draw_genres(num_items: int, num_genres: int, rng: np.random.Generator) -> np.ndarray:
    """[I, G] 0/1 with one to three ones a row."""
    order = rng.random((num_items, num_genres)).argsort(axis=1).argsort(axis=1)
    return (order < rng.integers(1, 4, size=(num_items, 1))).astype(np.float64)


def _draw_events(
    num_users: int, num_items: int, ratings_per_user: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The rating events: [R] user positions, item positions, seconds, ordered by user and time."""
    popularity = 1.0 / (rng.permutation(num_items) + 10.0)
    popularity /= popularity.sum()
    sigma = 0.8
    extra = (ratings_per_user - FEWEST_RATINGS) * rng.lognormal(-(sigma**2) / 2, sigma, num_users)
    counts = np.minimum(FEWEST_RATINGS + np.round(extra), num_items).astype(np.int64)
    users, items, times = [], [], []
    first_day = 1_420_070_400
    for user, count in enumerate(counts):
        users.append(np.full(count, user))
        items.append(rng.choice(num_items, size=count, replace=False, p=popularity))
        start = first_day + rng.integers(4 * 365 * _DAY)
        times.append(start + np.cumsum(1 + rng.exponential(_DAY, count).astype(np.int64)))
    return np.concatenate(users), np.concatenate(items), np.concatenate(times)


def _standardised(signal: np.ndarray) -> np.ndarray:
    return (signal - signal.mean(-1, keepdims=True)) / signal.std(-1, keepdims=True)


def _check(num_users: int, num_items: int, ratings_per_user: int, shared: float, noise: float) -> None:
    rules: Sequence[tuple[str, float, bool, str]] = (
        ("num_users", num_users, num_users >= 2, ">= 2"),
        ("num_items", num_items, num_items >= FEWEST_RATINGS, f">= {FEWEST_RATINGS}"),
        (
            "ratings_per_user",
            ratings_per_user,
            FEWEST_RATINGS <= ratings_per_user <= num_items,
            f"between {FEWEST_RATINGS} and num_items = {num_items}",
        ),
        ("shared", shared, 0 <= shared <= 1, "between 0 and 1"),
        ("noise", noise, 0 <= noise < np.inf, "finite and >= 0"),
    )
    for name, value, holds, rule in rules:
        if not holds:
            raise InputError(f"{name} must be {rule} but got {value}")
