"""What every fusion network promises. A new one is held to it by being listed in NETWORKS."""

import io
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.func import functional_call, vmap

from metarec.episodes import FusionInputs
from metarec.errors import InputError
from metarec.fusion import NETWORKS, FusionOutput
from metarec.fusion.losses import LIST_LOSSES, PREDICTION_LOSSES, task_means
from metarec.fusion.networks._base import LOSS_TERMS
from tests.fusion.conftest import NAN, build, draw_inputs, stirred, with_terms

VARIANTS = {
    "attention": [
        {"combine": combine, "anchored": anchored} for combine in ("softmax", "product") for anchored in (False, True)
    ],
    "hypernetwork": [{}, {"use_features": True}],
    "linear": [{}, {"correction": False}],
}


CASES = [
    (name, options)
    for name in NETWORKS.names()
    for options in [*VARIANTS.get(name, [{}]), *([with_terms(name)] if name in NETWORKS.builtins() else [])]
]
every_network = pytest.mark.parametrize(
    ("name", "options"), CASES, ids=[" ".join([name, *map(str, options.values())]) for name, options in CASES]
)


def outputs(output):
    """The tensors of an output by name."""
    return {name: value for name, value in output._asdict().items() if value is not None}


@every_network
@given(
    leading=st.lists(st.integers(0, 3), max_size=2).map(tuple),
    sizes=st.tuples(st.integers(1, 4), st.integers(1, 4), st.integers(1, 4)),
    missing=st.sampled_from([0.0, 0.5, 1.0]),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    trained=st.booleans(),
)
@settings(max_examples=10, deadline=None)
def test_any_rows_give_finite_numbers_and_gradients(name, options, leading, sizes, missing, dtype, trained):
    algorithms, features, context = sizes
    shape = {"algorithms": algorithms, "features": features, "context": context, "dtype": dtype}
    inputs = draw_inputs(*leading, missing=missing, **shape)
    network = build(name, **shape, **options)
    if trained:
        stirred(network)
    output = network.fuse(inputs)
    assert output.prediction.shape == leading
    assert output.prediction.dtype == dtype
    available = inputs.predictions.isfinite()
    for said_of_bases in (output.weights, output.confidences):
        if said_of_bases is not None:
            assert said_of_bases.shape == inputs.predictions.shape
            assert said_of_bases.dtype == dtype
    if output.weights is not None:
        assert (output.weights[~available] == 0).all()
        torch.testing.assert_close(output.weights.sum(-1), available.any(-1).to(dtype))
    losses = network.row_losses(inputs)
    assert losses.shape == leading
    assert losses.isfinite().all()
    parameters = list(network.parameters())
    for value in (losses.sum(), output.prediction.sum()):
        gradients = torch.autograd.grad(value, parameters, allow_unused=True, create_graph=True)
        again = sum(g.square().sum() for g in gradients if g is not None)
        assert torch.isfinite(again)
        if again.requires_grad:
            second = torch.autograd.grad(again, parameters, allow_unused=True)
            assert all(g.isfinite().all() for g in second if g is not None)


@every_network
def test_every_parameter_is_learned(name, options):
    network = stirred(build(name, **options))
    network.row_losses(draw_inputs(50)).sum().backward()
    for parameter, tensor in network.named_parameters():
        assert tensor.grad is not None, parameter
        assert tensor.grad.abs().max() > 0, parameter


@every_network
def test_something_is_learned_from_the_start(name, options):
    network = build(name, **options)
    inputs = draw_inputs(50)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01)
    before = network.row_losses(inputs).mean()
    before.backward()
    optimizer.step()
    assert network.row_losses(inputs).mean() < before


@pytest.mark.parametrize("name", NETWORKS.builtins())
def test_the_loss_is_the_prediction_error_and_the_weighted_terms(name):
    terms = {option.removesuffix("_weight") for option in NETWORKS.get(name).searched if option.endswith("_weight")}
    assert terms, "a study searches a weight of every network's loss"
    inputs = draw_inputs(20)
    plain = build(name, **{f"{term}_weight": 0.0 for term in terms})
    stirred(plain)
    output = plain.fuse(inputs)
    torch.testing.assert_close(plain.row_losses(inputs), (output.prediction - inputs.targets).square())
    for loss, error in PREDICTION_LOSSES.items():
        for term in terms:
            weights = {f"{other}_weight": 0.0 for other in terms} | {f"{term}_weight": 0.25}
            network = build(name, prediction_loss=loss, **weights)
            network.load_state_dict(plain.state_dict())
            added = network.row_losses(inputs) - error(output.prediction, inputs.targets)
            if name != "attention":  # Its diversity is that of the attention, before the confidences.
                torch.testing.assert_close(added, 0.25 * LOSS_TERMS[term](output, inputs))
            assert added.abs().max() > 1e-4


