import torch

from metarec.episodes import FusionInputs
from metarec.fusion import NETWORKS

NAN = float("nan")
SMALL = {
    "attention": {"hidden_dim": 8, "meta_hidden_dim": 6},
    "hypernetwork": {"target_net_dim": 6, "hyper_hidden_dim": 5},
    "mlp": {"hidden_dim": 6},
    "residual": {"hidden_dim": 5},
    "gated": {"hidden_dim": 5},
}


def draw_inputs(*leading, algorithms=3, features=4, context=5, dtype=torch.float32, missing=0.4, seed=0):
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.rand((*leading, *shape), generator=generator, dtype=torch.float64)

    predictions = draw(algorithms)
    predictions = predictions.masked_fill(draw(algorithms) < missing, NAN)
    tensors = (predictions, 2 * draw(algorithms, features) - 1, draw(context), draw())
    return FusionInputs(*(tensor.to(dtype) for tensor in tensors), torch.ones(leading, dtype=torch.bool))


def build(name, *, seed=0, algorithms=3, features=4, context=5, dtype=torch.float32, **options):
    """A small network of this name, not training."""
    options = {**SMALL.get(name, {}), **options}
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = NETWORKS.get(name).for_episodes(algorithms, features, context, **options)
    return network.to(dtype).eval()


def with_terms(name):
    """Options of a loss with every term that the network has."""
    searched = NETWORKS.get(name).searched
    return {"prediction_loss": "huber", **{option: 0.3 for option in searched if option.endswith("_weight")}}


def stirred(network, std=0.5, seed=1):
    """The same network with no parameter at zero, as if it were trained."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for parameter in network.parameters():
            torch.nn.init.normal_(parameter, std=std)
    return network


def arrays(network):
    """Its parameters in double precision, for cases that are computed without it."""
    return {name: tensor.double().numpy() for name, tensor in network.state_dict().items()}
