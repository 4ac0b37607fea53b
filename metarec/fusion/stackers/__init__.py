"""Classical stackers: the baselines of a meta-learned fusion.

All see the same episodes: they learn from the query rows of train users and choose their settings on the query rows
of validation users.

>>> STACKERS.names()
['mean', 'best-single', 'ridge', 'fwls', 'greedy', 'gbm']
"""

from metarec.fusion.stackers._base import Stacker, query_rows, true_ratings
from metarec.registry import Registry

__all__ = ["STACKERS", "Stacker", "query_rows", "true_ratings"]

STACKERS = Registry(
    "baseline",
    "metarec.baselines",
    {
        "mean": "metarec.fusion.stackers.simple:MeanStacker",
        "best-single": "metarec.fusion.stackers.simple:BestSingleStacker",
        "ridge": "metarec.fusion.stackers.ridge:RidgeStacker",
        "fwls": "metarec.fusion.stackers.fwls:FeatureWeightedStacker",
        "greedy": "metarec.fusion.stackers.greedy:GreedyStacker",
        "gbm": "metarec.fusion.stackers.gbm:BoostingStacker",
    },
)
