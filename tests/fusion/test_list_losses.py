"""List-wise losses: written out in plain loops, in padding, at the edges, and under vmap."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.func import vmap

from metarec.fusion.losses import LIST_LOSSES, MOST_RELEVANT, TRUNCATION, task_means

NAN = float("nan")
TEMPERATURE = 0.2
every_loss = pytest.mark.parametrize("name", LIST_LOSSES)


def softmax(scores, targets):
    total, partition = sum(targets), sum(math.exp(score / TEMPERATURE) for score in scores)
    return -sum(
        target / total * math.log(math.exp(score / TEMPERATURE) / partition)
        for score, target in zip(scores, targets, strict=True)
    )


def bpr(scores, targets):
    rows = list(zip(scores, targets, strict=True))
    pairs = [(score, other) for score, relevant in rows if relevant for other, too in rows if not too]
    return sum(math.log(1 + math.exp(-(s - t) / TEMPERATURE)) for s, t in pairs) / len(pairs)


def dcg(relevance):
    return sum(own / math.log2(rank + 2) for rank, own in enumerate(relevance[:TRUNCATION]))


def lambda_rank(scores, targets):
    """Every pair of the list, with the change of nDCG@10 computed from two whole rankings."""
    order = sorted(range(len(scores)), key=lambda row: -scores[row])
    relevance = [targets[row] for row in order]
    ideal, loss = dcg(sorted(relevance, reverse=True)), 0.0
    for one, row in enumerate(order):
        for two, other in enumerate(order):
            if targets[row] > targets[other]:
                swapped = list(relevance)
                swapped[one], swapped[two] = swapped[two], swapped[one]
                change = abs(dcg(swapped) - dcg(relevance)) / ideal
                loss += change * math.log(1 + math.exp(-(scores[row] - scores[other]) / TEMPERATURE))
    return loss


WRITTEN_OUT = {"softmax": softmax, "bpr": bpr, "lambda": lambda_rank}


def draw_lists(*leading, rows=15, relevant=0.3, seed=0):
    """Scores, targets and a mask in double precision; a few scores are equal, and padding stands between the rows."""
    generator = torch.Generator().manual_seed(seed)
    scores = (40 * torch.rand(*leading, rows, generator=generator, dtype=torch.float64)).round() / 40
    targets = (torch.rand(*leading, rows, generator=generator) < relevant).double()
    return scores, targets, torch.rand(*leading, rows, generator=generator) < 0.8


@every_loss
@pytest.mark.parametrize("rows", [2, 9, 25])
def test_a_loss_is_that_of_the_loops(name, rows):
    scores, targets, mask = draw_lists(30, rows=rows)
    means = task_means(LIST_LOSSES[name](scores, targets, mask, TEMPERATURE), mask)
    judged = 0
    for task, mean in enumerate(means.tolist()):
        own, own_targets = scores[task][mask[task]].tolist(), targets[task][mask[task]].tolist()
        mixed = 0 < sum(own_targets) < len(own_targets)
        assert mean == pytest.approx(WRITTEN_OUT[name](own, own_targets) if mixed else 0, rel=1e-12, abs=1e-15)
        judged += mixed
    assert judged


@every_loss
def test_padding_gets_zero_whatever_it_holds(name):
    scores, targets, mask = draw_lists(6)
    expected = LIST_LOSSES[name](scores, targets, mask, TEMPERATURE)
    assert (expected[~mask] == 0).all()
    for wrong in (NAN, math.inf, -math.inf, 1e30):
        padded = scores.masked_fill(~mask, wrong).requires_grad_()
        found = LIST_LOSSES[name](padded, targets.masked_fill(~mask, 1), mask, TEMPERATURE)
        torch.testing.assert_close(found, expected, rtol=0, atol=0)
        (gradient,) = torch.autograd.grad(found.sum(), padded)
        assert gradient.isfinite().all()
        assert (gradient[~mask] == 0).all()


@every_loss
def test_a_list_without_a_pair_has_no_loss_and_no_gradient(name):
    """None is relevant, all are, there is one row, and there is none."""
    scores = torch.rand(4, 5, requires_grad=True)
    targets = torch.tensor([[0.0] * 5, [1.0] * 5, [1.0] * 5, [1.0] * 5])
    mask = torch.tensor([[True] * 5, [True] * 5, [True] + [False] * 4, [False] * 5])
    losses = LIST_LOSSES[name](scores, targets, mask, TEMPERATURE)
    (gradient,) = torch.autograd.grad(losses.sum(), scores, create_graph=True)
    for found in (
        losses,
        gradient,
        torch.autograd.grad(gradient.sum(), scores, materialize_grads=True, allow_unused=True)[0],
    ):
        assert (found == 0).all()
    empty = torch.empty(2, 0)
    assert LIST_LOSSES[name](empty, empty, empty.bool(), TEMPERATURE).shape == (2, 0)


@every_loss
def test_vmap_over_tasks_is_the_batch(name):
    scores, targets, mask = draw_lists(7)
    one = vmap(lambda *rows: LIST_LOSSES[name](*rows, TEMPERATURE))
    torch.testing.assert_close(one(scores, targets, mask), LIST_LOSSES[name](scores, targets, mask, TEMPERATURE))


@every_loss
def test_gradients_are_those_of_finite_differences(name):
    scores, targets, mask = draw_lists(3, rows=14)
    # Ranks of equal scores would change within the differences.
    scores = (scores + torch.linspace(0, 0.01, scores.numel()).reshape(scores.shape)).requires_grad_()
    assert torch.autograd.gradcheck(lambda s: LIST_LOSSES[name](s, targets, mask, TEMPERATURE), scores)
    assert torch.autograd.gradgradcheck(lambda s: LIST_LOSSES[name](s, targets, mask, TEMPERATURE), scores)


@every_loss
@given(st.sampled_from([0.01, 0.5]), st.floats(-50, 50), st.integers(0, 99))
@settings(max_examples=20, deadline=None)
def test_single_precision_stays_finite(name, temperature, size, seed):
    scores, targets, mask = draw_lists(3, seed=seed)
    scores = (size * scores).float().requires_grad_()
    losses = LIST_LOSSES[name](scores, targets.float(), mask, temperature)
    assert losses.isfinite().all()
    assert torch.autograd.grad(losses.sum(), scores)[0].isfinite().all()


@every_loss
def test_a_step_ranks_relevant_rows_higher(name):
    scores, targets, mask = draw_lists(20)
    scores.requires_grad_()
    LIST_LOSSES[name](scores, targets, mask, TEMPERATURE).sum().backward()
    for rows, sign in (((targets > 0) & mask, -1), ((targets == 0) & mask, 1)):
        towards = sign * (scores.grad * rows).sum(-1)
        assert (towards >= 0).all()
        assert towards.sum() > 0


def test_of_many_relevant_rows_bpr_pairs_the_first():
    scores = torch.rand(MOST_RELEVANT + 12, dtype=torch.float64)
    targets = (torch.arange(len(scores)) < MOST_RELEVANT + 8).double()
    mask = torch.ones_like(scores) > 0
    found = LIST_LOSSES["bpr"](scores, targets, mask, TEMPERATURE).mean().item()
    kept = [*range(MOST_RELEVANT), *range(MOST_RELEVANT + 8, len(scores))]
    assert found == pytest.approx(bpr(scores[kept].tolist(), targets[kept].tolist()))
