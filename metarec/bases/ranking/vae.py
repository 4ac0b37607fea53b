"""A small multinomial variational autoencoder, which folds in new users by a forward pass."""

from __future__ import annotations

from typing import ClassVar, Self

import numpy as np
import torch
from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt
from scipy import sparse
from torch import Tensor, nn
from torch.nn import functional

from metarec.bases._fold_in import flat
from metarec.bases._learned import Stored
from metarec.bases._searched import Choices, Range
from metarec.bases.autoencoder import draw_histories
from metarec.bases.ranking._base import Histories, RankingBase, WeightedConfig, strengths, user_rows
from metarec.errors import InputError
from metarec.ratings import Domain
from metarec.threads import one_thread

__all__ = ["MultinomialVAE"]


class VAEConfig(WeightedConfig):
    """Settings of :class:`MultinomialVAE`."""

    hidden: PositiveInt = 128
    "Width of the hidden layer and of the code."
    epochs: PositiveInt = 20
    "Passes over the users; every pass draws new histories."
    learning_rate: PositiveFloat = 0.003
    "Of Adam."
    weight_decay: NonNegativeFloat = 1.0
    "Decoupled (AdamW)."
    beta: NonNegativeFloat = 0.01
    "The weight of the code's divergence from the prior against the mean log-probability of a target."
    batch_users: PositiveInt = 128
    "Users a step."
    seed: int = 0
    "Of the weights' start, of the histories that are drawn and of the code's noise."


class _Network(nn.Module):
    """Codes a history as a Gaussian, and reads the items' log-probabilities off the code."""

    def __init__(self, num_items: int, hidden: int, generator: torch.Generator) -> None:
        super().__init__()
        self.items = nn.EmbeddingBag(num_items, hidden, mode="sum")
        self.bias = nn.Parameter(torch.zeros(hidden))
        self.code = nn.Linear(hidden, 2 * hidden)
        self.out = nn.Linear(hidden, num_items)
        spread = hidden**-0.5
        for table, width in ((self.items.weight, 1.0), (self.code.weight, spread), (self.out.weight, 0.1 * spread)):
            nn.init.normal_(table, std=width, generator=generator)
        # Codes are nearly certain at the start; noise of the prior's size would hide the histories.
        nn.init.zeros_(self.code.bias)
        nn.init.constant_(self.code.bias[hidden:], -4.0)

    def encode(self, items: Tensor, values: Tensor, starts: Tensor) -> tuple[Tensor, Tensor]:
        """Flat histories ([R] items and values, [B] starts) -> [B, hidden] means and log-variances."""
        hidden = torch.tanh(self.items(items, starts, per_sample_weights=values) + self.bias)
        mean, log_variance = self.code(hidden).chunk(2, dim=1)
        return mean, log_variance

    def decode(self, codes: Tensor) -> Tensor:
        """[B, hidden] codes -> [B, I] unnormalised log-probabilities."""
        logits: Tensor = self.out(codes)
        return logits


class MultinomialVAE(RankingBase):
    """Mult-VAE (Liang et al. 2018) for short histories.

    In training, each user's events are split anew in every pass: 1 to all but one, log-uniform, are the input, the
    others the target. So the network is trained on short histories and cannot copy its input. The biases of the items
    start at the logarithm of their popularity.
    """

    name = "vae"
    Config = VAEConfig
    config: VAEConfig
    searched: ClassVar = {
        "hidden": Choices((64, 128, 200)),
        "epochs": Range(10, 60),
        "learning_rate": Range(0.0005, 0.01, log=True),
        "weight_decay": Range(0.1, 10.0, log=True),
        "beta": Range(0.001, 0.2, log=True),
    }
    learned: ClassVar = {"counts": Stored("items", low=0), "weights": Stored("weights")}

    def fit(self, domain: Domain) -> Self:
        config = self.config
        events = user_rows(domain, config.weights)
        self._counts = np.bincount(events.indices, minlength=events.shape[1])
        generator = torch.Generator().manual_seed(config.seed)
        with one_thread():
            self._network = _Network(events.shape[1], config.hidden, generator)
            self._network.out.bias.data = torch.from_numpy(np.log(self._counts / self._counts.sum())).float()
            self._train(events, generator)
        self._weights = nn.utils.parameters_to_vector(self._network.parameters()).detach().numpy()
        return self

    def _train(self, events: sparse.csr_array, generator: torch.Generator) -> None:
        config, network = self.config, self._network
        rng = np.random.default_rng(config.seed)
        optimizer = torch.optim.AdamW(
            network.parameters(), config.learning_rate, weight_decay=config.weight_decay, fused=True
        )
        all_lengths = np.diff(events.indptr)
        trainable = np.flatnonzero(all_lengths >= 2)
        for epoch in range(config.epochs):
            # Reached in the first half of the passes, so that codes do not collapse to the prior.
            beta = config.beta * min(2 * epoch / config.epochs, 1)
            rng.shuffle(trainable)
            for first in range(0, len(trainable), config.batch_users):
                users = trainable[first : first + config.batch_users]
                lengths = all_lengths[users]
                rows = flat(events.indptr[users], lengths)
                is_input, counts = draw_histories(lengths, rng)
                items, owners = events.indices[rows], np.repeat(np.arange(len(users)), lengths)
                mean, log_variance = self._encoded(counts, items[is_input], events.data[rows][is_input])
                noise = torch.randn(mean.shape, generator=generator)
                log_shares = functional.log_softmax(network.decode(mean + noise * (log_variance / 2).exp()), dim=1)
                targets = torch.from_numpy(owners[~is_input]), torch.from_numpy(items[~is_input]).long()
                # Every user counts the same, whatever the number of targets.
                shares = torch.from_numpy(1 / (lengths - counts)).float()[targets[0]]
                likelihood = (log_shares[targets] * shares).sum() / len(users)
                divergence = (mean**2 + log_variance.exp() - log_variance - 1).sum() / (2 * len(users))
                optimizer.zero_grad()
                (beta * divergence - likelihood).backward()
                optimizer.step()

    def _encoded(self, lengths: np.ndarray, items: np.ndarray, values: np.ndarray) -> tuple[Tensor, Tensor]:
        """The code of flat histories; the values of each are brought to length 1."""
        owners = np.repeat(np.arange(len(lengths)), lengths)
        norms = np.sqrt(np.bincount(owners, values.astype(np.float64) ** 2, len(lengths)))
        return self._network.encode(
            torch.from_numpy(items.astype(np.int64)),
            torch.from_numpy((values / norms[owners]).astype(np.float32)),
            torch.from_numpy(np.cumsum(lengths) - lengths),
        )

    def _derive(self) -> None:
        items, hidden = self.num_items, self.config.hidden
        expected = items * hidden + hidden + 2 * hidden * (hidden + 1) + (hidden + 1) * items
        if len(self._weights) != expected:
            raise InputError(
                f"the state of the ranking base {self.name} must have {expected:,} weights for {items:,} items"
            )
        # All initial weights are replaced.
        self._network = _Network(items, hidden, torch.Generator())
        nn.utils.vector_to_parameters(torch.from_numpy(self._weights), self._network.parameters())

    @torch.no_grad()
    def score_items(self, histories: Histories) -> np.ndarray:
        values = strengths(histories.weights, self.config.weights)
        mean, _ = self._encoded(histories.lengths, histories.items, values)
        scores: np.ndarray = self._network.decode(mean).numpy()
        return scores
