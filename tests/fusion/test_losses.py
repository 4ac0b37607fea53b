import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from metarec.fusion.losses import (
    absolute_error,
    confidence_loss,
    confidence_target,
    huber_error,
    masked_mean,
    negative_entropy,
    squared_error,
    task_means,
)

NAN = float("nan")


def test_errors_of_rows():
    prediction, target = torch.tensor([0.5, 0.9]), torch.tensor([0.25, 1.0])
    torch.testing.assert_close(squared_error(prediction, target), torch.tensor([0.0625, 0.01]))
    torch.testing.assert_close(absolute_error(prediction, target), torch.tensor([0.25, 0.1]))


@given(st.floats(-2, 2), st.floats(-2, 2), st.sampled_from([0.1, 0.5]))
@settings(max_examples=25, deadline=None)
def test_huber_equals_that_of_torch(prediction, target, delta):
    ours = huber_error(torch.tensor(prediction), torch.tensor(target), delta)
    theirs = torch.nn.functional.huber_loss(torch.tensor(prediction), torch.tensor(target), delta=delta)
    torch.testing.assert_close(ours, theirs)


def test_negative_entropy_is_lowest_for_equal_weights():
    weights = torch.tensor([[0.25] * 4, [1.0, 0, 0, 0], [0.7, 0.1, 0.1, 0.1]], requires_grad=True)
    values = negative_entropy(weights)
    assert values[0].item() == pytest.approx(-math.log(4))
    assert values[1].item() == 0
    assert values[0] < values[2] < values[1]
    assert torch.autograd.grad(values.sum(), weights)[0].isfinite().all()


def test_confidence_target_is_relative_to_the_worst_base():
    predictions = torch.tensor([[0.5, 0.9, 0.1], [0.4, NAN, 0.3], [0.2, 0.2, 0.2], [NAN, NAN, NAN]])
    targets = torch.tensor([0.5, 0.5, 0.2, 0.5])
    expected = torch.tensor([[1.0, 0.0, 0.0], [0.5, 0.0, 0.0], [1.0, 1.0, 1.0], [0.0, 0.0, 0.0]])
    torch.testing.assert_close(confidence_target(predictions, targets), expected)


def test_confidence_loss_counts_the_available_bases():
    confidences = torch.tensor([[0.5, 0.3, 0.5], [0.1, 0.2, 0.3]], requires_grad=True)
    predictions = torch.tensor([[0.5, NAN, 0.9], [NAN, NAN, NAN]])
    losses = confidence_loss(confidences, predictions, torch.tensor([0.5, 0.5]))
    torch.testing.assert_close(losses, torch.tensor([(0.25 + 0.25) / 2, 0.0]))
    (gradient,) = torch.autograd.grad(losses.sum(), confidences)
    torch.testing.assert_close(gradient, torch.tensor([[-0.5, 0.0, 0.5], [0.0, 0.0, 0.0]]))


@given(st.lists(st.lists(st.floats(-5, 5), max_size=5), min_size=1, max_size=5))
@settings(max_examples=25, deadline=None)
def test_masked_mean_is_the_mean_of_means(tasks):
    width = max(len(rows) for rows in tasks) + 1
    values, mask = torch.full((len(tasks), width), 99.0), torch.zeros(len(tasks), width, dtype=torch.bool)
    for task, rows in enumerate(tasks):
        values[task, : len(rows)] = torch.tensor(rows)
        mask[task, : len(rows)] = True
    means = [sum(rows) / len(rows) for rows in tasks if rows]
    expected = sum(means) / len(means) if means else 0
    assert masked_mean(values, mask).item() == pytest.approx(expected, abs=1e-5)
    assert task_means(values, mask)[[bool(rows) for rows in tasks]].tolist() == pytest.approx(means, abs=1e-5)


def test_masked_mean_of_no_rows_is_zero_with_a_graph():
    values = torch.ones(2, 3, requires_grad=True)
    result = masked_mean(values, torch.zeros(2, 3, dtype=torch.bool))
    assert result.item() == 0
    assert (torch.autograd.grad(result, values)[0] == 0).all()
    assert masked_mean(torch.empty(0), torch.empty(0, dtype=torch.bool)).item() == 0
