"""Linear layers of many bases side by side."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

__all__ = ["ParallelLinear"]


class ParallelLinear(nn.Module):
    """A linear layer for each of `copies` inputs, as one batched product: [..., copies, in] -> [..., copies, out].

    Every copy starts as a ``torch.nn.Linear`` of the same size would. Many small layers cost one call each, and under
    ``vmap`` one batched call each; this costs one.
    """

    def __init__(self, copies: int, in_features: int, out_features: int) -> None:
        super().__init__()
        bound = 1 / math.sqrt(in_features)
        self.weight = nn.Parameter(torch.empty(copies, out_features, in_features).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(copies, out_features).uniform_(-bound, bound))

    def forward(self, inputs: Tensor) -> Tensor:
        return torch.einsum("...ai,aoi->...ao", inputs, self.weight) + self.bias

    def extra_repr(self) -> str:
        copies, out_features, in_features = self.weight.shape
        return f"copies={copies}, in_features={in_features}, out_features={out_features}"
