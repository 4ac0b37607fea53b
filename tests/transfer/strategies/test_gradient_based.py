"""Gradients of sources: those that agree count more, and none undoes the target's step."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from metarec.transfer.strategies.gradient_based import agreeing_gradient


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 999), st.integers(1, 4), st.integers(1, 6), st.floats(1e-3, 1e3))
def test_the_sum_goes_at_least_as_far_along_the_target_as_the_target_alone(seed, number, size, stretch):
    generator = torch.Generator().manual_seed(seed)
    target = torch.randn(size, generator=generator, dtype=torch.float64)
    sources = list(stretch * torch.randn(number, size, generator=generator, dtype=torch.float64))
    combined, weights = agreeing_gradient(target, sources)
    assert combined @ target >= target @ target * (1 - 1e-9)
    assert weights.sum() == pytest.approx(1)
    assert weights.min() > 0


def test_an_opposite_source_changes_nothing_and_an_equal_one_doubles():
    target = torch.tensor([1.0, -2.0, 0.5])
    torch.testing.assert_close(agreeing_gradient(target, [-3 * target])[0], target)
    torch.testing.assert_close(agreeing_gradient(target, [target])[0], 2 * target)


def test_who_agrees_more_counts_more_and_not_alone():
    target = torch.tensor([1.0, 0.0])
    sources = [torch.tensor([1.0, 0.1]), torch.tensor([0.5, 0.5]), torch.tensor([-1.0, 0.2])]
    _, weights = agreeing_gradient(target, sources)
    assert weights[0] > weights[1] > weights[2] > 0
    assert weights[1] > 0.1


def test_only_the_conflicting_component_is_removed():
    target = torch.tensor([1.0, 0.0])
    torch.testing.assert_close(agreeing_gradient(target, [torch.tensor([-4.0, 3.0])])[0], torch.tensor([1.0, 3.0]))
    torch.testing.assert_close(agreeing_gradient(target, [torch.tensor([4.0, 3.0])])[0], torch.tensor([5.0, 3.0]))


def test_a_target_without_a_gradient_follows_the_sources():
    combined, _ = agreeing_gradient(torch.zeros(2), [torch.tensor([1.0, 1.0]), torch.tensor([3.0, 1.0])])
    torch.testing.assert_close(combined, torch.tensor([2.0, 1.0]))
