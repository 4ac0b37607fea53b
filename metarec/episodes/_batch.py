"""What a fusion network sees: tensors of many tasks at once, padded to one shape."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

__all__ = ["EpisodeBatch", "FusionInputs"]


class FusionInputs(NamedTuple):
    """The rows that a fusion network is asked about, for T tasks of at most N rows, A bases.

    A NamedTuple of tensors, so that ``torch.func.vmap`` maps over it as it is. All ratings are on the unit scale.

    Attributes:
        predictions: [T, N, A] what each base predicts; NaN where it cannot say. In a row that counts at least one
            base is finite.
        algorithm_features: [T, N, A, F] what is known about each base on this row; always finite.
        context: [T, N, C] what is known about the user and the item; always finite.
        targets: [T, N] the true ratings; 0 in padding.
        mask: [T, N] bool, true where the row counts; false in padding.
    """

    predictions: Tensor
    algorithm_features: Tensor
    context: Tensor
    targets: Tensor
    mask: Tensor

    def select(self, tasks: Tensor) -> FusionInputs:
        """The tasks at these positions (an index tensor along the leading axis)."""
        return FusionInputs(*(tensor[tasks] for tensor in self))


class EpisodeBatch(NamedTuple):
    """T episodes: `support` is what a user has rated so far, `query` is what the model is judged on."""

    support: FusionInputs
    query: FusionInputs

    @property
    def num_tasks(self) -> int:
        return self.support.mask.shape[0]

    def select(self, tasks: Tensor) -> EpisodeBatch:
        """The episodes at these positions (an index tensor)."""
        return EpisodeBatch(self.support.select(tasks), self.query.select(tasks))
