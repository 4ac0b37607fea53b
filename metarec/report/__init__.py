"""Reports of studies and comparisons: findings, descriptions, pages and pictures."""

from metarec.report.comparison import ComparisonReporter
from metarec.report.study import StudyReporter, write_report

__all__ = ["ComparisonReporter", "StudyReporter", "write_report"]
