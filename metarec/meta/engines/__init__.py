"""The engines, one a file: each computes the same meta-loss and the same adapted networks."""

from __future__ import annotations

from metarec.fusion import FusionNetwork
from metarec.meta._base import Adapted, MetaLearner
from metarec.meta._calls import Loss
from metarec.meta._data import Shape
from metarec.meta._inner_optimizers import InnerOptimizer
from metarec.registry import Registry

__all__ = ["ENGINES", "make_engine"]

ENGINES = Registry(
    "engine",
    "metarec.engines",
    {
        "batched": "metarec.meta.engines.batched:BatchedMetaLearner",
        "learn2learn": "metarec.meta.engines.learn2learn_engine:Learn2LearnMetaLearner",
        "higher": "metarec.meta.engines.higher_engine:HigherMetaLearner",
    },
)


def make_engine(
    name: str,
    network: FusionNetwork,
    *,
    inner_lr: float,
    inner_steps: int,
    first_order: bool = False,
    loss: Loss = "mse",
    learn_rates: bool = False,
    adapted: Adapted = "all",
    inner_optimizer: InnerOptimizer = "sgd",
    shape: Shape | None = None,
) -> MetaLearner:
    """Make an engine around a fusion network. All engines compute the same; see :class:`MetaLearner`.

    Args:
        name: "batched" (all tasks at once, several times as fast as the others), "learn2learn", "higher", or a plug-in.
        network: the network to adapt; its parameters are the start that is learned.
        inner_lr: the rate of the inner gradient descent, > 0.
        inner_steps: the number of its steps, >= 0; 0 means no adaptation.
        first_order: treat the inner gradients as constants (FOMAML, Finn et al. 2017, section 5.2).
        loss: "mse", "mae" or "huber" of the predictions, "fusion" for the network's own loss, or a function of
            (FusionOutput, FusionInputs) that returns one loss per row; inner and outer alike.
        learn_rates: learn an inner rate for each adapted parameter tensor, beginning at `inner_lr`.
        adapted: "all", or "head" for the network's last layers only (all, where a network does not name them); or
            "ridge" for a ridge regression beside the network in place of inner steps, see :class:`MetaLearner`.
        inner_optimizer: "sgd" (plain steps), "momentum" (0.9) or "adam"; learn2learn has only "sgd".
        shape: of the rows, which adapted="ridge" needs; the others do not use it.

    Raises:
        InputError: an unknown name, or an argument that breaks its rule.
        ImportError: the engine needs a package that is not installed; the message says how to install it.

    >>> from metarec.fusion import MetaRecommenderFusion
    >>> network = MetaRecommenderFusion(num_algorithms=3, feature_dim=4, hidden_dim=8, meta_hidden_dim=8)
    >>> make_engine("batched", network, inner_lr=0.1, inner_steps=1).inner_steps
    1
    """
    engine: type[MetaLearner] = ENGINES.get(name)
    return engine(
        network,
        inner_lr=inner_lr,
        inner_steps=inner_steps,
        first_order=first_order,
        loss=loss,
        learn_rates=learn_rates,
        adapted=adapted,
        inner_optimizer=inner_optimizer,
        shape=shape,
    )
