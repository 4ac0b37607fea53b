"""Rounds: sources with many users, a target with few, and test users."""

from metarec.transfer.rounds._base import FOLDS, Rounds
from metarec.transfer.rounds._ranking import RankingRounds
from metarec.transfer.rounds._round import REGIMES, Regime, Round
from metarec.transfer.rounds._rounds import TransferRounds

__all__ = ["FOLDS", "REGIMES", "RankingRounds", "Regime", "Round", "Rounds", "TransferRounds"]
