import numpy as np
import pytest
import torch

from metarec.errors import InputError
from metarec.fusion import HyperNetworkFusion
from tests.fusion import conftest
from tests.fusion.conftest import NAN, arrays, draw_inputs, stirred


def build(**options):
    return conftest.build("hypernetwork", **options)


def test_the_sketch_has_its_widths():
    network = HyperNetworkFusion(num_algorithms=5, context_dim=16)
    trunk = 16 * 128 + 128 + 128 * 128 + 128
    generators = 129 * (5 * 64) + 129 * 64 + 129 * 64 + 129
    assert sum(parameter.numel() for parameter in network.parameters()) == trunk + generators
    assert network(torch.rand(7, 5), torch.rand(7, 16)).shape == (7, 1)


@pytest.mark.parametrize("sizes", [(1, 2), (3, 7), (5, 64), (20, 65)])
def test_it_starts_as_the_mean_of_the_available_bases(sizes):
    algorithms, width = sizes
    for seed in range(20):
        inputs = draw_inputs(50, algorithms=algorithms, seed=seed)
        # Bases need not keep to the scale.
        predictions = 3 * inputs.predictions - 1
        mean = predictions.nanmean(-1).nan_to_num(0.5)
        prediction = build(algorithms=algorithms, target_net_dim=width, seed=seed)(predictions, inputs.context)
        torch.testing.assert_close(prediction.squeeze(-1), mean, rtol=0, atol=2e-6)


@pytest.mark.parametrize("use_features", [False, True])
def test_the_output_equals_one_computed_by_hand(use_features):
    network = stirred(build(use_features=use_features))
    inputs = draw_inputs(9, missing=0.3)
    output = network.fuse(inputs)
    assert output.weights is None
    assert output.confidences is None
    state = arrays(network)

    def linear(name, x):
        return state[f"{name}.weight"] @ x + state[f"{name}.bias"]

    for row in range(9):
        predictions, features, context, _ = (tensor[row].double().numpy() for tensor in inputs[:4])
        predictions[np.isnan(predictions)] = np.nanmean(predictions) if np.isfinite(predictions).any() else 0.5
        code = np.concatenate([*features, context]) if use_features else context
        for name in ("trunk.0", "trunk.2"):
            code = np.maximum(linear(name, code), 0)
        code = code / np.sqrt(5)
        first = linear("weight_1", code).reshape(3, 6)
        hidden = np.maximum((predictions - 0.5) @ first + linear("bias_1", code), 0)
        expected = 0.5 + hidden @ linear("weight_2", code) + linear("bias_2", code)[0]
        assert output.prediction[row].item() == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_nan_is_replaced_by_the_mean_of_the_other_bases():
    network = stirred(build())
    context = torch.rand(1, 5)
    silent, middle = (network(torch.tensor([[0.2, base, 0.8]]), context) for base in (NAN, 0.5))
    torch.testing.assert_close(silent, middle)


def test_it_learns_which_base_to_trust_from_the_context():
    """Also with plain gradient descent at the rates of an inner loop, where a bad start would explode."""
    generator = torch.Generator().manual_seed(0)
    target = torch.rand(400, generator=generator)
    context = torch.rand(400, 5, generator=generator)
    noise = 0.3 * torch.randn(400, 3, generator=generator)
    noise[:, 0] *= context[:, 0] < 0.5
    noise[:, 1] *= context[:, 0] >= 0.5
    predictions = target.unsqueeze(-1) + noise
    mean_error = (predictions.mean(-1) - target).square().mean().item()
    for make, enough in ((lambda p: torch.optim.Adam(p, lr=0.001), 0.6), (lambda p: torch.optim.SGD(p, lr=0.1), 0.9)):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            network = HyperNetworkFusion(3, 5)
        optimizer = make(network.parameters())
        errors = []
        for _ in range(150):
            error = (network(predictions, context).squeeze(-1) - target).square().mean()
            optimizer.zero_grad()
            error.backward()
            optimizer.step()
            errors.append(error.item())
        assert errors[0] == pytest.approx(mean_error, rel=1e-4)
        assert max(errors) < 1.01 * mean_error
        assert errors[-1] < enough * mean_error


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"context_dim": 0}, "context_dim must be an integer >= 1 but got 0"),
        ({"target_net_dim": 1}, "target_net_dim must be an integer >= 2 but got 1"),
        ({"hyper_hidden_dim": 0}, "hyper_hidden_dim must be an integer >= 1 but got 0"),
        ({"use_features": True}, "feature_dim must be an integer >= 1 but got 0"),
        ({"use_features": 1}, "use_features must be True or False but got 1"),
    ],
)
def test_options_are_checked(wrong, message):
    with pytest.raises(InputError, match=message):
        HyperNetworkFusion(**{"num_algorithms": 3, "context_dim": 5, **wrong})


def test_features_must_be_there_where_they_are_read():
    with pytest.raises(ValueError, match="algorithm_features must be given"):
        build(use_features=True)(torch.rand(2, 3), torch.rand(2, 5))
