"""Studies of transfer: each trial is a strategy that learns from sources and from few users of the target."""

from metarec.study.transfer._objective import TransferObjective, TrialData, transfer_settings
from metarec.study.transfer._stages import PreparedRound, SearchedStrategies, TransferInput

__all__ = [
    "PreparedRound",
    "SearchedStrategies",
    "TransferInput",
    "TransferObjective",
    "TrialData",
    "transfer_settings",
]
