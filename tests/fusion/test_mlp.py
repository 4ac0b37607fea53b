import copy

import learn2learn
import numpy as np
import pytest
import torch
from torch.func import functional_call

from metarec.errors import InputError
from metarec.fusion import MAMLRecommenderFusion
from tests.fusion import conftest
from tests.fusion.conftest import NAN, arrays, draw_inputs, stirred


def plain(features=3, hidden=4, seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return MAMLRecommenderFusion(features, hidden).double()


def draw_tasks(count=3, features=3, seed=0):
    """Tasks of different sizes, in double precision."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.rand(*shape, generator=generator, dtype=torch.float64)

    return [(draw(2 + i, features), draw(2 + i), draw(5 - i, features), draw(5 - i)) for i in range(count)]


def gradient_of_meta_update(network, tasks, **options):
    """What a step of plain gradient descent at a rate of 1 took away, and the loss."""
    network = copy.deepcopy(network)
    before = [parameter.detach().clone() for parameter in network.parameters()]
    loss = network.meta_update(tasks, torch.optim.SGD(network.parameters(), lr=1), **options)
    return loss, [old - new.detach() for old, new in zip(before, network.parameters(), strict=True)]


def test_the_sketch_has_its_widths():
    network = MAMLRecommenderFusion(feature_dim=10)
    assert sum(parameter.numel() for parameter in network.parameters()) == 11 * 64 + 65 * 64 + 65
    assert network(torch.rand(7, 10)).shape == (7, 1)


def test_the_output_equals_one_computed_by_hand():
    network = stirred(conftest.build("mlp"))
    inputs = draw_inputs(9, missing=0.3)
    output = network.fuse(inputs)
    assert output.weights is None
    state = arrays(network)
    for row in range(9):
        predictions, features, context, _ = (tensor[row].double().numpy() for tensor in inputs[:4])
        predictions[np.isnan(predictions)] = np.nanmean(predictions) if np.isfinite(predictions).any() else 0.5
        x = np.concatenate([*(np.append(features[a], predictions[a]) for a in range(3)), context])
        for name in ("layers.0", "layers.2", "layers.4"):
            x = state[f"{name}.weight"] @ (x if name == "layers.0" else np.maximum(x, 0)) + state[f"{name}.bias"]
        assert output.prediction[row].item() == pytest.approx(x[0], rel=1e-4, abs=1e-5)


def test_an_inner_step_by_hand():
    network = plain()
    x, y, _, _ = draw_tasks()[0]
    w1, b1, w2, b2, w3, b3 = arrays(network).values()
    one = np.maximum(x.numpy() @ w1.T + b1, 0)
    two = np.maximum(one @ w2.T + b2, 0)
    error = 2 * (two @ w3.T + b3 - y.numpy()[:, None]) / len(y)
    back_two = (error @ w3) * (two > 0)
    back_one = (back_two @ w2) * (one > 0)
    gradients = [
        back_one.T @ x.numpy(), back_one.sum(0), back_two.T @ one, back_two.sum(0), error.T @ two, error.sum(0)
    ]  # fmt: skip
    start = copy.deepcopy(network.state_dict())
    fast = network.inner_update(x, y, inner_lr=0.3, inner_steps=1)
    for (name, tensor), old, gradient in zip(fast.items(), (w1, b1, w2, b2, w3, b3), gradients, strict=True):
        np.testing.assert_allclose(tensor.detach(), old - 0.3 * gradient, rtol=1e-12, atol=1e-12, err_msg=name)
    torch.testing.assert_close(network.state_dict(), start, rtol=0, atol=0)


def test_the_defaults_are_five_steps_at_a_rate_of_a_hundredth():
    network, (x, y, _, _) = plain(), draw_tasks()[0]
    torch.testing.assert_close(network.inner_update(x, y), network.inner_update(x, y, inner_lr=0.01, inner_steps=5))
    again = plain()
    again.load_state_dict(network.inner_update(x, y, inner_steps=2))
    torch.testing.assert_close(again.inner_update(x, y, inner_steps=3), network.inner_update(x, y))


@pytest.mark.parametrize("first_order", [False, True])
def test_a_meta_update_is_that_of_learn2learn(first_order):
    network, tasks = plain(), draw_tasks()
    maml = learn2learn.algorithms.MAML(copy.deepcopy(network), lr=0.3, first_order=first_order)
    losses = []
    for support_x, support_y, query_x, query_y in tasks:
        learner = maml.clone()
        for _ in range(3):
            learner.adapt((learner(support_x).squeeze(-1) - support_y).square().mean())
        losses.append((learner(query_x).squeeze(-1) - query_y).square().mean())
    expected = sum(losses) / len(losses)
    gradients = torch.autograd.grad(expected, list(maml.parameters()))
    loss, ours = gradient_of_meta_update(network, tasks, inner_lr=0.3, inner_steps=3, first_order=first_order)
    torch.testing.assert_close(loss, expected.detach(), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(ours, list(gradients), rtol=1e-10, atol=1e-12)


def test_a_meta_update_is_exact():
    network, tasks = plain(), draw_tasks()
    options = {"inner_lr": 0.3, "inner_steps": 3}
    _, exact = gradient_of_meta_update(network, tasks, **options)
    _, first = gradient_of_meta_update(network, tasks, first_order=True, **options)

    def meta_loss():
        losses = []
        for support_x, support_y, query_x, query_y in tasks:
            fast = network.inner_update(support_x, support_y, **options)
            losses.append((functional_call(network, fast, (query_x,)).squeeze(-1) - query_y).square().mean())
        return torch.stack(losses).mean().item()

    largest = 0.0
    for parameter, gradient, approximate in zip(network.parameters(), exact, first, strict=True):
        for position in np.ndindex(*parameter.shape):
            values = []
            for step in (1e-6, -1e-6):
                with torch.no_grad():
                    parameter[position] += step
                values.append(meta_loss())
                with torch.no_grad():
                    parameter[position] -= step
            difference = (values[0] - values[1]) / 2e-6
            assert gradient[position].item() == pytest.approx(difference, abs=1e-7)
            largest = max(largest, abs(approximate[position].item() - difference))
    assert largest > 0.01, "the second derivatives count for nothing here, so this test would not miss them"


def test_it_keeps_its_own_optimizer():
    network, tasks = plain(), draw_tasks()
    given = copy.deepcopy(network)
    optimizer = torch.optim.Adam(given.parameters(), lr=0.001)
    for _ in range(3):
        torch.testing.assert_close(network.meta_update(tasks), given.meta_update(tasks, optimizer), rtol=0, atol=0)
    torch.testing.assert_close(network.state_dict(), given.state_dict(), rtol=0, atol=0)
    # A copy learns for itself.
    theirs, before = copy.deepcopy(network), copy.deepcopy(network.state_dict())
    theirs.meta_update(tasks)
    torch.testing.assert_close(network.state_dict(), before, rtol=0, atol=0)
    assert not torch.equal(theirs.layers[0].weight, network.layers[0].weight)


def test_it_learns_to_adapt():
    """Users whose ratings differ by a constant, which the support set shows."""
    generator = torch.Generator().manual_seed(0)
    network = plain(hidden=16)
    losses = []
    for _ in range(60):
        tasks = []
        for level in torch.rand(4, generator=generator, dtype=torch.float64):
            x = torch.rand(10, 3, generator=generator, dtype=torch.float64)
            y = level + 0.1 * x[:, 0]
            tasks.append((x[:5], y[:5], x[5:], y[5:]))
        losses.append(network.meta_update(tasks, inner_lr=0.1, inner_steps=2).item())
    assert np.mean(losses[-10:]) < 0.5 * np.mean(losses[:5])


def test_targets_may_be_a_column():
    network, tasks = plain(), draw_tasks()
    columns = [(sx, sy.unsqueeze(-1), qx, qy.unsqueeze(-1)) for sx, sy, qx, qy in tasks]
    torch.testing.assert_close(gradient_of_meta_update(network, columns), gradient_of_meta_update(network, tasks))
    x, y, _, _ = tasks[0]
    with pytest.raises(ValueError, match=r"y must have the shape \[2\] but got \[1\]"):
        network.inner_update(x, y[:1])
    with pytest.raises(ValueError, match=r"x must end in \[3\] but got \[2, 2\]"):
        network.inner_update(x[:, :2], y)


def test_without_support_nothing_is_adapted():
    network, (x, y, query_x, query_y) = plain(), draw_tasks()[0]
    for fast in (network.inner_update(x[:0], y[:0]), network.inner_update(x, y, inner_steps=0)):
        assert all(tensor is network.get_parameter(name) for name, tensor in fast.items())
    loss, _ = gradient_of_meta_update(network, [(x[:0], y[:0], query_x, query_y)])
    torch.testing.assert_close(loss, (network(query_x).squeeze(-1) - query_y).square().mean().detach())


def test_frozen_parameters_stay():
    network, tasks = plain(), draw_tasks()
    network.layers[0].requires_grad_(False)
    frozen = network.layers[0].weight.clone()
    assert set(network.inner_update(*tasks[0][:2])) == {
        f"layers.{i}.{part}" for i in (2, 4) for part in ("weight", "bias")
    }
    network.meta_update(tasks)
    assert torch.equal(network.layers[0].weight, frozen)


def test_arguments_are_checked():
    network, (x, y, query_x, query_y) = plain(), draw_tasks()[0]
    for rate in (0, -0.1, NAN, float("inf")):
        with pytest.raises(InputError, match=r"inner_lr must be a finite number > 0 but got"):
            network.inner_update(x, y, inner_lr=rate)
    with pytest.raises(InputError, match="inner_steps must be an integer >= 0 but got -1"):
        network.inner_update(x, y, inner_steps=-1)
    with pytest.raises(InputError, match="task_batch must have at least one task but got none"):
        network.meta_update([])
    with pytest.raises(InputError, match=r"task_batch\[1\] must have query rows but got none"):
        network.meta_update([(x, y, query_x, query_y), (x, y, query_x[:0], query_y[:0])])
    with pytest.raises(InputError, match="hidden_dim must be an integer >= 1 but got 0"):
        MAMLRecommenderFusion(3, hidden_dim=0)
