"""Records of a study that wait in files until MLflow takes them."""

from metarec.tracking.spool._spooled_runs import SpooledStudyRun

__all__ = ["SpooledStudyRun"]
