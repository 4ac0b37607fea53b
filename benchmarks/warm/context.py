"""What is known about the user, the item and the moment of a row, from rows whose rating is known."""

from __future__ import annotations

import numpy as np

from benchmarks.warm.bases import rows_of_users
from benchmarks.warm.data import Asked, Known, Table

__all__ = ["context_features"]


def context_features(
    table: Table, known: Known, asked: Asked, *, timed: bool = True
) -> tuple[tuple[str, ...], np.ndarray]:
    """Names, and [n, C] what is known about the user, the item and, if `timed`, the moment of each row asked."""
    num_users, num_items = table.shape
    user_counts, user_means, user_spreads = _moments(known.users, known.ratings, num_users)
    item_counts, item_means, item_spreads = _moments(known.items, known.ratings, num_items)
    columns = {
        "user_count": np.log1p(user_counts[asked.users]),
        "user_mean": user_means[asked.users],
        "user_spread": user_spreads[asked.users],
        "item_count": np.log1p(item_counts[asked.items]),
        "item_mean": item_means[asked.items],
        "item_spread": item_spreads[asked.items],
        "release": table.item_features[asked.items, -2],
    }
    if timed:
        columns |= _moment(known, asked, user_means, item_means)
    return tuple(columns), np.column_stack(list(columns.values()))


def _moment(known: Known, asked: Asked, user_means: np.ndarray, item_means: np.ndarray) -> dict[str, np.ndarray]:
    first_user, first_item = np.full(len(user_means), np.inf), np.full(len(item_means), np.inf)
    np.minimum.at(first_user, known.users, known.times)
    np.minimum.at(first_item, known.items, known.times)
    gap, nearby = _nearest(known, asked, user_means, item_means)
    return {
        "user_age": np.log1p(_since(asked.times, first_user[asked.users])),
        "item_age": np.log1p(_since(asked.times, first_item[asked.items])),
        "minutes_to_nearest": np.log1p(gap * 1440.0),
        "nearby_residual": nearby,
    }


def _nearest(
    known: Known, asked: Asked, user_means: np.ndarray, item_means: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Days to the user's nearest known rating, at most 1000, and how far the nearby ones lie above the usual."""
    usual = user_means[known.users] + item_means[known.items] - known.ratings.mean()
    above = known.ratings - usual
    histories, wanted = rows_of_users(known.users, len(user_means)), rows_of_users(asked.users, len(user_means))
    gap, nearby = np.full(len(asked.users), 1000.0), np.zeros(len(asked.users))
    for history, rows in zip(histories, wanted, strict=True):
        if len(history) and len(rows):
            apart = np.abs(asked.times[rows, None] - known.times[history])
            gap[rows] = apart.min(axis=1).clip(max=1000.0)
            weights = np.exp(-apart * 1440.0 / 5.0)
            nearby[rows] = weights @ above[history] / (weights.sum(axis=1) + 3.0)
    return gap, nearby


def _moments(codes: np.ndarray, ratings: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """[count] numbers of ratings, their means and spreads, both shrunk to those of all by 5 ratings."""
    mean, variance = ratings.mean(), ratings.var()
    numbers = np.bincount(codes, minlength=count)
    means = mean + np.bincount(codes, ratings - mean, count) / (numbers + 5.0)
    squares = np.bincount(codes, (ratings - means[codes]) ** 2, count)
    return numbers, means, np.sqrt((squares + 5.0 * variance) / (numbers + 5.0))


def _since(times: np.ndarray, first: np.ndarray) -> np.ndarray:
    return np.where(np.isfinite(first), np.maximum(times - first, 0.0), 0.0)
