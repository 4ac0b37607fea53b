"""Strategies on rated rows: each makes a target model from source models and a few rated rows of the target."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import numpy as np
import torch
from sklearn.linear_model import RidgeCV
from torch import Tensor, nn

from metarec.errors import InputError
from metarec.meta import BatchedMAML
from metarec.model import fold_indices
from metarec.transfer.rows._rows import RatedRows, RowSource, TargetRows
from metarec.transfer.rows.alignment import AlignedModel, FeatureAligner
from metarec.transfer.rows.prototypes import PrototypeBasedModel, extract_prototypes
from metarec.transfer.sources import best_epoch
from metarec.transfer.strategies.gradient_based import agreeing_gradient, gradient_of, set_gradient

__all__ = ["ROW_STRATEGIES", "RowSources", "RowStrategy", "row_errors"]

RowSources = Mapping[str, RowSource]
RowStrategy = Callable[[RowSources, TargetRows, int], nn.Module]

PENALTIES = tuple(10.0**exponent for exponent in np.arange(0, 5.5, 0.5))
"""Of the ridge regression on few rows alone; the last one gives the mean of their ratings."""

SHARES = (0.0, 0.5, 1.0)
"""Of the alignment, where both domains have as many features; a larger one has to be clearly better."""

PROTOTYPES = 16
"""The most prototypes of each domain."""

FOLDS = 5
STEPS = 60
"""The most steps of joint training on target and sources; PATIENCE steps without progress end it."""
PATIENCE = 10
RATE = 0.003
BATCH = 64
"""Rows that are drawn from each source for a step."""

META_STEPS, META_RATE, TASKS = 20, 0.001, 16
INNER_STEPS, INNER_RATE = 5, 0.01
"""Of MAML; TASKS are drawn from each source for a step."""


def scratch(sources: RowSources, target: TargetRows, seed: int) -> nn.Module:
    """Ridge regression on the few rows alone, with the penalty chosen by leave-one-out."""
    features, ratings = (tensor.double().numpy() for tensor in target.few)
    spread = features.std(0)
    spread = np.where(spread > 1e-9, spread, np.inf)
    layer = nn.Linear(features.shape[1], 1, dtype=target.features.dtype, device="meta").to_empty(device="cpu")
    slope = np.zeros(features.shape[1])
    if len(ratings) > 1:
        slope = RidgeCV(PENALTIES).fit((features - features.mean(0)) / spread, ratings).coef_ / spread
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(slope))
        layer.bias.fill_(ratings.mean() - features.mean(0) @ slope)
    return layer


def feature_alignment(sources: RowSources, target: TargetRows, seed: int) -> nn.Module:
    """The model of the nearest source on aligned rows; the map is fine-tuned on the few ratings."""
    return _nearest(sources, target).model.fine_tune(*target.few)


def model_agnostic(sources: RowSources, target: TargetRows, seed: int) -> nn.Module:
    """A source's model meta-trained on tasks of all sources (MAML, Finn et al. 2017), and adapted to the few rows.

    A task has as many support rows of one source as there are few rows, and as many query rows.
    """
    start = _nearest(sources, target)
    maml = BatchedMAML(start.trainable(), INNER_RATE, allow_nograd=True)
    optimizer = torch.optim.Adam([own for own in maml.parameters() if own.requires_grad], lr=META_RATE)
    loss = nn.MSELoss(reduction="none")
    generator = torch.Generator().manual_seed(seed)
    sizes = [min(len(target.few.ratings), len(own.ratings) // 2) for own in start.sources]
    for _ in range(META_STEPS):
        losses = []
        for own, size in zip(start.sources, sizes, strict=True):
            if size:
                places = [torch.randperm(len(own.ratings), generator=generator)[: 2 * size] for _ in range(TASKS)]
                drawn = own.select(torch.stack(places))
                tasks = drawn.features, drawn.ratings.unsqueeze(-1)
                support, query = (tuple(t[:, part] for t in tasks) for part in (slice(size), slice(size, None)))
                losses.append(maml.meta_loss(support, query, loss=loss, steps=INNER_STEPS))
        if losses:
            optimizer.zero_grad()
            torch.stack(losses).mean().backward()
            optimizer.step()
    adapted = start.model.base_model.eval()
    inner = torch.optim.SGD([own for own in adapted.parameters() if own.requires_grad], lr=INNER_RATE)
    for _ in range(INNER_STEPS):
        inner.zero_grad()
        (adapted(start.few.features).squeeze(-1) - start.few.ratings).square().mean().backward()
        inner.step()
    inner.zero_grad()
    return start.model


def gradient_based(sources: RowSources, target: TargetRows, seed: int) -> nn.Module:
    """A source's model trained on the few rows, together with sources as far as their gradients agree.

    See :func:`~metarec.transfer.strategies.gradient_based.agreeing_gradient`. Cross-validation among the few rows
    chooses the number of steps.
    """
    start = _nearest(sources, target)
    model = start.trainable()
    count, chosen = len(start.few.ratings), 0
    if count > 1:
        curves = [
            _curve(copy.deepcopy(model), start.sources, start.few.select(others), start.few.select(part), seed)
            for others, part in fold_indices(count, FOLDS, seed)
        ]
        chosen = best_epoch(curves, PATIENCE)
    for _ in _joint_steps(model, start.sources, start.few, chosen, seed):
        pass
    return start.model


def prototype_based(sources: RowSources, target: TargetRows, seed: int) -> nn.Module:
    """Prototypes of all sources and of the few rows, aligned to one source and fitted to the few ratings."""
    start = _nearest(sources, target)
    found = {name: extract_prototypes(*own, PROTOTYPES, seed) for name, own in zip(sources, start.sources, strict=True)}
    few = extract_prototypes(*start.few, PROTOTYPES, seed)
    return AlignedModel(PrototypeBasedModel(found, few).fit(*start.few), start.model.feature_aligner)


ROW_STRATEGIES: dict[str, RowStrategy] = {
    "feature_alignment": feature_alignment,
    "model_agnostic": model_agnostic,
    "gradient_based": gradient_based,
    "prototype_based": prototype_based,
    "scratch": scratch,
}


def row_errors(model: nn.Module, rows: RatedRows) -> Tensor:
    """[R] squared errors of a model in eval mode.

    Raises:
        InputError: the model's predictions are not [R, 1].
    """
    with torch.no_grad():
        predictions = model(rows.features)
    if predictions.shape != (len(rows.ratings), 1):
        raise InputError(f"a model must map features [B, F] to [B, 1] but made {list(predictions.shape)}")
    return (predictions.squeeze(-1) - rows.ratings).square()


class _Start(NamedTuple):
    """The model of the nearest source, and all rows in the feature space of this source.

    Attributes:
        model: a copy, after a map from the target's features. few: the target's few rows after that map.
        sources: the rows of all sources.
    """

    model: AlignedModel
    few: RatedRows
    sources: list[RatedRows]

    def trainable(self) -> nn.Module:
        """The copy of the source's model itself."""
        if not any(parameter.requires_grad for parameter in self.model.base_model.parameters()):
            raise InputError("a source's model must have parameters that require a gradient but has none; use scratch")
        return self.model.base_model


