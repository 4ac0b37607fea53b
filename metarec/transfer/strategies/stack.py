"""The mixture of `auto` without the sources' models."""

from __future__ import annotations

from metarec.episodes import Episodes
from metarec.transfer.sources import Sources
from metarec.transfer.strategies.auto import Auto, AutoModel

__all__ = ["Stack"]


class Stack(Auto):
    """A control: the stackers of the target's few users, mixed with the weights that `auto` would give them alone.

    No source model predicts. The sources only help to choose the weights, as in `auto`. So the difference between the
    two is what the sources' models add.
    """

    name = "stack"

    def _fit(self, sources: Sources, target: Episodes) -> AutoModel:
        return super()._fit(sources, target).without_transferred()
