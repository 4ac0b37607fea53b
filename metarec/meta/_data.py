"""The data that a trainer accepts, as batches of tasks on one device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from metarec.episodes import EpisodeBatch, Episodes, FusionInputs
from metarec.errors import InputError
from metarec.fusion import FusionNetwork, FusionOutput

__all__ = ["RegressionNetwork", "Row", "Shape", "Task", "TrainingData", "as_batches", "stack_rows", "stack_tasks"]

Row = Mapping[str, Any]
"""One row: algorithm_features[A][F], context_features[C], algorithm_predictions[A] or algorithm_targets[A], targets."""

Task = tuple[Tensor, Tensor, Tensor, Tensor]
"""(support_x[K, F], support_y[K], query_x[N, F], query_y[N]); a y may be [n, 1] too."""

TrainingData = EpisodeBatch | Episodes | Sequence[EpisodeBatch | Episodes] | Sequence[Row]


class Shape(NamedTuple):
    """The shape of a network's input rows: A bases, F features of each base, C context features."""

    num_algorithms: int
    feature_dim: int
    context_dim: int

    @classmethod
    def of(cls, batch: EpisodeBatch) -> Self:
        """The shape of the query rows of a batch."""
        num_algorithms, feature_dim = batch.query.algorithm_features.shape[-2:]
        return cls(num_algorithms, feature_dim, batch.query.context.shape[-1])


def as_batches(data: TrainingData, device: torch.device, name: str) -> list[EpisodeBatch]:
    """One EpisodeBatch for each domain in `data`; `name` names it in messages.

    Raises:
        InputError: it is empty, or holds something that is not episodes.
    """
    parts: Sequence[Any] = [data] if isinstance(data, EpisodeBatch | Episodes) else data
    if parts and all(isinstance(part, Mapping) for part in parts):
        parts = [stack_rows(parts, name)]
    batches = [part.batch if isinstance(part, Episodes) else part for part in parts]
    for batch in batches:
        if not isinstance(batch, EpisodeBatch):
            raise InputError(f"{name} must be episodes, or a list of dicts, but holds {type(batch).__name__}")
    if not any(bool(batch.query.mask.any()) for batch in batches):
        raise InputError(f"{name} must have at least one query row but has none")
    return [
        EpisodeBatch(*(FusionInputs(*(tensor.to(device) for tensor in inputs)) for inputs in batch))
        for batch in batches
    ]


def stack_rows(rows: Sequence[Row], name: str) -> EpisodeBatch:
    """Each row as a task with one query row and no support, so that nothing is adapted.

    Raises:
        InputError: a row lacks a key, or rows have different shapes; the message gives the row's position.
    """
    columns = [_read_row(row, f"{name}[{position}]") for position, row in enumerate(rows)]
    for position, column in enumerate(columns):
        for key, tensor, first in zip(_KEYS, column, columns[0], strict=True):
            if tensor.shape != first.shape:
                raise InputError(
                    f"{name}[{position}]: {key} must have the shape {list(first.shape)} of the first row's "
                    f"but got {list(tensor.shape)}"
                )
    predictions, features, context, targets = (
        torch.stack(column).unsqueeze(1) for column in zip(*columns, strict=True)
    )
    query = FusionInputs(predictions, features, context, targets, torch.ones_like(targets, dtype=torch.bool))
    return EpisodeBatch(FusionInputs(*(tensor[:, :0] for tensor in query)), query)


def stack_tasks(tasks: Sequence[Task], device: torch.device) -> EpisodeBatch:
    """Tasks of plain regression, padded to one length, with x as the context."""
    support_x, support_y, query_x, query_y = zip(*tasks, strict=True)
    return EpisodeBatch(_regression_inputs(support_x, support_y, device), _regression_inputs(query_x, query_y, device))


class RegressionNetwork(FusionNetwork):
    """A module that maps x[B, F] to [B, 1] as a fusion network: x is the context of each row."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def fuse(self, inputs: FusionInputs) -> FusionOutput:
        answer = self.module(inputs.context)
        if answer.shape != (*inputs.targets.shape, 1):
            raise ValueError(
                f"the model must map x[B, F] to [B, 1] but maps {list(inputs.context.shape)} to {list(answer.shape)}"
            )
        return FusionOutput(answer.squeeze(-1))


_KEYS = ("algorithm_predictions", "algorithm_features", "context_features", "targets")


def _read_row(row: Row, where: str) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    # A base's confidence is compared with its own predictions, so the two names mean the same here.
    predictions = row.get("algorithm_predictions", row.get("algorithm_targets"))
    if predictions is None:
        raise InputError(f'{where}: has neither "algorithm_predictions" nor "algorithm_targets"; give one of them')
    if "targets" not in row:
        raise InputError(f'{where}: has no "targets"; give the true rating')
    predicted = torch.as_tensor(predictions).flatten()
    target = torch.as_tensor(row["targets"], dtype=predicted.dtype)
    if target.numel() != 1:
        raise InputError(f"{where}: targets must be one number but got the shape {list(target.shape)}")
    features = torch.as_tensor(row.get("algorithm_features", torch.empty(len(predicted), 0)), dtype=predicted.dtype)
    context = torch.as_tensor(row.get("context_features", torch.empty(0)), dtype=predicted.dtype)
    return predicted, features, context, target.reshape(())


def _regression_inputs(xs: Sequence[Tensor], ys: Sequence[Tensor], device: torch.device) -> FusionInputs:
    x = pad_sequence(list(xs), batch_first=True).to(device)
    y = pad_sequence([y.reshape(len(x)) for x, y in zip(xs, ys, strict=True)], batch_first=True).to(device)
    lengths = torch.tensor([len(x) for x in xs], device=device)
    mask = torch.arange(y.shape[1], device=device) < lengths.unsqueeze(-1)
    nothing = x.new_empty(*y.shape, 0)
    return FusionInputs(nothing, nothing.unsqueeze(-1), x, y, mask)
