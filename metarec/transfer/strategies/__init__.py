"""Transfer strategies, one a file; the controls are in one."""

from metarec.transfer.strategies._base import TransferStrategy
from metarec.transfer.strategies._registry import STRATEGIES

__all__ = ["STRATEGIES", "TransferStrategy"]
