"""An autoencoder over rating histories, which folds in new users by a forward pass."""

from __future__ import annotations

from typing import ClassVar, Self

import numpy as np
import torch
from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.nn import functional

from metarec.bases._base import BaseConfig
from metarec.bases._learned import Stored
from metarec.bases._offsets import item_offsets
from metarec.bases._queries import CodedQueries, FoldInRecommender
from metarec.bases._searched import Choices, Range
from metarec.errors import InputError
from metarec.ratings import Domain

__all__ = ["AutoencoderRecommender", "draw_histories"]


class AutoencoderConfig(BaseConfig):
    """Settings of :class:`AutoencoderRecommender`."""

    hidden: PositiveInt = 32
    "Width of the code."
    epochs: PositiveInt = 30
    "Passes over the users; every pass draws new histories."
    learning_rate: PositiveFloat = 0.002
    "Of Adam."
    weight_decay: NonNegativeFloat = 0.3
    "Decoupled (AdamW)."
    batch_users: PositiveInt = 64
    "Users a step."
    damping: NonNegativeFloat = 5.0
    "Of the item and user offsets that the network starts from."
    seed: int = 0
    "Of the weights' start and of the histories that are drawn."


class _Network(nn.Module):
    """Codes a history as tanh(sum of item embeddings), and reads an item off the code.

    A rated item enters twice: by the residual of its rating, and by having been rated at all.
    """

    def __init__(self, num_items: int, hidden: int, generator: torch.Generator) -> None:
        super().__init__()
        self.rated = nn.EmbeddingBag(num_items, hidden, mode="sum")
        self.seen = nn.EmbeddingBag(num_items, hidden, mode="sum")
        self.items = nn.Embedding(num_items, hidden)
        self.item_bias = nn.Embedding(num_items, 1)
        self.bias = nn.Parameter(torch.zeros(hidden))
        for table, spread in ((self.rated, 0.1), (self.seen, 0.02), (self.items, 0.1), (self.item_bias, 0.0)):
            nn.init.normal_(table.weight, std=spread, generator=generator)

    def encode(self, items: Tensor, residuals: Tensor, starts: Tensor, counts: Tensor) -> Tensor:
        """Flat histories ([R] items and residuals, [B] starts and lengths) -> [B, hidden]."""
        damped = counts.clamp(min=1).sqrt()[:, None]
        rated = self.rated(items, starts, per_sample_weights=residuals)
        return torch.tanh((rated + self.seen(items, starts)) / damped + self.bias)

    def decode(self, codes: Tensor, items: Tensor) -> Tensor:
        """[M, hidden] codes and [M] items -> [M] residuals."""
        return (codes * self.items(items)).sum(-1) + self.item_bias(items)[:, 0]


