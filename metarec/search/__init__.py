"""The search: spaces, sampling, pruning, storage, and the processes that run trials."""

from metarec.search.objective import REASON, Objective, SearchSettings, error_of, ranked
from metarec.search.space import COMMON_PARAMETERS, NETWORK, named_parameters, parameters_of, suggest_parameters

__all__ = [
    "COMMON_PARAMETERS",
    "NETWORK",
    "REASON",
    "Objective",
    "SearchSettings",
    "error_of",
    "named_parameters",
    "parameters_of",
    "ranked",
    "suggest_parameters",
]
