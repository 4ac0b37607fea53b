"""Rounds: sources with many users, a target with few, and test users."""

from metarec.transfer.rounds._round import REGIMES, Regime, Round
from metarec.transfer.rounds._rounds import FOLDS, TransferRounds

__all__ = ["FOLDS", "REGIMES", "Regime", "Round", "TransferRounds"]
