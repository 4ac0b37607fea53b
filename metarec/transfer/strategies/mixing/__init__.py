"""How the strategy ``auto`` mixes its candidates: their errors, the shares, and the expected gain."""

from metarec.transfer.strategies.mixing._beliefs import Belief, gain_by_user, in_percent, prior_of, updated
from metarec.transfer.strategies.mixing._candidates import NAMES, TRANSFERRED, Candidates, candidates_out_of_fold
from metarec.transfer.strategies.mixing._shares import best_shares, error_products, exchangeable, squared_error

__all__ = [
    "NAMES",
    "TRANSFERRED",
    "Belief",
    "Candidates",
    "best_shares",
    "candidates_out_of_fold",
    "error_products",
    "exchangeable",
    "gain_by_user",
    "in_percent",
    "prior_of",
    "squared_error",
    "updated",
]
