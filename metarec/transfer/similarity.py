"""The similarity of two domains: a score, and its parts.

Every part is in [0, 1], symmetric, and 1 for a domain with itself. A part that needs something shared (a base
recommender, a user, a feature) is left out where there is none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy.spatial.distance import jensenshannon
from scipy.stats import spearmanr
from torch.nn.functional import cosine_similarity

from metarec.episodes import DomainEpisodes, Episodes
from metarec.errors import InputError
from metarec.evaluation.measures import RANKING
from metarec.evaluation.metrics import base_unit_predictions
from metarec.meta import MetaLearner
from metarec.ratings import Domain
from metarec.transfer.strategies.gradient_based import gradient_of

__all__ = ["Similarity", "domain_similarity", "similarities"]

BINS = 20
"""Bins of the unit scale, shared by all domains; fine enough for half stars."""


@dataclass(frozen=True)
class Similarity:
    """The similarity of two domains.

    Attributes:
        score: in [0, 1], the mean of the parts; 1 for a domain with itself.
        parts: name -> similarity in one aspect, where it could be computed: ``ratings``, their distributions, in
            ranking those of what is relevant; ``base_errors``, the ranking of the bases by error;
            ``error_correlations``, the correlations of the bases' errors; ``features``, their means and spreads;
            ``gradients``, the direction of one meta-learning step; ``users``, the share of common users.
    """

    score: float
    parts: Mapping[str, float]


def domain_similarity(
    a: Domain | DomainEpisodes, b: Domain | DomainEpisodes, *, learner: MetaLearner | None = None
) -> Similarity:
    """The similarity of two domains, from their ratings or from the episodes of their train users.

    Only episodes allow the comparison of base errors and features. All ratings of a Domain are used: where a choice
    depends on the similarity, pass episodes, or a Domain without test users.

    Args:
        learner: its initial parameters are used to compare the gradients of the meta-loss; by default they are not.

    Raises:
        InputError: a domain without ratings or train users.

    >>> from metarec.ratings import simulate_domains
    >>> worlds = simulate_domains(seed=0, num_users=30)
    >>> domain_similarity(worlds["movies"], worlds["movies"]).score
    1.0
    """
    (ratings_a, users_a), (ratings_b, users_b) = _ratings_and_users(a), _ratings_and_users(b)
    parts = {"ratings": _rating_similarity(ratings_a, ratings_b)}
    if shared_users := _overlap(users_a, users_b):
        parts["users"] = shared_users
    if isinstance(a, DomainEpisodes) and isinstance(b, DomainEpisodes):
        parts |= _error_similarities(a.train, b.train) | _feature_similarity(a, b)
        if learner is not None:
            parts["gradients"] = _gradient_similarity(learner, a.train, b.train)
    return Similarity(float(np.mean(list(parts.values()))), parts)


def similarities(sources: Mapping[str, DomainEpisodes], target: Episodes) -> dict[str, float]:
    """Name -> the similarity of a source's train users and a target's few users, see :func:`domain_similarity`."""
    # Only train users are compared; the target has no statistics of unscaled features.
    return {
        name: domain_similarity(replace(source, train=target, standards=None), source).score
        for name, source in sources.items()
    }


def _ratings_and_users(domain: Domain | DomainEpisodes) -> tuple[np.ndarray, frozenset[str]]:
    """The ratings on the unit scale, and the users who gave them."""
    if isinstance(domain, Domain):
        domain = domain.rated()
        ratings, users = domain.scale.to_unit(domain.ratings["rating"].to_numpy()), domain.ratings["user"]
        name = domain.name
    else:
        ratings = np.concatenate([side.targets[side.mask].numpy() for side in domain.train.batch])
        users, name = domain.train.users, domain.train.domain
    if not len(ratings):
        raise InputError(f'domain "{name}" must have ratings of train users to be compared but has none')
    return ratings, frozenset(users)


def _rating_similarity(a: np.ndarray, b: np.ndarray) -> float:
    """1 - the Jensen-Shannon distance in base 2 (Endres and Schindelin 2003) of two sets of unit-scale ratings."""
    counts = [np.histogram(np.clip(ratings, 0, 1), bins=BINS, range=(0, 1))[0] for ratings in (a, b)]
    return float(1 - np.nan_to_num(jensenshannon(*counts, base=2)))


def _overlap(a: frozenset[str], b: frozenset[str]) -> float:
    """The share of the smaller domain's users who are also in the other one."""
    return len(a & b) / min(len(a), len(b))


