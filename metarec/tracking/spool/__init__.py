"""Records of studies and comparisons that wait in files until MLflow takes them."""

from metarec.tracking.spool._spooled_runs import SpooledComparisonRun, SpooledStudyRun

__all__ = ["SpooledComparisonRun", "SpooledStudyRun"]
