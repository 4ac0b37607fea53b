"""Small random episodes of ranking."""

import numpy as np
import torch

from metarec.episodes import DomainEpisodes, EpisodeBatch, Episodes, FusionInputs
from metarec.ratings import RatingScale

FEATURES = ("score", "discount", "proposed", "percentile", "support_percentile", "support_discount")
CONTEXTS = 10


def ranking_episodes(
    tasks=60,
    candidates=40,
    bases=3,
    seed=0,
    *,
    signal=1.5,
    noise=1.0,
    shots=4,
    sampled=3,
    missed=0.3,
    silent=0.0,
    others=0.25,
):
    """Episodes in which one base is better for some users, and the support rows show it.

    A relevant candidate has a score that is higher by `signal` in the base that suits its user, and by a share
    of it in the other ones. Base 0 suits half of the users, and the others share the rest.

    Args:
        tasks: users of train; half as many in validation and in test. candidates: the most of a user.
        shots: support items, each with `sampled` candidates that are not relevant.
        missed: the mean number of relevant items that no base proposes. silent: share of users
            without a score of one base. others: the share of the signal that the other bases have.
    """
    rng = np.random.default_rng(seed)
    numbers = {"train": tasks, "validation": tasks // 2, "test": tasks // 2}
    options = (candidates, bases, signal, noise, shots, sampled, missed, silent, others)
    return DomainEpisodes(*(_episodes(rng, role, number, *options) for role, number in numbers.items()))


def _episodes(rng, role, tasks, candidates, bases, signal, noise, shots, sampled, missed, silent, others):
    suits = np.where(rng.random(tasks) < 0.5, 0, rng.integers(0, bases, tasks))
    lift = np.full((tasks, bases), signal * others)
    lift[np.arange(tasks), suits] = signal
    says = np.ones((tasks, bases), bool)
    says[np.arange(tasks), rng.integers(0, bases, tasks)] = rng.random(tasks) >= silent
    says[:, 0] |= ~says.any(1)

    lengths = rng.integers(max(2, candidates // 2), candidates + 1, tasks)
    mask = np.arange(candidates) < lengths[:, None]
    relevant = rng.integers(1, 4, tasks)
    targets = np.zeros((tasks, candidates))
    for task in range(tasks):
        targets[task, rng.choice(lengths[task], min(relevant[task], lengths[task]), replace=False)] = 1
    found = targets.sum(1).astype(int)
    query = _inputs(rng, targets, mask, lift, says, noise, candidates)
    # Each support item is followed by its candidates, which are all a part of the ranking of a longer list.
    of_support = np.tile([1.0] + [0.0] * sampled, shots)[None].repeat(tasks, 0)
    support = _inputs(rng, of_support, np.ones_like(of_support, dtype=bool), lift, says, noise, candidates)
    return Episodes(
        domain="clicks",
        scale=RatingScale(0, 1),
        base_names=tuple(f"base{base}" for base in range(bases)),
        feature_names=FEATURES,
        context_names=tuple(f"context{place}" for place in range(CONTEXTS)),
        batch=EpisodeBatch(support, query),
        users=np.array([f"{role}-u{task}" for task in range(tasks)]),
        support_items=np.full(of_support.shape, "s"),
        query_items=np.where(mask, np.array([f"i{place}" for place in range(candidates)]), ""),
        query_fallback=query.predictions.nanmean(-1).nan_to_num(0.0),
        query_ratings=targets,
        relevant=found + rng.poisson(missed, tasks),
    )


def _inputs(rng, targets, mask, lift, says, noise, candidates):
    raw = targets[..., None] * lift[:, None] + noise * rng.normal(size=(*targets.shape, lift.shape[1]))
    inside = mask[..., None]
    count = inside.sum(1, keepdims=True)
    centred = np.where(inside, raw - np.where(inside, raw, 0).sum(1, keepdims=True) / count, 0)
    standard = centred / np.sqrt((centred**2).sum(1, keepdims=True) / count)
    rank = (np.where(inside, -raw, np.inf).argsort(1).argsort(1) + 1) * inside
    share = np.where(inside, 1 - (rank - 1) / count, 0)
    discount = np.where(inside, 1 / np.log2(rank + 1 + ~inside), 0)
    # The user's evidence for each base: how high it ranks the support items, with the noise of a few items.
    evidence = np.broadcast_to((lift + 0.3 * rng.normal(size=lift.shape))[:, None], raw.shape)
    features = np.stack([standard / 3, discount, rank <= candidates // 4, share, evidence, evidence**2], -1)
    features = np.where((inside & says[:, None])[..., None], features, 0.0)
    predictions = np.where(inside, np.where(says[:, None], np.clip(0.5 + standard / 12, 0, 1), np.nan), 0.5)
    context = rng.normal(size=(*targets.shape, CONTEXTS)) * inside
    tensors = (torch.from_numpy(values).float() for values in (predictions, features, context, targets))
    return FusionInputs(*tensors, torch.from_numpy(mask))
