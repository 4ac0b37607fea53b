"""A scorer for LensKit's pipelines: see :mod:`metarec.integrations.lenskit`."""

from metarec.integrations.lenskit import FusionScorer, FusionScorerConfig

__all__ = ["FusionScorer", "FusionScorerConfig"]
