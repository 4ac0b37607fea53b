"""Rated rows without episodes: features and a rating each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from metarec.errors import InputError

__all__ = ["RatedRows", "RowSource", "TargetRows", "as_rows"]


class RatedRows(NamedTuple):
    """R rows: features [R, F] and ratings [R], on one scale for all domains."""

    features: Tensor
    ratings: Tensor

    def select(self, rows: Tensor) -> RatedRows:
        """The rows at these places, [n] integers."""
        return RatedRows(self.features[rows], self.ratings[rows])


class RowSource(NamedTuple):
    """A source domain: a model from features [B, F] to [B, 1], and the rows that it was trained on."""

    model: nn.Module
    rows: RatedRows


class TargetRows(NamedTuple):
    """A target domain: a few rated rows, and the features [R, F] of all rows."""

    few: RatedRows
    features: Tensor

    def select(self, rows: Tensor) -> TargetRows:
        """The same target with these few rated rows only, [n] integers."""
        return self._replace(few=self.few.select(rows))


def as_rows(data: Sequence[Mapping[str, Any]], name: str) -> RatedRows:
    """Convert dicts with ``features`` [F] and ``rating``; error messages call them `name`.

    Raises:
        InputError: there is none, or a row is incomplete, not finite, or has another number of features.
    """
    if isinstance(data, Mapping | str) or not isinstance(data, Sequence):
        raise InputError(f"{name} must be episodes, or a list of dicts, but got {type(data).__name__}")
    if not data:
        raise InputError(f"{name} must have at least one row but has none")
    features, ratings = [], []
    for place, row in enumerate(data):
        where = f"{name}[{place}]"
        if not isinstance(row, Mapping):
            raise InputError(f"{where} must be a dict with features and rating but is {type(row).__name__}")
        for key in ("features", "rating"):
            if key not in row:
                raise InputError(f'{where} has no "{key}"; give features [F] and a rating')
        features.append(torch.as_tensor(row["features"], dtype=torch.float32))
        ratings.append(torch.as_tensor(row["rating"], dtype=torch.float32))
        if features[-1].dim() != 1 or features[-1].shape != features[0].shape or not features[-1].numel():
            shape, first = list(features[-1].shape), list(features[0].shape)
            raise InputError(f"{where}: features must be [F] as the first row's, {first}, but have the shape {shape}")
        if ratings[-1].numel() != 1:
            raise InputError(f"{where}: rating must be one number but has the shape {list(ratings[-1].shape)}")
        if not (features[-1].isfinite().all() and ratings[-1].isfinite().all()):
            raise InputError(f"{where}: features and rating must be finite but are {row['features']}, {row['rating']}")
    return RatedRows(torch.stack(features), torch.stack([rating.reshape(()) for rating in ratings]))
