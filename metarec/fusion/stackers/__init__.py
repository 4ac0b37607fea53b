"""The classical ways of combining recommenders, which a meta-learned fusion must beat.

All see the same episodes: they learn from the query rows of train users and choose their settings on the query rows
of validation users.

>>> STACKERS.names()
['mean', 'best-single', 'ridge', 'fwls', 'greedy', 'gbm']
"""

from metarec.fusion.stackers._base import Stacker
from metarec.fusion.stackers._common import known_targets, query_rows
from metarec.registry import Registry

__all__ = ["STACKERS", "Stacker", "known_targets", "query_rows"]

STACKERS = Registry(
    "baseline",
    "metarec.baselines",
    {
        "mean": "metarec.fusion.stackers.mean:MeanStacker",
        "best-single": "metarec.fusion.stackers.best_single:BestSingleStacker",
        "ridge": "metarec.fusion.stackers.ridge:RidgeStacker",
        "fwls": "metarec.fusion.stackers.fwls:FeatureWeightedStacker",
        "greedy": "metarec.fusion.stackers.greedy:GreedyStacker",
        "gbm": "metarec.fusion.stackers.gbm:BoostingStacker",
    },
)
