"""Transfer strategies, one a file."""

from metarec.transfer.strategies._base import TransferStrategy
from metarec.transfer.strategies._registry import STRATEGIES

__all__ = [
    "STRATEGIES",
    "TransferStrategy",
]
