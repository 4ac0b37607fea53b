"""A fusion scorer for LensKit: it is trained on a LensKit dataset and used in LensKit's pipelines."""

from metarec.integrations.lenskit._config import FusionScorerConfig
from metarec.integrations.lenskit._scorer import FusionScorer

__all__ = ["FusionScorer", "FusionScorerConfig"]