def _error_similarities(a: Episodes, b: Episodes) -> dict[str, float]:
    """How similar the shared bases' ranks by error are, and the correlations of their errors."""
    shared = [name for name in a.base_names if name in b.base_names]
    if len(shared) < 2:
        return {}
    errors = [_base_errors(side, shared) for side in (a, b)]
    parts = {"base_errors": _rank_similarity(*(np.square(own).mean(0) for own in errors))}
    correlations = [_correlations(own) for own in errors]
    apart = np.abs(correlations[0] - correlations[1])[np.triu_indices(len(shared), 1)]
    return parts | {"error_correlations": float(1 - apart.mean() / 2)}


def _base_errors(episodes: Episodes, names: Sequence[str]) -> np.ndarray:
    """[rows, bases] errors on the unit scale, of the fallback where a base has no prediction.

    In ranking, [users, bases] errors of lists: the square root of 1 - nDCG@10.
    """
    if episodes.task == "ranking":
        lists = base_unit_predictions(episodes)
        values = np.stack([RANKING.user_sums(episodes, lists[name]) for name in names], axis=1)
        # Sums of discounts may be above the ideal one by rounding.
        return np.sqrt(np.maximum(1 - values, 0.0))
    query = episodes.batch.query
    places = [episodes.base_names.index(name) for name in names]
    own = query.predictions[..., places]
    predictions = torch.where(own.isfinite(), own, episodes.query_fallback.unsqueeze(-1).to(own.dtype))
    return (predictions - query.targets.unsqueeze(-1))[query.mask].double().numpy()


def _rank_similarity(a: np.ndarray, b: np.ndarray) -> float:
    """Spearman's correlation, mapped from [-1, 1] to [0, 1]; two constant vectors have 1, and one has 0.5."""
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        return 1.0 if np.ptp(a) == np.ptp(b) else 0.5
    return float((1 + spearmanr(a, b).statistic) / 2)


def _correlations(errors: np.ndarray) -> np.ndarray:
    """[bases, bases]; 0 with a base whose error is constant."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.nan_to_num(np.corrcoef(errors, rowvar=False))


def _feature_similarity(a: DomainEpisodes, b: DomainEpisodes) -> dict[str, float]:
    """The overlap of features of the same name, taken as normally distributed."""
    if a.standards is None or b.standards is None:
        return {}
    values = [_moments(side) for side in (a, b)]
    shared = [name for name in values[0] if name in values[1]]
    if not shared:
        return {}
    return {"features": float(np.mean([_overlap_of_normals(values[0][name], values[1][name]) for name in shared]))}


def _moments(domain: DomainEpisodes) -> dict[tuple[str, ...], tuple[float, float]]:
    """Name -> mean and spread of each feature before standardisation."""
    assert domain.standards is not None
    algorithm, context, names = domain.standards.algorithm, domain.standards.context, domain.train
    found: dict[tuple[str, ...], tuple[float, float]] = {}
    for row, base in enumerate(names.base_names):
        for column, feature in enumerate(names.feature_names):
            found[base, feature] = float(algorithm.mean[row, column]), float(algorithm.spread[row, column])
    for column, feature in enumerate(names.context_names):
        found[("", feature)] = float(context.mean[column]), float(context.spread[column])
    return found


def _overlap_of_normals(a: tuple[float, float], b: tuple[float, float]) -> float:
    """Bhattacharyya's coefficient (1943) of two normal distributions; 1 where they are the same, 0 far apart."""
    (mean_a, spread_a), (mean_b, spread_b) = a, b
    total = spread_a**2 + spread_b**2
    if total == 0:
        return float(mean_a == mean_b)
    return float(np.sqrt(2 * spread_a * spread_b / total) * np.exp(-((mean_a - mean_b) ** 2) / (4 * total)))


def _gradient_similarity(learner: MetaLearner, a: Episodes, b: Episodes) -> float:
    """The cosine of the two gradients of the meta-loss, mapped to [0, 1]; 0.5 where just one is zero."""
    parameters = [parameter for parameter in learner.network.parameters() if parameter.requires_grad]
    one, other = (gradient_of(learner.meta_loss(episodes.batch), parameters).double() for episodes in (a, b))
    if torch.equal(one, other):
        return 1.0
    return float((1 + cosine_similarity(one, other, dim=0).clamp(-1, 1)) / 2)
