"""The contestants and the cases of the benchmark on engines."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call, grad
from torch.utils.flop_counter import FlopCounterMode

from metarec.episodes import EpisodeBatch, FusionInputs
from metarec.fusion import NETWORKS, FusionNetwork
from metarec.fusion.losses import masked_mean
from metarec.meta import make_engine

__all__ = ["BASE", "CASES", "CONTESTANTS", "Case", "flops_of", "gemm_rate", "make_step", "measure"]

RATE = 0.01
LIMIT = 40.0
"""Seconds: a contestant with a longer meta-step in a case is left out of it."""

Step = Callable[[], tuple[Tensor, list[Tensor]]]
"""One meta-step without the outer update: the loss, and its gradient for each parameter."""


@dataclass(frozen=True)
class Case:
    """The size of a meta-step. The network has 5 bases with 16 features each, and 16 context features."""

    network: str = "attention"
    tasks: int = 32
    steps: int = 5
    shots: int = 10
    queries: int = 10
    first_order: bool = False
    threads: int = 1

    @property
    def name(self) -> str:
        """What differs from the base case."""
        return (
            ".".join(f"{key}-{value}" for key, value in asdict(self).items() if value != getattr(BASE, key)) or "base"
        )

    @property
    def work(self) -> float:
        """The amount of computation, relative to the base case."""
        return self.tasks / 32 * (self.steps + 1) / 6


BASE = Case()

CASES: tuple[Case, ...] = (
    BASE,
    replace(BASE, threads=2),
    *(replace(BASE, tasks=tasks) for tasks in (1, 4, 16, 64, 256, 1024)),
    *(replace(BASE, steps=steps) for steps in (1, 2, 3, 10)),
    *(replace(BASE, shots=shots) for shots in (1, 5, 20, 50)),
    *(replace(BASE, network=network) for network in ("hypernetwork", "mlp", "gated")),
    replace(BASE, first_order=True),
    replace(BASE, steps=1, tasks=256),
)


def episodes(case: Case, seed: int = 0) -> EpisodeBatch:
    """Random rows, the same for every contestant."""
    generator = torch.Generator().manual_seed(seed)

    def rows(count: int) -> FusionInputs:
        def draw(*shape: int) -> Tensor:
            return torch.rand(case.tasks, count, *shape, generator=generator)

        mask = torch.ones(case.tasks, count, dtype=torch.bool)
        return FusionInputs(draw(5), 2 * draw(5, 16) - 1, 2 * draw(16) - 1, draw(), mask)

    return EpisodeBatch(rows(case.shots), rows(case.queries))


def network_of(case: Case) -> FusionNetwork:
    """The network with its default widths, in eval mode: with dropout, steps would not be comparable."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network: FusionNetwork = NETWORKS.get(case.network).for_episodes(5, 16, 16)
        # Initial zeros would make the gradients behind them zero.
        for parameter in network.parameters():
            if not parameter.any():
                torch.nn.init.normal_(parameter, std=0.05)
    return network.eval()


def _engine(name: str, path: str | None = None) -> Callable[[Case], Step]:
    def make(case: Case) -> Step:
        learner: Any = make_engine(
            name, network_of(case), inner_lr=RATE, inner_steps=case.steps, first_order=case.first_order
        )
        if path is not None:
            learner.path = path
        batch, parameters = episodes(case), list(learner.network.parameters())

        def step() -> tuple[Tensor, list[Tensor]]:
            loss = learner.meta_loss(batch)
            return loss.detach(), list(torch.autograd.grad(loss, parameters))

        return step

    return make


def _func_in_a_loop(case: Case) -> Step:
    """``torch.func`` as its documentation shows it, one task after the other."""
    network, batch = network_of(case), episodes(case)
    parameters: dict[str, Tensor] = dict(network.named_parameters())

    def losses(fast: dict[str, Tensor], rows: FusionInputs) -> Tensor:
        predicted = functional_call(_Fusing(network), {f"network.{name}": p for name, p in fast.items()}, (rows,))
        return masked_mean((predicted - rows.targets).square(), rows.mask)

    def step() -> tuple[Tensor, list[Tensor]]:
        total = torch.zeros(())
        for task in range(case.tasks):
            support, query = (FusionInputs(*(tensor[task] for tensor in side)) for side in batch)
            fast = parameters
            for _ in range(case.steps):
                point = {name: p.detach() for name, p in fast.items()} if case.first_order else fast
                gradients = grad(losses)(point, support)
                fast = {name: p - RATE * gradients[name] for name, p in fast.items()}
            total = total + losses(fast, query)
        loss = total / case.tasks
        return loss.detach(), list(torch.autograd.grad(loss, list(parameters.values())))

    return step


