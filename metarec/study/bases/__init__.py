"""The settings of base recommenders, which are tuned on validation users before the fusion."""

from metarec.study.bases._records import base_cells
from metarec.study.bases._tuning import BaseSearch, tune_bases, tuned_bases

__all__ = ["BaseSearch", "base_cells", "tune_bases", "tuned_bases"]