@pytest.mark.parametrize("name", NETWORKS.builtins())
def test_a_list_wise_loss_is_added_to_the_other_terms(name):
    terms = {option.removesuffix("_weight") for option in NETWORKS.get(name).searched_for("ranking")} & set(LOSS_TERMS)
    assert terms
    inputs = draw_inputs(6, 9, dtype=torch.float64)
    inputs = inputs._replace(targets=(inputs.targets < 0.3).double(), mask=inputs.context[..., 0] < 0.8)
    for loss, of_list in LIST_LOSSES.items():
        # The error of confidences is not part of it, whatever its weight.
        weights = {option: 0.0 for option in NETWORKS.get(name).searched if option.endswith("_weight")}
        weights |= {"confidence_weight": 0.5} if "confidence_weight" in weights else {}
        plain = stirred(build(name, dtype=torch.float64, prediction_loss=loss, temperature=0.2, **weights))
        expected = of_list(plain.fuse(inputs).prediction, inputs.targets, inputs.mask, 0.2)
        torch.testing.assert_close(plain.row_losses(inputs), expected)
        assert plain.list_wise
        one = FusionInputs(*(tensor[2] for tensor in inputs))
        torch.testing.assert_close(plain.row_losses(one), plain.row_losses(inputs)[2])
        for term in terms:
            network = build(
                name, dtype=torch.float64, prediction_loss=loss, temperature=0.2, **weights | {f"{term}_weight": 0.25}
            )
            network.load_state_dict(plain.state_dict())
            added = network.row_losses(inputs) - expected
            if name != "attention":
                torch.testing.assert_close(added, 0.25 * LOSS_TERMS[term](plain.fuse(inputs), inputs))
            assert added.abs().max() > 1e-4


@pytest.mark.parametrize("name", NETWORKS.builtins())
def test_a_network_learns_to_rank(name):
    inputs = draw_inputs(20, 12, missing=0.0)
    best = inputs.predictions[..., 0] >= inputs.predictions[..., 0].topk(3).values[..., -1:]
    inputs = inputs._replace(targets=best.float())
    for loss in LIST_LOSSES:
        network = stirred(build(name, prediction_loss=loss, temperature=0.1), std=0.3)
        optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
        values = []
        for _ in range(30):
            value = task_means(network.row_losses(inputs), inputs.mask).mean()
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
            values.append(value.item())
        assert values[-1] < 0.95 * values[0], loss


def test_the_terms_by_hand():
    predictions, weights = torch.tensor([[0.2, 0.6]]), torch.tensor([[0.25, 0.75]])
    inputs = draw_inputs(1, algorithms=2)._replace(predictions=predictions)
    output = FusionOutput(torch.tensor([0.7]), weights)
    # The weighted mean is 0.5; without weights the mean is 0.4.
    torch.testing.assert_close(LOSS_TERMS["correction"](output, inputs), torch.tensor([0.2**2]))
    torch.testing.assert_close(
        LOSS_TERMS["correction"](FusionOutput(output.prediction), inputs), torch.tensor([0.3**2])
    )
    entropy = -(0.25 * math.log(0.25) + 0.75 * math.log(0.75))
    torch.testing.assert_close(LOSS_TERMS["diversity"](output, inputs), torch.tensor([-entropy]))


@pytest.mark.parametrize("name", NETWORKS.builtins())
def test_the_loss_is_checked(name):
    with pytest.raises(InputError, match=r'unknown prediction_loss "msa"; did you mean "mse"\?'):
        build(name, prediction_loss="msa")
    for wrong in (0, -0.1, math.inf, "hot"):
        with pytest.raises(InputError, match="temperature must be a finite number > 0 but got"):
            build(name, temperature=wrong)
    for option in (option for option in NETWORKS.get(name).searched if option.endswith("_weight")):
        for wrong in (-0.1, float("nan"), float("inf"), True):
            with pytest.raises(InputError, match=f"{option} must be >= 0 and finite but got"):
                build(name, **{option: wrong})


@every_network
def test_rows_do_not_see_each_other(name, options):
    network = stirred(build(name, **options))
    inputs = draw_inputs(3, 4)
    whole = outputs(network.fuse(inputs))
    one = outputs(network.fuse(FusionInputs(*(tensor[1, 2] for tensor in inputs))))
    torch.testing.assert_close({key: value[1, 2] for key, value in whole.items()}, one)


@every_network
def test_targets_and_mask_do_not_change_the_output(name, options):
    network = stirred(build(name, **options))
    inputs = draw_inputs(6)
    blind = inputs._replace(targets=torch.full_like(inputs.targets, NAN), mask=~inputs.mask)
    torch.testing.assert_close(outputs(network.fuse(blind)), outputs(network.fuse(inputs)), rtol=0, atol=0)


@every_network
def test_the_output_is_deterministic_in_eval_mode(name, options):
    network = stirred(build(name, **options))
    inputs = draw_inputs(6)
    torch.testing.assert_close(outputs(network.fuse(inputs)), outputs(network.fuse(inputs)), rtol=0, atol=0)


