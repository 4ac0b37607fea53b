"""The folders that benchmarks read and write."""

from __future__ import annotations

from pathlib import Path

__all__ = ["RESULTS", "ROOT", "WORK"]

ROOT = Path(__file__).parents[2]
"""The checkout."""

WORK = ROOT / "benchmarks" / "work"
"""Finished cells and predictions; not committed."""

RESULTS = ROOT / "benchmarks" / "results"
"""Reports; committed."""