def _torchopt(case: Case) -> Step:
    """TorchOpt's differentiable SGD (Ren et al. 2023), one task after the other. It has no first-order mode."""
    import torchopt  # type: ignore[import-not-found, unused-ignore]

    module, batch = _Fusing(network_of(case)), episodes(case)
    parameters = list(module.parameters())

    def loss_of(rows: FusionInputs) -> Tensor:
        return masked_mean((module(rows) - rows.targets).square(), rows.mask)

    def step() -> tuple[Tensor, list[Tensor]]:
        optimizer = torchopt.MetaSGD(module, lr=RATE)
        start, fresh = torchopt.extract_state_dict(module), torchopt.extract_state_dict(optimizer)
        total = torch.zeros(())
        for task in range(case.tasks):
            support, query = (FusionInputs(*(tensor[task] for tensor in side)) for side in batch)
            for _ in range(case.steps):
                optimizer.step(loss_of(support))
            total = total + loss_of(query)
            torchopt.recover_state_dict(module, start)
            torchopt.recover_state_dict(optimizer, fresh)
        loss = total / case.tasks
        return loss.detach(), list(torch.autograd.grad(loss, parameters))

    return step


class _Fusing(torch.nn.Module):
    def __init__(self, network: FusionNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, rows: FusionInputs) -> Tensor:
        return self.network.fuse(rows).prediction


CONTESTANTS: Mapping[str, Callable[[Case], Step]] = {
    "learn2learn": _engine("learn2learn"),
    "higher": _engine("higher"),
    "TorchOpt": _torchopt,
    "torch.func in a loop": _func_in_a_loop,
    "vmap": _engine("batched", "vmap"),
    "batched": _engine("batched"),
}
"""name -> what makes its step for a case. "vmap" is the general path of the batched engine."""


def make_step(name: str, case: Case) -> Step | None:
    """None if the contestant is not installed or does not support the case."""
    if name == "TorchOpt" and (case.first_order or importlib.util.find_spec("torchopt") is None):
        return None
    return CONTESTANTS[name](case)


def measure(case: Case, *, rounds: int, seconds: float, expected: Mapping[str, float]) -> list[dict[str, Any]]:
    """Meta-steps of all contestants in turn: name, round, seconds, and the largest gradient difference.

    The difference is from learn2learn's gradient (from torch.func's where learn2learn is left out), relative to its
    largest entry.

    Args:
        rounds: at least so many of each contestant, if it is not slow: one that needs more than a tenth of `seconds`
            for a step takes as many as fit, and three at the least where they fit in `LIMIT`.
        seconds: about how long a case may take.
        expected: seconds of a contestant's step in the base case, for the exclusion of slow ones.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(case.threads)
    try:
        steps = {}
        for name in CONTESTANTS:
            step = None if expected.get(name, 0.0) * case.work > LIMIT else make_step(name, case)
            if step is not None:
                steps[name] = step
        apart, taken = {}, {}
        reference: list[Tensor] | None = None
        for name, step in steps.items():
            start = time.perf_counter()
            _, gradients = step()
            taken[name] = time.perf_counter() - start
            reference = gradients if reference is None else reference
            largest = max(float(gradient.abs().max()) for gradient in reference)
            apart[name] = max(
                float((own - other).abs().max()) for own, other in zip(gradients, reference, strict=True)
            ) / max(largest, 1e-30)
        share = seconds / len(steps)
        wanted = {name: max(min(rounds, int(share / taken[name])), 3) for name in steps}
        found = []
        for number in range(max(wanted.values())):
            for name, step in steps.items():
                if number < wanted[name]:
                    start = time.perf_counter()
                    step()
                    found.append(
                        {
                            "contestant": name,
                            "round": number,
                            "seconds": time.perf_counter() - start,
                            "difference": apart[name],
                        }
                    )
        return found
    finally:
        torch.set_num_threads(threads)


def flops_of(case: Case) -> int:
    """Floating-point operations of the matrix products in one meta-step of the batched engine."""
    step = _engine("batched")(case)
    step()
    with FlopCounterMode(display=False) as counter:
        step()
    return int(counter.get_total_flops())


def gemm_rate(threads: int, size: int = 1024, rounds: int = 9) -> float:
    """Floating-point operations per second of a plain product of square matrices, the median of some rounds."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        left, right = torch.rand(size, size), torch.rand(size, size)
        times: Sequence[float] = []
        for _ in range(rounds + 1):
            start = time.perf_counter()
            left @ right
            times = [*times, time.perf_counter() - start]
        return 2 * size**3 / sorted(times[1:])[rounds // 2]
    finally:
        torch.set_num_threads(before)
