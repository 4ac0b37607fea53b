"""MAML written out, for the engines to be held to."""

import torch
from hypothesis import strategies as st
from torch.func import functional_call

from metarec.episodes import EpisodeBatch, FusionInputs
from metarec.fusion.losses import PREDICTION_LOSSES


def loss_of(module, parameters, inputs, loss):
    if loss == "fusion":
        return functional_call(Call(module, "row_losses"), parameters, (inputs,))
    output = functional_call(Call(module, "fuse"), parameters, (inputs,))
    return loss(output, inputs) if callable(loss) else PREDICTION_LOSSES[loss](output.prediction, inputs.targets)


class Call(torch.nn.Module):
    """One of a network's methods as a module's forward."""

    def __init__(self, network, method):
        super().__init__()
        self.network = network
        self.method = method

    def forward(self, inputs):
        return getattr(self.network, self.method)(inputs)


def draw_batch(data, make_batch, tasks, sizes, **options) -> EpisodeBatch:
    """A batch with so many tasks, of drawn lengths; `sizes` are those of bases, features, context."""
    lengths = st.lists(st.integers(0, 4), min_size=tasks, max_size=tasks)
    named = dict(zip(("algorithms", "features", "context"), sizes, strict=True))
    seed = data.draw(st.integers(0, 1000))
    return make_batch(seed, shots=data.draw(lengths), queries=data.draw(lengths), **named, **options)


def batch_sizes(batch: EpisodeBatch) -> dict:
    """What a network needs to know of a batch to be built for it."""
    query = batch.query
    algorithms, features = query.algorithm_features.shape[-2:]
    return {
        "algorithms": algorithms,
        "features": features,
        "context": query.context.shape[-1],
        "dtype": query.targets.dtype,
    }


def rows_of(inputs: FusionInputs, task: int) -> FusionInputs:
    return FusionInputs(*(tensor[task][inputs.mask[task]] for tensor in inputs))


def loop(network, batch: EpisodeBatch, *, inner_lr, inner_steps, first_order, loss, rates=None):
    """MAML as the paper writes it: the meta-loss, and each task's parameters.

    `rates` are those of single parameters, in place of `inner_lr`; what has none is not adapted.
    """
    if rates is None:
        rates = {name: inner_lr for name, _ in network.named_parameters()}
    losses, adapted = [], []
    for task in range(batch.num_tasks):
        support, query = rows_of(batch.support, task), rows_of(batch.query, task)
        fast = {f"network.{name}": parameter for name, parameter in network.named_parameters()}
        for _ in range(inner_steps if len(support.mask) else 0):
            value = loss_of(network, fast, support, loss).mean()
            gradients = torch.autograd.grad(
                value,
                [fast[f"network.{name}"] for name in rates],
                create_graph=not first_order,
                allow_unused=True,
                materialize_grads=True,
            )
            for (name, rate), g in zip(rates.items(), gradients, strict=True):
                fast[f"network.{name}"] = fast[f"network.{name}"] - rate * g
        adapted.append(fast)
        if len(query.mask):
            losses.append(loss_of(network, fast, query, loss).mean())
    return torch.stack(losses).mean(), adapted


def gradient(loss, module) -> torch.Tensor:
    gradients = torch.autograd.grad(loss, list(module.parameters()), allow_unused=True, materialize_grads=True)
    return torch.cat([g.flatten() for g in gradients])


def apart(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(((a - b).abs().max() / b.abs().max().clamp(min=1e-30)).detach())
