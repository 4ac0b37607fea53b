"""Findings of a study or a comparison, and the pages, descriptions and pictures that are made of them."""

from metarec.report.comparison import ComparisonReporter
from metarec.report.records import StudyReporter
from metarec.report.reporting import write_report

__all__ = ["ComparisonReporter", "StudyReporter", "write_report"]
