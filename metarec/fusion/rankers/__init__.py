"""Classical rankers: the stackers of ranking, and the baselines of a meta-learned fusion there.

All see the same episodes: they learn from the candidates of train users and choose their settings by the nDCG@10 of
validation users.

>>> RANKERS.names()
['best-single', 'combsum', 'rrf', 'greedy', 'logistic', 'lambdamart']
"""

from metarec.fusion.rankers._base import Ranker
from metarec.registry import Registry

__all__ = ["RANKERS", "Ranker"]

RANKERS = Registry(
    "ranker",
    "metarec.rankers",
    {
        "best-single": "metarec.fusion.rankers.simple:BestSingleRanker",
        "combsum": "metarec.fusion.rankers.simple:CombSumRanker",
        "rrf": "metarec.fusion.rankers.simple:ReciprocalRankRanker",
        "greedy": "metarec.fusion.rankers.greedy:GreedyRanker",
        "logistic": "metarec.fusion.rankers.logistic:LogisticRanker",
        "lambdamart": "metarec.fusion.rankers.lambdamart:LambdaMartRanker",
    },
)
