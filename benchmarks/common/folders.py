"""The folders that benchmarks read and write, wherever they are started."""

from __future__ import annotations

from pathlib import Path

__all__ = ["RESULTS", "ROOT", "WORK"]

ROOT = Path(__file__).parents[2]
"""The checkout."""

WORK = ROOT / "benchmarks" / "work"
"""Finished cells and predictions, which are not committed."""

RESULTS = ROOT / "benchmarks" / "results"
"""Reports, which are committed."""
