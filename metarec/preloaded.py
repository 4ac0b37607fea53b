"""Slow imports of nearly every worker, done once by the process from which workers are forked."""

from importlib import import_module

from metarec.importing import importing

__all__ = ["LIBRARIES"]

LIBRARIES = (
    "metarec.episodes",
    "metarec.bases.lenskit",
    "metarec.bases.content",
    "metarec.bases.autoencoder",
    "metarec.bases.bayesian",
)
"""Modules that import these libraries."""

with importing():
    import torch

    for name in LIBRARIES:
        import_module(name)
    # With the first optimizer torch imports its compiler, which takes most of a second.
    torch.optim.Adam([torch.zeros(1)])
