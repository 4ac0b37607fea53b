import math

import numpy as np
import pytest
import torch

from metarec.errors import InputError
from metarec.fusion import NETWORKS, MetaRecommenderFusion
from metarec.fusion.networks._base import ParallelLinear
from tests.fusion import conftest
from tests.fusion.conftest import NAN, arrays, draw_inputs, stirred

VARIANTS = [
    {"combine": "softmax"},
    {"combine": "product"},
    {"combine": "softmax", "anchored": True},
    {"combine": "product", "anchored": True},
]
variants = pytest.mark.parametrize("options", VARIANTS)


def build(**options):
    return conftest.build("attention", **options)


def test_the_sketch_has_its_widths():
    network = MetaRecommenderFusion(num_algorithms=5, feature_dim=16)
    assert sum(parameter.numel() for parameter in network.parameters()) == 90_891
    outputs = network(torch.randn(7, 5, 16), torch.randn(7, 16))
    assert {name: list(tensor.shape) for name, tensor in outputs.items()} == {
        "prediction": [7, 1],
        "attention_weights": [7, 5],
        "confidence_weights": [7, 5],
        "combined_weights": [7, 5],
        "algorithm_encodings": [7, 5, 64],
    }


def test_parallel_linear_is_many_linear_layers():
    layer = ParallelLinear(3, 4, 2)
    inputs = torch.randn(6, 5, 3, 4)
    expected = torch.stack(
        [torch.nn.functional.linear(inputs[..., i, :], layer.weight[i], layer.bias[i]) for i in range(3)], dim=-2
    )
    torch.testing.assert_close(layer(inputs), expected)


def test_parallel_linear_starts_as_a_linear_layer_does():
    for size in (4, 100):
        ours, theirs = ParallelLinear(40, size, 50), torch.nn.Linear(size, 2000)
        bound = 1 / math.sqrt(size)
        for mine, other in ((ours.weight, theirs.weight), (ours.bias, theirs.bias)):
            assert mine.abs().max() <= bound
            assert mine.std().item() == pytest.approx(other.std().item(), rel=0.1)
            assert mine.abs().max().item() == pytest.approx(bound, rel=0.01)


@variants
def test_a_nan_base_does_not_change_the_ratios_of_the_other_weights(options):
    network = stirred(build(**options))
    inputs = draw_inputs(6, missing=0)
    full = network.fuse(inputs).weights
    silent = inputs.predictions.clone()
    silent[:, 1] = NAN
    weights = network.fuse(inputs._replace(predictions=silent)).weights
    assert (weights[:, 1] == 0).all()
    if options["combine"] == "product":
        torch.testing.assert_close(weights[:, 0] / weights[:, 2], full[:, 0] / full[:, 2])


@pytest.mark.parametrize("combine", ["softmax", "product"])
def test_an_anchored_network_starts_as_a_weighted_mean(combine):
    inputs = draw_inputs(20, missing=0.3)
    output = build(combine=combine, anchored=True).fuse(inputs)
    mean = (output.weights * inputs.predictions.nan_to_num(0)).sum(-1)
    none = ~inputs.predictions.isfinite().any(-1)
    assert not none.all()
    torch.testing.assert_close(output.prediction, torch.where(none, 0.5, mean))
    low, high = inputs.predictions.nan_to_num(9).amin(-1), inputs.predictions.nan_to_num(-9).amax(-1)
    assert (((output.prediction >= low - 1e-6) & (output.prediction <= high + 1e-6)) | none).all()


def test_the_sketch_starts_in_the_middle_of_the_scale():
    assert build().head[-1].bias.item() == 0.5
    assert build().fuse(draw_inputs(100)).prediction.mean().item() == pytest.approx(0.5, abs=0.35)


def test_softmax_squeezes_the_weights_and_product_can_pick_one_base():
    inputs = draw_inputs(200, missing=0)
    softmax = stirred(build(combine="softmax"), std=3.0).fuse(inputs).weights
    product = stirred(build(combine="product"), std=3.0).fuse(inputs).weights
    assert (softmax.amax(-1) / softmax.amin(-1)).max() <= math.e + 1e-4
    assert product.amax() > 0.99


def test_the_combined_weights_are_made_as_documented():
    inputs = draw_inputs(9, missing=0)
    for combine in ("softmax", "product"):
        network = stirred(build(combine=combine))
        outputs = network(inputs.algorithm_features, inputs.context)
        product = outputs["attention_weights"] * outputs["confidence_weights"]
        expected = product.softmax(-1) if combine == "softmax" else product / product.sum(-1, keepdim=True)
        torch.testing.assert_close(outputs["combined_weights"], expected)


def test_the_product_is_safe_where_attention_and_confidence_vanish():
    network = build(combine="product")
    torch.nn.init.constant_(network.confidence_heads[-1].bias, -200)
    torch.nn.init.zeros_(network.confidence_heads[-1].weight)
    output = network.fuse(draw_inputs(4, missing=0))
    assert (output.confidences == 0).all()
    torch.testing.assert_close(output.weights.sum(-1), torch.ones(4))