def _nearest(sources: RowSources, target: TargetRows) -> _Start:
    """Choose the source and the share of alignment with the smallest errors on the few rows.

    The first source and the least alignment are left only for errors that are smaller by more than a standard error.
    """
    candidates = [(name, model) for name in sorted(sources) for model in _alignments(sources[name], target)]
    errors = [row_errors(model, target.few) for _, model in candidates]
    best = 0
    for place, own in enumerate(errors):
        gains = errors[best] - own
        if float(gains.sum()) > float(gains.std(correction=0)) * len(gains) ** 0.5:
            best = place
    name, model = candidates[best]
    home = sources[name].rows.features
    with torch.no_grad():
        few = target.few._replace(features=model.feature_aligner(target.few.features))
        return _Start(model, few, [_in_space_of(source.rows, home) for source in sources.values()])


def _in_space_of(rows: RatedRows, home: Tensor) -> RatedRows:
    """A source's rows, aligned to the features `home` if they have another number of them."""
    if rows.features.shape[1] == home.shape[1]:
        return rows
    return rows._replace(features=FeatureAligner(home, rows.features)(rows.features))


def _alignments(source: RowSource, target: TargetRows) -> Iterator[AlignedModel]:
    """From no alignment to a full one; only the full one where the numbers of features differ."""
    whole = FeatureAligner(source.rows.features, target.features)
    same = whole.weight.shape[0] == whole.weight.shape[1]
    for share in SHARES if same else SHARES[-1:]:
        aligner = copy.deepcopy(whole)
        with torch.no_grad():
            if same:
                aligner.weight.lerp_(torch.eye(len(whole.weight)).to(whole.weight), 1 - share)
            aligner.bias.mul_(share)
        yield AlignedModel(copy.deepcopy(source.model), aligner).eval()


def _curve(
    model: nn.Module, sources: list[RatedRows], train: RatedRows, validation: RatedRows, seed: int
) -> Iterator[float]:
    """The sum of squared validation errors before the first step on the train rows, and after each."""
    yield float(row_errors(model, validation).sum())
    for _ in _joint_steps(model, sources, train, STEPS, seed):
        yield float(row_errors(model, validation).sum())


def _joint_steps(model: nn.Module, sources: list[RatedRows], few: RatedRows, count: int, seed: int) -> Iterator[None]:
    generator = torch.Generator().manual_seed(seed)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.Adam(parameters, lr=RATE)

    def gradient(rows: RatedRows) -> Tensor:
        loss = (model(rows.features).squeeze(-1) - rows.ratings).square().mean()
        return gradient_of(loss, parameters)

    for _ in range(count):
        drawn = [own.select(torch.randperm(len(own.ratings), generator=generator)[:BATCH]) for own in sources]
        combined, _ = agreeing_gradient(gradient(few), [gradient(rows) for rows in drawn])
        set_gradient(parameters, combined)
        optimizer.step()
        yield
    optimizer.zero_grad()
