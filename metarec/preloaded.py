"""What nearly every worker needs and takes a second to import: imported by the process that workers are forked from."""

from importlib import import_module

from metarec.importing import importing

__all__ = ["LIBRARIES"]

LIBRARIES = ("metarec.episodes", "metarec.bases.lenskit", "metarec.bases.content", "metarec.bases.autoencoder")
"""Modules that bring the libraries with them."""

with importing():
    import torch

    for name in LIBRARIES:
        import_module(name)
    # With the first optimizer torch imports its compiler, which takes most of a second.
    torch.optim.Adam([torch.zeros(1)])