@every_network
def test_the_order_of_the_bases_does_not_matter(name, options):
    """With the parameters of each base moved along; the last stays, for it may be special.

    Where an axis of a parameter runs over the bases, it does so in equal blocks, before anything else. So how an axis
    grows with one more base gives the length of the blocks.
    """
    order = torch.tensor([2, 0, 1, 3])
    network = stirred(build(name, algorithms=4, **options))
    grown = build(name, algorithms=5, **options).state_dict()
    moved = {}
    for key, tensor in network.state_dict().items():
        for axis, (size, more) in enumerate(zip(tensor.shape, grown[key].shape, strict=True)):
            if block := more - size:
                bases, rest = tensor.split([4 * block, size - 4 * block], dim=axis)
                bases = bases.unflatten(axis, (4, block)).index_select(axis, order).flatten(axis, axis + 1)
                tensor = torch.cat([bases, rest], dim=axis)
        moved[key] = tensor
    inputs = draw_inputs(20, algorithms=4)
    elsewhere = inputs._replace(
        predictions=inputs.predictions[:, order], algorithm_features=inputs.algorithm_features[:, order]
    )
    expected = network.fuse(inputs)
    assert not torch.allclose(network.fuse(elsewhere).prediction, expected.prediction)
    network.load_state_dict(moved)
    output = network.fuse(elsewhere)
    torch.testing.assert_close(output.prediction, expected.prediction)
    for ours, theirs in ((output.weights, expected.weights), (output.confidences, expected.confidences)):
        if theirs is not None:
            torch.testing.assert_close(ours, theirs[:, order])


@every_network
def test_gradients_are_those_of_finite_differences(name, options):
    network = stirred(build(name, dtype=torch.float64, **options))
    inputs = draw_inputs(4, dtype=torch.float64)
    names = [key for key, _ in network.named_parameters()]

    def prediction(predictions, features, context, *parameters):
        rows = inputs._replace(predictions=predictions, algorithm_features=features, context=context)
        values = {f"network.{key}": value for key, value in zip(names, parameters, strict=True)}
        return functional_call(_Fuse(network), values, (rows,))

    around = [tensor.clone().requires_grad_() for tensor in inputs[:3]]
    parameters = [tensor.detach().clone().requires_grad_() for tensor in network.parameters()]
    assert torch.autograd.gradcheck(prediction, (*around, *parameters), fast_mode=True)
    assert torch.autograd.gradgradcheck(prediction, (*around, *parameters), fast_mode=True)


@every_network
def test_vmap_over_parameters_is_a_loop_over_networks(name, options):
    networks = [stirred(build(name, **options), seed=seed) for seed in range(3)]
    inputs = draw_inputs(3, 5)
    loop = [
        network.fuse(FusionInputs(*(tensor[i] for tensor in inputs))).prediction for i, network in enumerate(networks)
    ]
    stacked = {
        f"network.{key}": torch.stack([network.get_parameter(key) for network in networks])
        for key, _ in networks[0].named_parameters()
    }

    def one(parameters, rows):
        return functional_call(_Fuse(networks[0]), parameters, (rows,))

    torch.testing.assert_close(vmap(one)(stacked, inputs), torch.stack(loop))


@every_network
def test_the_state_is_the_whole_network(name, options):
    network, other = stirred(build(name, **options)), build(name, seed=9, **options)
    inputs = draw_inputs(6)
    assert not torch.allclose(other.fuse(inputs).prediction, network.fuse(inputs).prediction)
    file = io.BytesIO()
    torch.save(network.state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True))
    torch.testing.assert_close(outputs(other.fuse(inputs)), outputs(network.fuse(inputs)), rtol=0, atol=0)


@every_network
def test_the_seed_determines_the_start(name, options):
    states = [build(name, seed=seed, **options).state_dict() for seed in (3, 3)]
    torch.testing.assert_close(*states, rtol=0, atol=0)


@every_network
def test_wrong_shapes_are_named(name, options):
    network = build(name, **options)
    inputs = draw_inputs(5)
    wrong = {
        "predictions": inputs.predictions[:, :2],
        "algorithm_features": inputs.algorithm_features[:, :2],
        "context": inputs.context[:, :3],
    }
    for piece, tensor in wrong.items():
        if piece == "algorithm_features" and name == "hypernetwork" and not options.get("use_features"):
            continue  # which does not look at them
        with pytest.raises(ValueError, match=r"must (end in|have the shape) \[.*\] but got \["):
            network.fuse(inputs._replace(**{piece: tensor}))


@every_network
def test_arguments_are_checked(name, options):
    for shape in ({"algorithms": 0}, {"features": 0}, {"context": -1}, {"algorithms": 1.5}, {"algorithms": True}):
        if "features" in shape and name == "hypernetwork" and not options.get("use_features"):
            continue  # which does not need them
        with pytest.raises(InputError, match=r"must be an integer >= [01] but got"):
            build(name, **shape, **options)
    with pytest.raises(InputError, match=r'has no option "anchord"; .*Known:'):
        build(name, anchord=1)


class _Fuse(torch.nn.Module):
    """The prediction as a module's forward, which is what ``functional_call`` calls."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, inputs):
        return self.network.fuse(inputs).prediction
