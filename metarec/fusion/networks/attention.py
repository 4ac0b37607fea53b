"""Attention over bases, with a confidence in each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from metarec.episodes import FusionInputs
from metarec.errors import InputError, check_at_least
from metarec.fusion.losses import confidence_loss, negative_entropy
from metarec.fusion.networks._base import (
    MIDDLE,
    PREDICTION_LOSS,
    TEMPERATURE,
    FusionNetwork,
    FusionOutput,
    ParallelLinear,
    all_features,
    check_ends,
    masked_softmax,
    weighted_sum,
    zeroed,
)
from metarec.fusion.space import Choice, Parameter, RealRange

__all__ = ["MetaRecommenderFusion"]


class _RowLosses(NamedTuple):
    prediction: Tensor
    diversity: Tensor
    confidence: Tensor


class MetaRecommenderFusion(FusionNetwork):
    """Encodes the features of each base, and weights the bases by attention and confidence.

    Each base's features go through an encoder of its own, and each encoding through a confidence head of its own.
    The attention over bases reads all encodings and the context. The encodings, summed with the combined weights, go
    through a head that outputs the rating.

    Args:
        num_algorithms: A, the number of bases.
        feature_dim: F, features per base.
        hidden_dim: H, the width of an encoder's hidden layer; an encoding has H // 2 numbers.
        meta_hidden_dim: the width of the attention's hidden layers.
        output_dim: numbers per prediction; :meth:`fuse` needs 1.
        context_dim: C, context features; by default `feature_dim`.
        combine: how attention and confidence become one weight per base. "softmax" is softmax(attention * confidence),
            which can favour one base over another by a factor of e at the most; "product" is their product, normalised,
            which can pick a single base.
        anchored: the head, and a linear map of all features beside it, correct the weighted mean of the bases'
            predictions. Both start at zero, so that the untrained network predicts a weighted mean. Otherwise the
            head outputs the rating and starts near 0.5.
        prediction_loss: the loss of the predictions in the network's own loss: "mse", "mae" or "huber" of ratings, or
            "softmax", "bpr" or "lambda" of ranked lists.
        temperature: that of the loss of ranked lists.
        diversity_weight: the weight of the attention's negative entropy in that loss.
        confidence_weight: the weight of the confidences' error in that loss; without effect in ranked lists, whose
            targets are no ratings that a base could be near to.

    Raises:
        InputError: an argument breaks its rule.

    >>> network = MetaRecommenderFusion(num_algorithms=5, feature_dim=16).eval()
    >>> outputs = network(torch.zeros(8, 5, 16), torch.zeros(8, 16))
    >>> outputs["prediction"].shape, outputs["combined_weights"].shape
    (torch.Size([8, 1]), torch.Size([8, 5]))
    """

    last_layers: ClassVar[tuple[str, ...]] = ("head", "correction")
    searched: ClassVar[Mapping[str, Parameter]] = {
        "diversity_weight": Parameter(0.01, RealRange(low=1e-4, high=0.1, log=True), "pull towards spread-out weights"),
        "confidence_weight": Parameter(0.1, RealRange(low=1e-3, high=1.0, log=True), "weight of the confidence loss"),
        "prediction_loss": PREDICTION_LOSS,
        "combine": Parameter("product", Choice(choices=["softmax", "product"]), "how attention and confidence meet"),
    }

    def __init__(
        self,
        num_algorithms: int,
        feature_dim: int,
        hidden_dim: int = 128,
        meta_hidden_dim: int = 64,
        output_dim: int = 1,
        *,
        context_dim: int | None = None,
        combine: Literal["softmax", "product"] = "softmax",
        anchored: bool = False,
        prediction_loss: str = "mse",
        temperature: float = TEMPERATURE,
        diversity_weight: float = 0.01,
        confidence_weight: float = 0.1,
    ) -> None:
        super().__init__()
        context_dim = feature_dim if context_dim is None else context_dim
        check_at_least(1, num_algorithms=num_algorithms, feature_dim=feature_dim, output_dim=output_dim)
        check_at_least(1, meta_hidden_dim=meta_hidden_dim)
        check_at_least(0, context_dim=context_dim)
        check_at_least(4, hidden_dim=hidden_dim)
        if combine not in ("softmax", "product"):
            raise InputError(f'combine must be "softmax" or "product" but got {combine!r}')
        if anchored and output_dim != 1:
            raise InputError(f"output_dim must be 1 where anchored but got {output_dim}")
        self._set_loss(
            prediction_loss, temperature=temperature, diversity=diversity_weight, confidence=confidence_weight
        )
        self.num_algorithms = num_algorithms
        self.feature_dim = feature_dim
        self.context_dim = context_dim
        self.output_dim = output_dim
        self.combine = combine
        self.anchored = anchored
        self.diversity_weight = diversity_weight
        self.confidence_weight = confidence_weight

        encoding_dim = hidden_dim // 2
        self.encoders = nn.Sequential(
            ParallelLinear(num_algorithms, feature_dim, hidden_dim),
            nn.ReLU(),
            nn.Dropout(0.2),
            ParallelLinear(num_algorithms, hidden_dim, encoding_dim),
        )
        self.confidence_heads = nn.Sequential(
            ParallelLinear(num_algorithms, encoding_dim, 32), nn.ReLU(), ParallelLinear(num_algorithms, 32, 1)
        )
        self.attention = nn.Sequential(
            nn.Linear(num_algorithms * encoding_dim + context_dim, meta_hidden_dim),
            nn.ReLU(),
            nn.Dropout(0.3),
            nn.Linear(meta_hidden_dim, meta_hidden_dim),
            nn.ReLU(),
            nn.Linear(meta_hidden_dim, num_algorithms),
        )
        if anchored:
            self.correction = zeroed(nn.Linear(num_algorithms * feature_dim + context_dim, output_dim))
        last = nn.Linear(hidden_dim // 4, output_dim)
        nn.init.constant_(last.bias, MIDDLE)
        if anchored:
            zeroed(last)
        self.head = nn.Sequential(nn.Linear(encoding_dim, hidden_dim // 4), nn.ReLU(), last)

    def forward(
        self, algorithm_features: Tensor, context_features: Tensor, predictions: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Fuse rows of any leading shape.

        Args:
            algorithm_features: [..., A, F]; context_features: [..., C].
            predictions: [..., A] of the bases; a base that predicts NaN gets no weight. Needed where `anchored`.

        Returns:
            ``prediction`` [..., output_dim]; ``attention_weights``, ``confidence_weights`` and ``combined_weights``
            [..., A]; ``algorithm_encodings`` [..., A, hidden_dim // 2].

        Raises:
            ValueError: the last axes do not fit the network, or there are no predictions to anchor at.
        """
        self._check_widths(algorithm_features, context_features, predictions)
        available = None if predictions is None else predictions.isfinite()
        encodings = self.encoders(algorithm_features)
        attention_logits = self.attention(torch.cat([encodings.flatten(-2), context_features], dim=-1))
        confidence_logits = self.confidence_heads(encodings).squeeze(-1)
        attention = masked_softmax(attention_logits, available)
        confidence = torch.sigmoid(confidence_logits)
        if self.combine == "product":
            # In logarithms, where the product of two vanishing numbers is still a number.
            combined = masked_softmax(attention_logits + functional.logsigmoid(confidence_logits), available)
        else:
            combined = masked_softmax(attention * confidence, available)
        # Not a matrix product, which would be a call for each row.
        prediction = self.head((combined.unsqueeze(-1) * encodings).sum(-2))
        if self.anchored and predictions is not None:
            anchor = weighted_sum(combined, predictions).unsqueeze(-1)
            prediction = prediction + anchor + self.correction(all_features(algorithm_features, context_features))
        return {
            "prediction": prediction,
            "attention_weights": attention,
            "confidence_weights": confidence,
            "combined_weights": combined,
            "algorithm_encodings": encodings,
        }

    def compute_loss(
        self, outputs: dict[str, Tensor], targets: Tensor, algorithm_targets: Tensor | None = None
    ) -> dict[str, Tensor]:
        """The loss of the outputs of :meth:`forward`, averaged over all rows.

        Args:
            outputs: the return value of :meth:`forward`.
            targets: [...] or [..., output_dim] the true ratings.
            algorithm_targets: [..., A] the bases' predictions for these rows, or NaN. Their errors give the targets of
                the confidences (:func:`~metarec.fusion.losses.confidence_target`); without them the confidences are not
                trained.

        Returns:
            scalars: ``total_loss`` = ``prediction_loss`` + diversity_weight * ``diversity_loss``
            (negative entropy of the attention) + confidence_weight * ``confidence_loss``; and ``attention_entropy``.

        Raises:
            ValueError: the shapes do not fit each other.
        """
        every_row = torch.ones_like(outputs["prediction"][..., 0], dtype=torch.bool)
        rows = self._row_losses(outputs, targets, algorithm_targets, every_row)
        prediction, diversity, confidence = (losses.mean() for losses in rows)
        return {
            "total_loss": prediction + self.diversity_weight * diversity + self.confidence_weight * confidence,
            "prediction_loss": prediction,
            "diversity_loss": diversity,
            "confidence_loss": confidence,
            "attention_entropy": -diversity,
        }

    def fuse(self, inputs: FusionInputs) -> FusionOutput:
        """One prediction per row; the weights are the combined ones. Needs ``output_dim=1``."""
        outputs = self._outputs(inputs)
        return FusionOutput(
            outputs["prediction"].squeeze(-1), outputs["combined_weights"], outputs["confidence_weights"]
        )

    def row_losses(self, inputs: FusionInputs) -> Tensor:
        """[...] the total loss of each row, as in :meth:`compute_loss`."""
        rows = self._row_losses(self._outputs(inputs), inputs.targets, inputs.predictions, inputs.mask)
        return rows.prediction + self.diversity_weight * rows.diversity + self.confidence_weight * rows.confidence

    def _outputs(self, inputs: FusionInputs) -> dict[str, Tensor]:
        if self.output_dim != 1:
            raise ValueError(f"output_dim must be 1 to fuse ratings but got {self.output_dim}")
        outputs: dict[str, Tensor] = self(inputs.algorithm_features, inputs.context, inputs.predictions)
        return outputs

    def _row_losses(
        self, outputs: dict[str, Tensor], targets: Tensor, algorithm_targets: Tensor | None, mask: Tensor
    ) -> _RowLosses:
        prediction = outputs["prediction"]
        # [B, 1] - [B] would quietly become [B, B].
        targets = targets.unsqueeze(-1) if targets.dim() == prediction.dim() - 1 else targets
        if targets.shape != prediction.shape:
            raise ValueError(f"targets must have the shape {list(prediction.shape)} but got {list(targets.shape)}")
        diversity = negative_entropy(outputs["attention_weights"])
        confidences = outputs["confidence_weights"]
        if algorithm_targets is None or self.list_wise:
            confidence = torch.zeros_like(diversity)
        elif self.output_dim != 1:
            raise ValueError(f"output_dim must be 1 where there are algorithm_targets but got {self.output_dim}")
        elif algorithm_targets.shape != confidences.shape:
            shapes = f"{list(confidences.shape)} but got {list(algorithm_targets.shape)}"
            raise ValueError(f"algorithm_targets must have the shape {shapes}")
        else:
            confidence = confidence_loss(confidences, algorithm_targets, targets.squeeze(-1))
        # Rows are the last axis of a list.
        error = self.prediction_losses(prediction.movedim(-1, 0), targets.movedim(-1, 0), mask).mean(0)
        return _RowLosses(error, diversity, confidence)

    def _check_widths(self, features: Tensor, context: Tensor, predictions: Tensor | None) -> None:
        check_ends("algorithm_features", features, self.num_algorithms, self.feature_dim)
        check_ends("context_features", context, self.context_dim)
        if predictions is not None:
            check_ends("predictions", predictions, self.num_algorithms)
        elif self.anchored:
            raise ValueError("predictions must be given to an anchored network, which corrects their weighted mean")
