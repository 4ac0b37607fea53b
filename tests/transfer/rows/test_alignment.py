"""The aligner maps target moments to the source's, and few ratings move the map little."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from metarec.errors import InputError
from metarec.transfer import AlignedModel, FeatureAligner


def drawn(rows, width, seed, stretch=1.0):
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(width, width, generator=generator, dtype=torch.float64)
    return stretch * torch.randn(rows, width, generator=generator, dtype=torch.float64) @ mix + seed


@settings(max_examples=40, deadline=None)
@given(
    source=st.tuples(st.integers(1, 60), st.integers(1, 6)),
    target=st.tuples(st.integers(1, 60), st.integers(1, 6)),
    seed=st.integers(0, 99),
)
def test_any_shapes_are_mapped_to_the_means_of_the_source(source, target, seed):
    a, b = drawn(*source, seed), drawn(*target, seed + 1, 3.0)
    aligned = FeatureAligner(a, b)(b)
    assert aligned.shape == (len(b), a.shape[1])
    torch.testing.assert_close(aligned.mean(0), a.mean(0), rtol=1e-6, atol=1e-6)
    assert aligned.isfinite().all()


def test_with_many_rows_covariances_become_the_sources():
    source, target = drawn(20_000, 4, 0), drawn(20_000, 4, 1, 3.0)
    aligned = FeatureAligner(source, target)(target)
    torch.testing.assert_close(aligned.T.cov(), source.T.cov(), rtol=0.02, atol=0.02)
    # It is the target that is mapped: the other way round, the source would come out like the target.
    assert not torch.allclose(FeatureAligner(target, source)(source).T.cov(), source.T.cov(), rtol=0.2)


def test_with_two_rows_each_feature_is_shifted_and_scaled():
    """The covariance of two rows has rank 1; shrinkage keeps the map at full rank."""
    source = drawn(500, 3, 0)
    target = torch.tensor([[1.0, 10.0, 5.0], [3.0, 30.0, 5.0]], dtype=torch.float64)
    aligned = FeatureAligner(source, target)
    torch.testing.assert_close(aligned(target).mean(0), source.mean(0))
    assert torch.linalg.matrix_rank(aligned.weight) == 3


def test_a_domain_is_aligned_to_itself_by_the_identity():
    rows = drawn(300, 4, 0)
    torch.testing.assert_close(FeatureAligner(rows, rows)(rows), rows, rtol=1e-4, atol=1e-4)


def test_other_widths_are_aligned_by_principal_components():
    """Ratings follow the direction that varies most in both domains: a model of the source keeps its sense."""
    generator = torch.Generator().manual_seed(0)
    liked = [torch.randn(400, 1, generator=generator) for _ in range(2)]
    source = torch.cat([liked[0], liked[0], 0.1 * torch.randn(400, 1, generator=generator)], 1)
    target = torch.cat([liked[1], liked[1], liked[1], 0.1 * torch.randn(400, 2, generator=generator)], 1)
    aligned = FeatureAligner(source, target)(target)
    assert aligned.shape == (400, 3)
    assert torch.corrcoef(torch.stack([aligned[:, 0], liked[1][:, 0]]))[0, 1] > 0.95


def test_fine_tuning_moves_the_map_with_more_ratings_and_not_the_model():
    source, target = drawn(200, 3, 0).float(), drawn(200, 3, 1).float()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Linear(3, 1)
    before = model.weight.detach().clone()
    truth = target @ torch.tensor([0.5, -0.2, 0.1])
    moved, errors = {}, {}
    for rows in (2, 100):
        aligned = AlignedModel(model, FeatureAligner(source, target))
        start = aligned.feature_aligner.weight.detach().clone()
        untouched = (aligned(target).squeeze(-1) - truth).square().mean()
        aligned.fine_tune(target[:rows], truth[:rows], strength=5.0, steps=300)
        moved[rows] = float((aligned.feature_aligner.weight - start).detach().norm())
        errors[rows] = float((aligned(target).squeeze(-1) - truth).square().mean().detach())
        assert errors[rows] < untouched
    assert errors[100] < errors[2]
    rigid = AlignedModel(model, FeatureAligner(source, target)).fine_tune(target[:2], truth[:2], strength=1e6)
    assert (rigid.feature_aligner.weight - start).norm() < 0.02 * moved[2]
    assert torch.equal(model.weight, before)
    assert all(parameter.grad is None for parameter in aligned.parameters())


@pytest.mark.parametrize(
    ("source", "target", "message"),
    [
        (torch.rand(3), torch.rand(2, 3), r"source_features must be \[rows, features\] .* but got \[3\]"),
        (torch.rand(2, 3), torch.rand(0, 3), r"target_features must be .* but got \[0, 3\]"),
        (torch.rand(2, 3), torch.full((1, 3), torch.nan), "target_features must be finite but holds nan"),
    ],
)
def test_rows_are_checked(source, target, message):
    with pytest.raises(InputError, match=message):
        FeatureAligner(source, target)


def test_fine_tuning_is_checked():
    model = AlignedModel(nn.Linear(3, 1), FeatureAligner(torch.rand(5, 3), torch.rand(5, 3)))
    with pytest.raises(InputError, match=r"ratings \[B\], with a row at least, but got \[2, 3\] and \[3\]"):
        model.fine_tune(torch.rand(2, 3), torch.rand(3))
    with pytest.raises(InputError, match="strength must be >= 0 and finite but got -1"):
        model.fine_tune(torch.rand(2, 3), torch.rand(2), strength=-1)
