"""Regression trees as arrays, which can be checked before they are used.

LightGBM does not check the text of its trees: a broken one makes it hang, end the process, or predict something else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from metarec.bases import Learned, Stored, check_stored
from metarec.errors import InputError
from metarec.fusion._combiner import Rows

__all__ = ["Boosted", "Trees", "columns_of"]

MAX_NODES = 1_000_000
MAX_DEPTH = 100
"""Far above what stackers and rankers grow. More would take minutes for a prediction."""

ENTRIES = 30_000
"""Rows times trees that are followed at once; so many fit a processor's cache."""


@dataclass(frozen=True)
class Trees:
    """T trees with N nodes in all. A row goes left where its feature is at most the threshold; a leaf is its own child.

    Attributes:
        roots: [T] the first node of each tree. features, thresholds, left, right, values: [N] of each node; children
            come after their parent, so that every row arrives at a leaf.
    """

    roots: np.ndarray
    features: np.ndarray
    thresholds: np.ndarray
    left: np.ndarray
    right: np.ndarray
    values: np.ndarray
    depth: int

    @classmethod
    def of(cls, dumped: Mapping[str, Any]) -> Self:
        """From LightGBM's ``Booster.dump_model()``, for features without NaN."""
        roots: list[int] = []
        nodes: list[tuple[int, float, int, int, float]] = []

        def add(tree: Mapping[str, Any], depth: int) -> int:
            own = len(nodes)
            nodes.append((0, np.inf, own, own, tree.get("leaf_value", 0.0)))
            if "split_feature" in tree:
                children = (add(tree["left_child"], depth + 1), add(tree["right_child"], depth + 1))
                nodes[own] = (tree["split_feature"], tree["threshold"], *children, 0.0)
            return own

        for tree in dumped["tree_info"]:
            roots.append(add(tree["tree_structure"], 0))
        features, thresholds, left, right, values = zip(*nodes, strict=True)
        return cls.restore(
            {
                "roots": np.array(roots),
                "features": np.array(features),
                "thresholds": np.array(thresholds),
                "left": np.array(left),
                "right": np.array(right),
                "values": np.array(values),
            }
        )

    def learned(self) -> dict[str, Learned]:
        """The arrays by name."""
        return {name: getattr(self, name) for name in ("roots", "features", "thresholds", "left", "right", "values")}

    @classmethod
    def restore(cls, state: Mapping[str, Learned]) -> Self:
        """From the values of :meth:`learned`.

        Raises:
            InputError: they are no trees, or too large ones.
        """
        nodes = len(np.asarray(state.get("values", ())))
        node = Stored("nodes", kind="whole", low=0, high=nodes - 1)
        rules = {
            "values": Stored("nodes"),
            "roots": Stored("trees", kind="whole", low=0, high=nodes - 1),
            "features": Stored("nodes", kind="whole", low=0),
            "thresholds": Stored("nodes", high=np.inf),
            "left": node,
            "right": node,
        }
        check_stored("the trees", state, rules)
        if nodes > MAX_NODES:
            raise InputError(f"the trees must have at most {MAX_NODES:,} nodes but have {nodes:,}")
        arrays = {name: np.asarray(state[name]) for name in rules}
        own, left, right = np.arange(nodes), arrays["left"], arrays["right"]
        leaf = (left == own) & (right == own)
        if not (leaf | ((left > own) & (right > own))).all():
            raise InputError("the trees: a node's children must come after it")
        return cls(**arrays, depth=_depth(left, right))

    def predict(self, columns: np.ndarray) -> np.ndarray:
        """[R] the sum of the values of the leaves that each row [R, D] arrives at, in the order of the trees."""
        found = np.empty(len(columns))
        # Flat arrays, because an index in each of two axes takes twice as long.
        children = np.stack([self.left, self.right], axis=1).ravel()
        step = max(1, ENTRIES // max(len(self.roots), 1))
        for first in range(0, len(columns), step):
            part = columns[first : first + step]
            starts, flat = np.arange(len(part)) * part.shape[1], part.ravel()
            nodes = np.repeat(self.roots[:, None], len(part), axis=1)
            for _ in range(self.depth):
                goes_right = flat.take(starts + self.features.take(nodes)) > self.thresholds.take(nodes)
                nodes = children.take(2 * nodes + goes_right)
            found[first : first + step] = self.values.take(nodes).sum(axis=0)
        return found


def _depth(left: np.ndarray, right: np.ndarray) -> int:
    """The most steps from a root to a leaf."""
    nodes, depth = np.arange(len(left)), 0
    while len(nodes := np.unique(np.concatenate([left[nodes], right[nodes]]))) and not _all_leaves(nodes, left):
        depth += 1
        if depth > MAX_DEPTH:
            raise InputError(f"the trees must have at most {MAX_DEPTH} splits in a row but have more")
    return depth + 1


def _all_leaves(nodes: np.ndarray, left: np.ndarray) -> bool:
    return bool((left[nodes] == nodes).all())


def columns_of(rows: Rows) -> np.ndarray:
    """[R, D] columns. Trees split on one column at a time, so differences between bases are columns of their own."""
    flat = rows.algorithm_features.reshape(len(rows.mean), -1)
    deviations = rows.predictions - rows.mean[:, None]
    return np.concatenate([rows.predictions, rows.mean[:, None], deviations, flat, rows.context], axis=1)


@dataclass(frozen=True)
class Boosted:
    """[R, 1] predictions of trees; a residual is added to the mean of the bases.

    Attributes:
        trees: a ``lightgbm.Booster``, or :class:`Trees`.
    """

    trees: Any
    is_residual: bool

    def __call__(self, rows: Rows) -> np.ndarray:
        columns = columns_of(rows)
        if isinstance(self.trees, Trees):
            predicted = self.trees.predict(columns)
        else:
            predicted = np.asarray(self.trees.predict(columns, num_threads=1))
        return (predicted + rows.mean if self.is_residual else predicted)[:, None]

    def learned(self) -> dict[str, Learned]:
        """The arrays of the trees, up to the best iteration."""
        if isinstance(self.trees, Trees):
            return self.trees.learned()
        return Trees.of(self.trees.dump_model(num_iteration=self.trees.best_iteration)).learned()
