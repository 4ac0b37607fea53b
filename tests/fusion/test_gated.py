"""The gated network: where it starts, a case by hand, and what its arguments may be."""

import numpy as np
import pytest
import torch

from metarec.errors import InputError
from metarec.fusion import GatedFusion
from metarec.fusion.networks._base import available_mean
from tests.fusion.conftest import arrays, build, draw_inputs, stirred


def test_it_starts_as_the_mean_of_the_available_bases():
    inputs = draw_inputs(6, 4)
    network = build("gated")
    torch.testing.assert_close(network.fuse(inputs).prediction, available_mean(inputs.predictions))


def test_a_case_by_hand():
    inputs = draw_inputs(5, missing=0.0, dtype=torch.float64)
    network = stirred(build("gated", dtype=torch.float64))
    p = arrays(network)
    x = np.concatenate([inputs.algorithm_features.numpy().reshape(5, -1), inputs.context.numpy()], 1)
    hidden = np.maximum(x @ p["body.0.weight"].T + p["body.0.bias"], 0)
    hidden = np.maximum(hidden @ p["body.3.weight"].T + p["body.3.bias"], 0)
    outputs = hidden @ p["head.weight"].T + p["head.bias"]
    exponents = np.exp(p["weight_logits"] + outputs[:, :3])
    weights = exponents / exponents.sum(1, keepdims=True)
    correction = outputs[:, 3] + (x @ p["correction.weight"].T + p["correction.bias"])[:, 0]
    output = network.fuse(inputs)
    np.testing.assert_allclose(output.weights.detach(), weights, atol=1e-12)
    np.testing.assert_allclose(
        output.prediction.detach(), (weights * inputs.predictions.numpy()).sum(1) + correction, atol=1e-12
    )


@pytest.mark.parametrize("dropout", [-0.1, 1.0, True, "much"])
def test_an_invalid_dropout_is_refused(dropout):
    with pytest.raises(InputError, match="dropout must be >= 0 and < 1"):
        GatedFusion(3, 4, 5, dropout=dropout)
