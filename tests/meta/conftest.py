from collections.abc import Callable

import pytest
import torch

from metarec.episodes import EpisodeBatch, FusionInputs
from metarec.fusion import MetaRecommenderFusion


def _inputs(generator, lengths, width, sizes, missing, dtype, relevant) -> FusionInputs:
    algorithms, features, context = sizes
    tasks = len(lengths)

    def draw(*shape):
        return torch.rand(tasks, width, *shape, generator=generator, dtype=torch.float64)

    mask = torch.arange(width) < torch.tensor(lengths).unsqueeze(-1)
    silent = draw(algorithms) < missing
    silent[..., 0] &= ~silent.all(-1)
    predictions = draw(algorithms).masked_fill(silent | ~mask.unsqueeze(-1), float("nan"))
    # Padding holds numbers that would move any result that they leaked into.
    features = (2 * draw(algorithms, features) - 1).masked_fill(~mask[..., None, None], 9.0)
    context = (2 * draw(context) - 1).masked_fill(~mask.unsqueeze(-1), -9.0)
    targets = draw().masked_fill(~mask, 0)
    if relevant is not None:
        targets = ((targets < relevant) & mask).to(targets.dtype)
    return FusionInputs(predictions.to(dtype), features.to(dtype), context.to(dtype), targets.to(dtype), mask)


def _make_batch(
    seed: int = 0,
    *,
    shots=(4, 2, 0, 3),
    queries=(3, 5, 2, 1),
    algorithms: int = 3,
    features: int = 4,
    context: int = 5,
    missing: float = 0.3,
    dtype: torch.dtype = torch.float64,
    relevant: float | None = None,
) -> EpisodeBatch:
    generator = torch.Generator().manual_seed(seed)
    sizes = (algorithms, features, context)
    return EpisodeBatch(
        _inputs(generator, shots, max(shots), sizes, missing, dtype, relevant),
        _inputs(generator, queries, max(queries), sizes, missing, dtype, relevant),
    )


def _make_network(
    batch: EpisodeBatch, seed: int = 1, hidden_dim: int = 8, meta_hidden_dim: int = 6, stirred: bool = True, **options
) -> MetaRecommenderFusion:
    shape = batch.query.algorithm_features.shape
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = MetaRecommenderFusion.for_episodes(
            shape[-2],
            shape[-1],
            batch.query.context.shape[-1],
            hidden_dim=hidden_dim,
            meta_hidden_dim=meta_hidden_dim,
            **options,
        )
        for parameter in network.parameters() if stirred else ():
            # The zeros of an anchored head would hide faults behind them.
            torch.nn.init.normal_(parameter, std=0.4)
    return network.to(batch.query.targets.dtype).eval()


@pytest.fixture(scope="session")
def make_batch() -> Callable[..., EpisodeBatch]:
    """A maker of episodes with ragged masks, NaN predictions, a task without support, and treacherous padding.

    With `relevant` they are lists: a row is relevant, with the target 1, at this probability; others have the target 0.
    """
    return _make_batch


@pytest.fixture(scope="session")
def make_network() -> Callable[..., MetaRecommenderFusion]:
    """A maker of small networks that fit a batch, in eval mode; `stirred`, with no parameter at zero, as if trained."""
    return _make_network