class AutoencoderRecommender(FoldInRecommender):
    """AutoRec (Sedhain et al. 2015) for short histories, on the residuals of the shrunk means.

    In training, each user's ratings are split anew in every pass: 1 to all but one, log-uniform, are the input, the
    others the target. So the network is trained on short histories and cannot copy its input.

    Its evidence is the number of ratings behind the shrunk means (`CodedQueries.ratings_behind`).
    """

    name = "autoencoder"
    Config = AutoencoderConfig
    config: AutoencoderConfig
    searched: ClassVar = {
        "hidden": Choices((16, 32, 64, 128)),
        "epochs": Range(10, 60),
        "learning_rate": Range(0.0005, 0.01, log=True),
        "weight_decay": Range(0.01, 3.0, log=True),
        "damping": Range(0.5, 50.0, log=True),
    }
    learned: ClassVar = {
        "expected": Stored("items"),
        "counts": Stored("items", low=0),
        "spread": Stored(low=1e-3),
        "weights": Stored("weights"),
    }

    def fit(self, domain: Domain) -> Self:
        config = self.config
        ratings = domain.ratings
        users, _ = ratings["user"].factorize(sort=True)
        self._items = domain.item_index
        items = self._items.get_indexer(ratings["item"])
        unit = domain.scale.to_unit(ratings["rating"].to_numpy())
        self._scale = domain.scale
        offsets = item_offsets(items, unit, len(self._items), damping=config.damping)
        self._expected, self._counts = offsets.mean + offsets.offsets, offsets.counts
        # On a scale of about one standard deviation, so that the settings fit any domain.
        residuals = unit - offsets.mean - offsets.offsets[items]
        self._spread = max(float(residuals.std()), 1e-3)
        generator = torch.Generator().manual_seed(config.seed)
        self._network = _Network(len(self._items), config.hidden, generator)
        order = np.lexsort((items, users))
        self._train(users[order], items[order], residuals[order] / self._spread)
        self._weights = nn.utils.parameters_to_vector(self._network.parameters()).detach().numpy()
        return self

    def _derive(self) -> None:
        items, hidden = len(self._items), self.config.hidden
        expected = items * (3 * hidden + 1) + hidden
        if len(self._weights) != expected:
            raise InputError(f"the state of the base {self.name} must have {expected:,} weights for {items:,} items")
        # All initial weights are replaced.
        self._network = _Network(len(self._items), self.config.hidden, torch.Generator())
        nn.utils.vector_to_parameters(torch.from_numpy(self._weights), self._network.parameters())

    def _train(self, users: np.ndarray, items: np.ndarray, residuals: np.ndarray) -> None:
        """Rows are sorted by user and item, so that the order of the input table does not matter."""
        config, network = self.config, self._network
        rng = np.random.default_rng(config.seed)
        # Fused: where items are many and ratings few, most of a fit is the optimizer's passes over the tables.
        optimizer = torch.optim.AdamW(
            network.parameters(), config.learning_rate, weight_decay=config.weight_decay, fused=True
        )
        starts = np.concatenate([[0], np.cumsum(np.bincount(users))])
        trainable = np.flatnonzero(np.diff(starts) >= 2)
        for _ in range(config.epochs):
            rng.shuffle(trainable)
            for first in range(0, len(trainable), config.batch_users):
                batch = trainable[first : first + config.batch_users]
                rows = np.concatenate([np.arange(starts[user], starts[user + 1]) for user in batch])
                lengths = starts[batch + 1] - starts[batch]
                is_input, counts = draw_histories(lengths, rng)
                loss = self._loss(items[rows], residuals[rows], is_input, counts, lengths)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()

    def _loss(
        self, items: np.ndarray, residuals: np.ndarray, is_input: np.ndarray, counts: np.ndarray, lengths: np.ndarray
    ) -> Tensor:
        owner = np.repeat(np.arange(len(lengths)), lengths)
        offsets = np.bincount(owner[is_input], residuals[is_input], len(lengths)) / (counts + self.config.damping)
        centred = torch.from_numpy(residuals - offsets[owner]).float()
        item_tensor, inputs = torch.from_numpy(items), torch.from_numpy(is_input)
        starts = torch.from_numpy(np.concatenate([[0], np.cumsum(counts)[:-1]]))
        codes = self._network.encode(item_tensor[inputs], centred[inputs], starts, torch.from_numpy(counts).float())
        targets = ~inputs
        predicted = self._network.decode(codes[torch.from_numpy(owner)[targets]], item_tensor[targets])
        return functional.mse_loss(predicted, centred[targets])

    @torch.no_grad()
    def predict_coded(self, queries: CodedQueries) -> tuple[np.ndarray, np.ndarray]:
        owners, lengths = queries.history_owners, queries.lengths
        expected = self._expected
        beyond = (queries.unit - expected[queries.items]) / self._spread
        sums = np.bincount(owners, beyond, len(lengths))
        offsets = sums / np.maximum(lengths + self.config.damping, 1e-12)
        codes = self._network.encode(
            torch.from_numpy(queries.items),
            torch.from_numpy(beyond - offsets[owners]).float(),
            torch.from_numpy(queries.starts),
            torch.from_numpy(lengths).float(),
        )
        decoded = self._network.decode(codes[torch.from_numpy(queries.owners)], torch.from_numpy(queries.requested))
        unit = expected[queries.requested] + self._spread * (offsets[queries.owners] + decoded.numpy())
        return unit, queries.ratings_behind(self._counts)


def draw_histories(lengths: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Split each user's rows into input and target: ([R] bool is-input, [B] input lengths, log-uniform in 1..n-1)."""
    counts = np.exp(rng.uniform(0, np.log(lengths))).astype(np.int64).clip(1, lengths - 1)
    owner = np.repeat(np.arange(len(lengths)), lengths)
    order = np.lexsort((rng.random(len(owner)), owner))
    rank = np.empty(len(owner), dtype=np.int64)
    rank[order] = np.arange(len(owner)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    return rank < counts[owner], counts
