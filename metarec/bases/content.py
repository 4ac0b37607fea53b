"""A content model: item features, and a Gaussian process over them for each user."""

from __future__ import annotations

import re
from typing import ClassVar, Self

import numpy as np
import pandas as pd
from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt
from scipy import sparse
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction import DictVectorizer
from sklearn.feature_extraction.text import TfidfTransformer
from sklearn.linear_model import Ridge
from sklearn.preprocessing import normalize

from metarec.bases._base import BaseConfig
from metarec.bases._fold_in import ridge_vectors
from metarec.bases._learned import Stored
from metarec.bases._offsets import item_offsets
from metarec.bases._queries import CodedQueries, FoldInRecommender
from metarec.bases._searched import Choices, Range
from metarec.ratings import Domain

__all__ = ["ContentRecommender", "item_features"]

_WORD = re.compile(r"\w+")
_WEIGHTED = re.compile(r"(.+):([0-9]*\.?[0-9]+)")


class ContentConfig(BaseConfig):
    """Settings of :class:`ContentRecommender`."""

    components: PositiveInt = 32
    "Dimensions that the item features are reduced to."
    damping: NonNegativeFloat = 5.0
    "The weight, in ratings, of the prediction from an item's features against the item's own ratings."
    bias_variance: PositiveFloat = 0.15
    "Variance of a user's overall offset, in units of the noise of one rating."
    taste_variance: PositiveFloat = 0.2
    "Variance of a user's liking along the features, in the same units."
    item_penalty: PositiveFloat = 10.0
    "Ridge penalty of the regression from features to item means."
    seed: int = 0
    "Of the reduction's randomised solver."


class ContentRecommender(FoldInRecommender):
    """Predicts from item features: a ridge regression for the item mean, a Gaussian process for the user.

    An item's expected deviation from the mean is a ridge regression on its features, updated by the item's own
    ratings. The user's deviation has the kernel ``bias_variance + taste_variance * x·x'`` on the items' feature
    vectors; its posterior mean given the history is one small linear solve (Rasmussen, Williams 2006, eq. 2.23).
    Items without features get NaN.

    Its evidence is the reduction of the variance of the user's deviation (prior / posterior - 1) by the history's mean
    residual alone: a lower bound that costs no solve, exact for a single rating.
    """

    name = "content"
    Config = ContentConfig
    config: ContentConfig
    searched: ClassVar = {
        "components": Choices((8, 16, 32, 64)),
        "damping": Range(0.5, 50.0, log=True),
        "bias_variance": Range(0.02, 1.0, log=True),
        "taste_variance": Range(0.02, 2.0, log=True),
        "item_penalty": Range(1.0, 200.0, log=True),
    }
    learned: ClassVar = {"axes": Stored("items axes"), "expected": Stored("items")}

    def fit(self, domain: Domain) -> Self:
        config = self.config
        self._scale = domain.scale
        self._items = pd.Index([], dtype=object)
        self._axes, self._expected = np.zeros((0, 1)), np.zeros(0)
        self._derive()
        if domain.items is None:
            return self
        names = pd.Index(domain.items["item"], dtype=object)
        codes = names.get_indexer(domain.ratings["item"])
        described = codes >= 0
        if not described.any():
            return self
        self._items = names
        self._vectors = _reduce(item_features(domain.items.drop(columns="item")), config.components, config.seed)
        # Vectors of the items whose product is the kernel.
        offset = np.full((len(names), 1), np.sqrt(config.bias_variance))
        self._axes = np.hstack([offset, np.sqrt(config.taste_variance) * self._vectors])
        self._derive()
        rated = codes[described]
        unit = domain.scale.to_unit(domain.ratings["rating"].to_numpy()[described])
        raw = item_offsets(rated, unit, len(names), damping=config.damping)
        rated_items = raw.counts > 0
        ridge = Ridge(alpha=config.item_penalty)
        ridge.fit(self._vectors[rated_items], raw.offsets[rated_items], sample_weight=np.sqrt(raw.counts[rated_items]))
        prior = ridge.predict(self._vectors)
        offsets = item_offsets(rated, unit, len(names), damping=config.damping, prior=prior)
        self._expected = offsets.mean + offsets.offsets
        return self

    def _derive(self) -> None:
        self._variances = np.einsum("if,if->i", self._axes, self._axes)

    def predict_coded(self, queries: CodedQueries) -> tuple[np.ndarray, np.ndarray]:
        residuals = queries.unit - self._expected[queries.items]
        noise = np.ones(len(queries.lengths))
        users = ridge_vectors(self._axes, queries.items, residuals, queries.lengths, noise)
        requested = self._axes[queries.requested]
        beyond = np.einsum("pf,pf->p", requested, users[queries.owners])
        explained = np.einsum("pf,pf->p", requested, self._directions(queries)[queries.owners]) ** 2
        evidence = explained / (self._variances[queries.requested] - explained)
        return self._expected[queries.requested] + beyond, evidence

    def _directions(self, queries: CodedQueries) -> np.ndarray:
        """[B, F] vectors whose squared product with an item is the variance that each mean residual explains."""
        bounds = np.concatenate([[0], np.cumsum(queries.lengths)])
        ones = np.ones(len(queries.items))
        histories = sparse.csr_array((ones, queries.items, bounds), shape=(len(queries.lengths), len(self._axes)))
        # The sum of the residuals carries the same information as their mean, and an empty history has one.
        sums = histories @ self._axes
        variances = np.einsum("bf,bf->b", sums, sums) + queries.lengths
        return sums / np.sqrt(np.maximum(variances, 1e-12))[:, None]


