"""Gradient-boosted trees that order lists."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import lightgbm
import numpy as np

from metarec.bases import Learned
from metarec.fusion._combiner import Family
from metarec.fusion._trees import Boosted, Trees, columns_of
from metarec.fusion.rankers._base import ByRow, Judged, Ranker, drawn, relevance

__all__ = ["LambdaMartRanker"]

MAX_TREES = 300
PATIENCE = 25
MOST_ROWS = 200_000

_ENGINE: dict[str, Any] = {
    "objective": "lambdarank",
    "metric": "none",
    "verbose": -1,
    "deterministic": True,
    "force_row_wise": True,
    # One thread, because more wait for each other where other processes use the cores.
    "num_threads": 1,
    "max_bin": 63,
    "feature_pre_filter": False,
}

_PLAIN: dict[str, Any] = {
    "num_leaves": 15,
    "learning_rate": 0.05,
    "min_data_in_leaf": 50,
    "feature_fraction": 0.7,
    "lambda_l2": 10.0,
}

GRID: tuple[dict[str, Any], ...] = (
    _PLAIN,
    {**_PLAIN, "num_leaves": 4},
    {**_PLAIN, "num_leaves": 8, "feature_fraction": 0.3},
    {**_PLAIN, "num_leaves": 31},
    {**_PLAIN, "num_leaves": 8, "learning_rate": 0.1},
    {**_PLAIN, "num_leaves": 8, "min_data_in_leaf": 200, "lambda_l2": 100.0},
)


class LambdaMartRanker(Ranker):
    """LightGBM's LambdaMART on the bases' scores, their deviations from the mean, all their features, and the context.

    Trees are added until the nDCG@10 of validation users has stopped rising; the trees' size, the learning rate and the
    penalties are chosen there too. C. J. C. Burges, "From RankNet to LambdaRank to LambdaMART: an overview", Microsoft
    Research, 2010.

    >>> LambdaMartRanker().name
    'lambdamart'
    """

    name = "lambdamart"

    def _families(self, train: Judged, validation: Judged, seed: int) -> Iterator[Family]:
        engine = {**_ENGINE, "seed": seed}
        mask, held_out_mask = drawn(train, MOST_ROWS, seed), validation.lists.mask
        sizes, held_out_sizes = mask.sum(1), held_out_mask.sum(1)
        data = lightgbm.Dataset(
            columns_of(train.lists.rows(mask)), relevance(train, mask), group=sizes[sizes > 0], params=engine
        ).construct()
        held_out = data.create_valid(
            columns_of(validation.lists.rows()),
            relevance(validation, held_out_mask),
            group=held_out_sizes[held_out_sizes > 0],
            params=engine,
        ).construct()

        def judge(predicted: np.ndarray, _: lightgbm.Dataset) -> tuple[str, float, bool]:
            # LightGBM's own nDCG has no item that no base proposed.
            scores = np.zeros(held_out_mask.shape)
            scores[held_out_mask] = predicted
            return "ndcg", validation.ndcg(scores), True

        for settings in GRID:
            booster = lightgbm.train(
                {**engine, **settings},
                data,
                num_boost_round=MAX_TREES,
                valid_sets=[held_out],
                feval=judge,
                callbacks=[lightgbm.early_stopping(PATIENCE, verbose=False)],
            )
            yield Family([{**settings, "trees": booster.best_iteration}], ByRow(Boosted(booster, False)))

    def _learned(self, combine: Any, column: int) -> dict[str, Learned]:
        own: Boosted = combine.of_rows
        return own.learned()

    def _combination(self, state: Mapping[str, Learned], settings: Mapping[str, Any]) -> ByRow:
        return ByRow(Boosted(Trees.restore(state), False))
