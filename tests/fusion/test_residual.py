import numpy as np
import pytest
import torch

from metarec.errors import InputError
from metarec.fusion import ResidualFusion
from tests.fusion import conftest
from tests.fusion.conftest import NAN, arrays, draw_inputs, stirred


def build(**options):
    return conftest.build("residual", **options)


@pytest.mark.parametrize("anchor", [-1, 0, 1])
def test_it_starts_exactly_as_its_anchor(anchor):
    inputs = draw_inputs(200)
    output = build(anchor=anchor).fuse(inputs)
    chosen = inputs.predictions[:, anchor]
    available = chosen.isfinite()
    assert torch.equal(output.prediction[available], chosen[available])
    alone = torch.nn.functional.one_hot(torch.tensor(anchor % 3), 3).float()
    assert torch.equal(output.weights[available], alone.expand(available.sum(), 3))
    # Where it is silent, the mean of the others; where all are, the middle of the scale.
    mean = inputs.predictions.nanmean(-1).nan_to_num(0.5)
    torch.testing.assert_close(output.prediction[~available], mean[~available])


@pytest.mark.parametrize("anchor", [-1, 0])
def test_the_output_equals_one_computed_by_hand(anchor):
    network = stirred(build(anchor=anchor))
    inputs = draw_inputs(40, missing=0.4)
    output = network.fuse(inputs)
    state = arrays(network)

    def linear(name, x):
        return state[f"{name}.weight"] @ x + state[f"{name}.bias"]

    for row in range(40):
        predictions, features, context, _ = (tensor[row].double().numpy() for tensor in inputs[:4])
        available = np.isfinite(predictions)
        start = predictions[anchor]
        if not available[anchor]:
            start = predictions[available].mean() if available.any() else 0.5
        x = np.concatenate([*features, context])
        deviations = linear("deviations", x)
        correction = linear("correction", x)[0] + linear("head.2", np.maximum(linear("head.0", x), 0))[0]
        expected = start + deviations[available] @ (predictions[available] - start) + correction
        assert output.prediction[row].item() == pytest.approx(expected, rel=1e-4, abs=1e-5)
        if available.any():
            weighted = output.weights[row].detach().double().numpy()[available] @ predictions[available] + correction
            assert weighted == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_weights_may_be_negative():
    network = build()
    with torch.no_grad():
        network.deviations.bias.copy_(torch.tensor([-0.5, 0.25, 7.0]))
    inputs = draw_inputs(1)._replace(predictions=torch.tensor([[0.2, 0.4, 0.6]]))
    output = network.fuse(inputs)
    assert output.weights.tolist() == [[-0.5, 0.25, 1.25]]
    assert output.prediction.item() == pytest.approx(-0.5 * 0.2 + 0.25 * 0.4 + 1.25 * 0.6)
    silent = inputs._replace(predictions=torch.tensor([[0.2, NAN, 0.6]]))
    assert network.fuse(silent).weights.tolist() == [[-0.5, 0, 1.5]]


def test_how_far_to_leave_the_anchor_is_learned_from_the_start():
    network = build()
    inputs = draw_inputs(20, missing=0)
    network.row_losses(inputs).mean().backward()
    anchored, theirs = inputs.predictions[:, -1:], inputs.predictions[:, :2]
    error = 2 * (anchored - inputs.targets.unsqueeze(-1))
    torch.testing.assert_close(network.deviations.bias.grad[:2], (error * (theirs - anchored)).mean(0))


@pytest.mark.parametrize("anchor", [3, -4, 1.0, True])
def test_the_anchor_must_be_one_of_the_bases(anchor):
    with pytest.raises(InputError, match=f"one of 3 bases, from -3 to 2, but got {anchor}"):
        ResidualFusion(3, 4, 5, anchor=anchor)
    with pytest.raises(InputError, match="hidden_dim must be an integer >= 1 but got 0"):
        ResidualFusion(3, 4, 5, hidden_dim=0)
