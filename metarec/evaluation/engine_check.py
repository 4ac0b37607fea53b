"""Compares the engines by the gradients of the best trial's first meta-steps."""

from __future__ import annotations

import time
from typing import NamedTuple

import torch

from metarec.episodes import Episodes
from metarec.meta import ENGINES, NetworkConfig, Shape

__all__ = ["EngineCheck", "check_engines"]

STEPS = 2

TASKS = 32
"""Users in a step; engines that process tasks one by one would need seconds for more."""


class EngineCheck(NamedTuple):
    """One engine's meta-steps.

    Attributes:
        milliseconds: of one meta-step (the meta-loss and its gradient), the fastest of a few.
        difference: largest difference of any gradient entry from the reference engine's, relative to the largest
            entry; None for the reference itself.
        problem: the reason for missing numbers.
    """

    engine: str
    milliseconds: float | None
    difference: float | None
    problem: str = ""


def check_engines(config: NetworkConfig, episodes: Episodes, *, seed: int) -> list[EngineCheck]:
    """Compare every engine with ``batched`` on the first batch of train users, from a network's initial parameters.

    Dropout is off, and at least one inner step is taken. After each step all engines apply the reference's gradient.
    """
    config = config.model_copy(update={"inner_steps": max(1, config.inner_steps)})
    tasks = torch.arange(min(TASKS, len(episodes)))
    batch = episodes.batch.select(tasks)
    names = ["batched", *(name for name in ENGINES.names() if name != "batched")]
    reference: list[list[torch.Tensor]] = []
    checks = []
    for name in names:
        try:
            learner = config.model_copy(update={"engine": name}).build(Shape.of(episodes.batch), seed)
        except ImportError as error:
            checks.append(EngineCheck(name, None, None, str(error)))
            continue
        learner.network.eval()
        # Not learner.parameters(): an engine may add its own.
        parameters = [*learner.network.parameters(), *learner.beside_network]
        times, differences = [], []
        for step in range(STEPS):
            start = time.perf_counter()
            gradients = torch.autograd.grad(learner.meta_loss(batch), parameters, allow_unused=True)
            times.append(time.perf_counter() - start)
            dense = [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, gradients, strict=True)]
            if name == "batched":
                reference.append(dense)
            largest = max(float(gradient.abs().max()) for gradient in reference[step])
            apart = max(float((a - b).abs().max()) for a, b in zip(dense, reference[step], strict=True))
            differences.append(apart / max(largest, 1e-30))
            with torch.no_grad():
                for parameter, gradient in zip(parameters, reference[step], strict=True):
                    parameter.sub_(config.outer_lr * gradient)
        checks.append(EngineCheck(name, 1000 * min(times), None if name == "batched" else max(differences)))
    return checks
