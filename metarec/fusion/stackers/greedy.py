"""Greedy ensemble selection."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from metarec.bases import Learned, Stored, check_stored
from metarec.fusion._combiner import Family, Rows
from metarec.fusion.stackers._base import Stacker, TrainingRows

__all__ = ["GreedyStacker"]

STEPS = (1, 2, 3, 5, 7, 10, 15, 20, 30, 50, 100)
BAGS = 20
BAG_SHARE = 0.5


@dataclass(frozen=True)
class WeightedMeans:
    """[R, S] means of the bases with the weights [A, S]."""

    weights: np.ndarray

    def __call__(self, rows: Rows) -> np.ndarray:
        return rows.predictions @ self.weights


class GreedyStacker(Stacker):
    """Adds repeatedly, with replacement, the base that makes the ensemble's mean best on train rows.

    The ensemble starts with the best few bases (sorted initialisation); how many, how many steps follow, and whether
    it is the mean of ensembles selected from random subsets of the bases (bagging) is chosen on validation users.
    R. Caruana, A. Niculescu-Mizil, G. Crew, A. Ksikes, "Ensemble selection from libraries of models", ICML 2004.

    >>> GreedyStacker().name
    'greedy'
    """

    name = "greedy"

    def _families(self, train: TrainingRows, validation: TrainingRows, seed: int) -> Iterator[Family]:
        predictions, targets = train.rows.predictions, train.targets
        count = predictions.shape[1]
        # The squared error of an ensemble is a quadratic form in its weights, so rows are needed only here.
        errors = predictions - targets[:, None]
        products = errors.T @ errors / len(targets)
        rng = np.random.default_rng(seed)
        size = math.ceil(BAG_SHARE * count)
        bags = [np.sort(rng.choice(count, size, replace=False)) for _ in range(BAGS)]
        for bagged, subsets in ((False, [np.arange(count)]), (True, bags)):
            for initial in range(1, len(subsets[0]) + 1):
                weights = select(products, subsets, initial, max(STEPS)).mean(0)
                yield Family(
                    [{"bagged": bagged, "initial": initial, "steps": steps} for steps in (0, *STEPS)],
                    WeightedMeans(weights[:, [0, *STEPS]]),
                )

    def _learned(self, combine: WeightedMeans, column: int) -> dict[str, Learned]:
        return {"weights": combine.weights[:, column : column + 1]}

    def _combination(self, state: Mapping[str, Learned], settings: Mapping[str, Any]) -> WeightedMeans:
        check_stored("the greedy ensemble", state, {"weights": Stored("bases 1", low=0, high=1)})
        return WeightedMeans(np.asarray(state["weights"]))


def select(products: np.ndarray, subsets: Sequence[np.ndarray], initial: int, steps: int) -> np.ndarray:
    """[S, A, steps + 1] weights after each step of each selection; the first column is the sorted initialisation.

    Args:
        products: [A, A] mean products of the bases' errors; weights w that sum to 1 have the squared error w'Pw.
        subsets: S lists of the bases to choose from. initial: how many of the best ones to start with.
    """
    singles = np.diag(products)
    everyone = np.arange(len(subsets))
    counts = np.zeros((len(subsets), len(products)))
    barred = np.full(counts.shape, np.inf)
    for place, subset in enumerate(subsets):
        barred[place, subset] = 0.0
        counts[place, subset[np.argsort(singles[subset], kind="stable")][:initial]] = 1.0
    path = [counts / initial]
    for _ in range(steps):
        # Of |sum of errors + the candidate's error|^2 only these parts depend on the candidate.
        gains = 2.0 * (counts @ products) + singles
        counts[everyone, np.argmin(gains + barred, axis=1)] += 1.0
        path.append(counts / counts.sum(1, keepdims=True))
    return np.stack(path, axis=-1)