@variants
def test_the_output_equals_one_computed_by_hand_from_the_layers(options):
    network = stirred(build(**options))
    inputs = draw_inputs(7, missing=0.3)
    output = network.fuse(inputs)
    state = arrays(network)

    def linear(name, x, base=...):
        return state[f"{name}.weight"][base] @ x + state[f"{name}.bias"][base]

    for row in range(7):
        predictions, features, context, _ = (tensor[row].double().numpy() for tensor in inputs[:4])
        available = np.flatnonzero(np.isfinite(predictions))
        if len(available) == 0:
            continue
        encodings = [
            linear("encoders.3", np.maximum(linear("encoders.0", features[a], a), 0), a) for a in range(len(features))
        ]
        logits = np.concatenate([*encodings, context])
        for name in ("attention.0", "attention.3", "attention.5"):
            logits = linear(name, logits if name == "attention.0" else np.maximum(logits, 0))
        attention = np.exp(logits[available]) / np.exp(logits[available]).sum()
        doubts = [
            linear("confidence_heads.2", np.maximum(linear("confidence_heads.0", encodings[a], a), 0), a)[0]
            for a in available
        ]
        weights = attention / (1 + np.exp(-np.array(doubts)))
        if options["combine"] == "softmax":
            weights = np.exp(weights)
        weights = weights / weights.sum()
        mixture = sum(weight * encodings[a] for weight, a in zip(weights, available, strict=True))
        expected = linear("head.2", np.maximum(linear("head.0", mixture), 0))[0]
        if options.get("anchored"):
            expected += weights @ predictions[available]
            expected += linear("correction", np.concatenate([*features, context]))[0]
        assert output.weights[row, available].tolist() == pytest.approx(weights.tolist(), rel=1e-4, abs=1e-6)
        assert output.prediction[row].item() == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_compute_loss_is_the_sum_of_its_parts():
    inputs = draw_inputs(9, missing=0.2)
    network = stirred(build(diversity_weight=0.3, confidence_weight=0.7))
    outputs = network(inputs.algorithm_features, inputs.context, inputs.predictions)
    losses = network.compute_loss(outputs, inputs.targets, inputs.predictions)
    assert set(losses) == {
        "total_loss",
        "prediction_loss",
        "diversity_loss",
        "confidence_loss",
        "attention_entropy",
    }
    total = losses["prediction_loss"] + 0.3 * losses["diversity_loss"] + 0.7 * losses["confidence_loss"]
    torch.testing.assert_close(losses["total_loss"], total)
    torch.testing.assert_close(losses["total_loss"], network.row_losses(inputs).mean())
    torch.testing.assert_close(
        losses["prediction_loss"], (outputs["prediction"].squeeze(-1) - inputs.targets).square().mean()
    )
    assert losses["attention_entropy"] == -losses["diversity_loss"]
    assert 0 < losses["attention_entropy"] <= math.log(3) + 1e-6
    # [B] and [B, 1] are the same targets; broadcasting one against the other would make them [B, B].
    torch.testing.assert_close(network.compute_loss(outputs, inputs.targets.unsqueeze(-1), inputs.predictions), losses)
    without = network.compute_loss(outputs, inputs.targets)
    assert without["confidence_loss"] == 0


def test_the_loss_is_a_number_when_every_base_is_right():
    inputs = draw_inputs(5, missing=0)
    right = inputs.targets.unsqueeze(-1).expand(-1, 3)
    network = stirred(build())
    outputs = network(inputs.algorithm_features, inputs.context, right)
    loss = network.compute_loss(outputs, inputs.targets, right)["confidence_loss"]
    torch.testing.assert_close(loss, (1 - outputs["confidence_weights"]).square().mean())


def test_wrong_shapes_are_named():
    inputs = draw_inputs(5)
    network = build()
    with pytest.raises(ValueError, match=r"predictions must end in \[3\] but got \[5, 2\]"):
        network(inputs.algorithm_features, inputs.context, inputs.predictions[..., :2])
    with pytest.raises(ValueError, match=r"algorithm_features must end in \[3, 4\] but got \[5, 3, 3\]"):
        network(inputs.algorithm_features[..., :3], inputs.context)
    with pytest.raises(ValueError, match=r"context_features must end in \[5\] but got \[5, 4\]"):
        network(inputs.algorithm_features, inputs.context[..., :4])
    outputs = network(inputs.algorithm_features, inputs.context)
    with pytest.raises(ValueError, match=r"targets must have the shape \[5, 1\] but got \[4, 1\]"):
        network.compute_loss(outputs, inputs.targets[:4])
    with pytest.raises(ValueError, match="algorithm_targets must have the shape"):
        network.compute_loss(outputs, inputs.targets, inputs.predictions[:, :2])
    with pytest.raises(ValueError, match="predictions must be given"):
        build(anchored=True)(inputs.algorithm_features, inputs.context)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"num_algorithms": 0}, "num_algorithms must be an integer >= 1 but got 0"),
        ({"feature_dim": 0}, "feature_dim must be"),
        ({"hidden_dim": 2}, "hidden_dim must be an integer >= 4 but got 2"),
        ({"meta_hidden_dim": 1.5}, "meta_hidden_dim must be an integer >= 1 but got 1.5"),
        ({"context_dim": -1}, "context_dim must be an integer >= 0 but got -1"),
        ({"combine": "sum"}, "combine must be"),
        ({"anchored": True, "output_dim": 2}, "output_dim must be 1 where anchored but got 2"),
        ({"diversity_weight": -0.1}, "diversity_weight must be >= 0 and finite but got -0.1"),
        ({"confidence_weight": NAN}, "confidence_weight must be >= 0 and finite but got nan"),
    ],
)
def test_arguments_are_checked(wrong, message):
    with pytest.raises(InputError, match=message):
        MetaRecommenderFusion(**{"num_algorithms": 3, "feature_dim": 4, **wrong})


def test_networks_are_built_by_name_and_shape():
    network = NETWORKS.get("attention").for_episodes(3, 4, 5, combine="product", hidden_dim=16)
    assert isinstance(network, MetaRecommenderFusion)
    assert (network.num_algorithms, network.feature_dim, network.context_dim) == (3, 4, 5)