def item_features(columns: pd.DataFrame) -> sparse.csr_matrix:
    """A sparse matrix of item features, a row an item; every column's block has rows of length at most 1.

    Numbers are standardised. Text becomes tf-idf: of its parts where the column is a list (``Comedy|Drama``, with
    weights as in ``fantasy:0.95|fiction:0.30``), of its words elsewhere. Missing values are zeros.
    """
    blocks = []
    for name in columns.columns:
        column = columns[name]
        if pd.api.types.is_bool_dtype(column) or pd.api.types.is_numeric_dtype(column):
            numbers = column.to_numpy(dtype=np.float64, na_value=np.nan)
            spread = np.nanstd(numbers) if np.isfinite(numbers).any() else 0.0
            if spread > 0:
                standard = np.clip(np.nan_to_num((numbers - np.nanmean(numbers)) / spread), -3, 3)
                blocks.append(sparse.csr_matrix(standard[:, None] / 3))
            continue
        texts = column.fillna("").astype(str)
        is_list = texts.str.contains("|", regex=False).any()
        tokens = [_parts(text) if is_list else _words(text) for text in texts]
        if any(tokens):
            counts = DictVectorizer().fit_transform(tokens)
            blocks.append(normalize(TfidfTransformer().fit_transform(counts)))
    if not blocks:
        return sparse.csr_matrix((len(columns), 1))
    return sparse.hstack(blocks).tocsr()


def _parts(text: str) -> dict[str, float]:
    tokens: dict[str, float] = {}
    for part in filter(None, (part.strip().lower() for part in text.split("|"))):
        weighted = _WEIGHTED.fullmatch(part)
        token, weight = (weighted[1], float(weighted[2])) if weighted else (part, 1.0)
        tokens[token] = tokens.get(token, 0.0) + weight
    return tokens


def _words(text: str) -> dict[str, float]:
    return {word: 1.0 for word in _WORD.findall(text.lower())}


def _reduce(features: sparse.csr_matrix, components: int, seed: int) -> np.ndarray:
    """Latent semantic analysis (Deerwester 1990) to [I, components] vectors of length 1 (0 for an empty item)."""
    limit = min(features.shape) - 1
    if limit < 1 or features.shape[1] <= components:
        return normalize(features.toarray())
    reducer = TruncatedSVD(min(components, limit), random_state=seed)
    return normalize(reducer.fit_transform(features))
