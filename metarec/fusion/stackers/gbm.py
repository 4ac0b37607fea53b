"""Gradient-boosted trees."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import lightgbm

from metarec.bases import Learned
from metarec.fusion._combiner import Family
from metarec.fusion._trees import Boosted, Trees, columns_of
from metarec.fusion.stackers._base import Stacker, TrainingRows

__all__ = ["BoostingStacker"]

MAX_TREES = 600
PATIENCE = 25

_ENGINE: dict[str, Any] = {
    "objective": "regression",
    "metric": "rmse",
    "verbose": -1,
    "deterministic": True,
    "force_row_wise": True,
    # One thread: with more, LightGBM's threads wait for each other where other processes use the cores, and a fit of
    # one second took half a minute.
    "num_threads": 1,
    "max_bin": 63,
    # Bins are made once and serve all settings, so no column may be dropped for one setting's smallest leaf.
    "feature_pre_filter": False,
}

_PLAIN: dict[str, Any] = {
    "predicts": "residual to the mean",
    "num_leaves": 15,
    "learning_rate": 0.05,
    "min_data_in_leaf": 50,
    "feature_fraction": 0.7,
    "lambda_l2": 10.0,
}

GRID: tuple[dict[str, Any], ...] = (
    _PLAIN,
    {**_PLAIN, "predicts": "rating"},
    {**_PLAIN, "num_leaves": 4},
    {**_PLAIN, "num_leaves": 8},
    {**_PLAIN, "num_leaves": 8, "min_data_in_leaf": 200, "lambda_l2": 100.0},
    {**_PLAIN, "num_leaves": 8, "feature_fraction": 0.3},
    {**_PLAIN, "num_leaves": 31},
    {**_PLAIN, "num_leaves": 31, "min_data_in_leaf": 200, "lambda_l2": 100.0},
    {**_PLAIN, "num_leaves": 31, "feature_fraction": 0.3, "min_data_in_leaf": 200},
    {**_PLAIN, "min_data_in_leaf": 10, "lambda_l2": 1.0},
    {**_PLAIN, "learning_rate": 0.1},
    {**_PLAIN, "feature_fraction": 0.3, "lambda_l2": 100.0},
)


class BoostingStacker(Stacker):
    """LightGBM on the bases' predictions, their deviations from the mean, all their features, and the context.

    Predicts the rating, or its residual to the mean of the bases. Trees are added until validation users have stopped
    gaining; the tree's size, the learning rate and the penalties are chosen there too. G. Ke et al., "LightGBM: a
    highly efficient gradient boosting decision tree", NeurIPS 2017.

    >>> BoostingStacker().name
    'gbm'
    """

    name = "gbm"

    def _families(self, train: TrainingRows, validation: TrainingRows, seed: int) -> Iterator[Family]:
        engine = {**_ENGINE, "seed": seed}
        columns, held_out_columns = columns_of(train.rows), columns_of(validation.rows)
        data = lightgbm.Dataset(columns, train.targets, params=engine).construct()
        held_out = data.create_valid(held_out_columns, validation.targets, params=engine).construct()
        for settings in GRID:
            is_residual = settings["predicts"] != "rating"
            data.set_label(train.targets - is_residual * train.rows.mean)
            held_out.set_label(validation.targets - is_residual * validation.rows.mean)
            options = {key: value for key, value in settings.items() if key != "predicts"}
            booster = lightgbm.train(
                {**engine, **options},
                data,
                num_boost_round=MAX_TREES,
                valid_sets=[held_out],
                callbacks=[lightgbm.early_stopping(PATIENCE, verbose=False)],
            )
            yield Family([{**settings, "trees": booster.best_iteration}], Boosted(booster, is_residual))

    def _learned(self, combine: Boosted, column: int) -> dict[str, Learned]:
        return combine.learned()

    def _combination(self, state: Mapping[str, Learned], settings: Mapping[str, Any]) -> Boosted:
        return Boosted(Trees.restore(state), settings["predicts"] != "rating")
