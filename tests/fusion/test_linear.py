import numpy as np
import pytest
import torch

from metarec.errors import InputError
from metarec.fusion import LinearFusion
from tests.fusion import conftest
from tests.fusion.conftest import arrays, draw_inputs, stirred


def build(**options):
    return conftest.build("linear", **options)


def test_it_starts_as_the_mean_of_the_available_bases():
    inputs = draw_inputs(50)
    output = build().fuse(inputs)
    none = ~inputs.predictions.isfinite().any(-1)
    assert none.any()
    assert not none.all()
    torch.testing.assert_close(output.prediction, torch.where(none, 0.5, inputs.predictions.nanmean(-1)))


@pytest.mark.parametrize("correction", [True, False])
def test_the_output_equals_one_computed_by_hand(correction):
    network = stirred(build(correction=correction))
    inputs = draw_inputs(9, missing=0.2)
    output = network.fuse(inputs)
    state = arrays(network)
    for row in range(9):
        predictions, features, context, _ = (tensor[row].double().numpy() for tensor in inputs[:4])
        available = np.isfinite(predictions)
        assert available.any()
        weights = np.exp(state["logits"]) * available
        weights = weights / weights.sum()
        expected = weights[available] @ predictions[available] + state["bias"]
        if correction:
            expected += state["correction.weight"][0] @ np.concatenate([*features, context])
        assert output.weights[row].tolist() == pytest.approx(weights.tolist(), rel=1e-5)
        assert output.prediction[row].item() == pytest.approx(expected, rel=1e-5)


def test_one_step_moves_the_bias_to_the_users_mean_residual():
    inputs = draw_inputs(8, missing=0)
    network = build(correction=False)
    residual = (inputs.targets - network.fuse(inputs).prediction).mean().item()
    network.row_losses(inputs).mean().backward()
    assert network.bias.item() - 0.5 * network.bias.grad.item() == pytest.approx(residual, abs=1e-6)


def test_it_has_the_fewest_parameters():
    assert sum(parameter.numel() for parameter in build(correction=False).parameters()) == 3 + 1
    assert sum(parameter.numel() for parameter in build().parameters()) == 3 + 1 + 3 * 4 + 5


def test_options_are_checked():
    with pytest.raises(InputError, match="correction must be True or False but got 'no'"):
        LinearFusion(3, 4, 5, correction="no")
