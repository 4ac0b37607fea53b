"""Descriptions of runs in markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

__all__ = ["markdown_table"]


def _cell(value: object) -> str:
    text = f"{value:.4f}" if isinstance(value, float) else str(value)
    return " ".join(text.replace("|", "\\|").split())


def markdown_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A markdown table; floats get four decimals.

    >>> print(markdown_table(["model", "rmse"], [["metarec", 0.91234], ["ridge", 0.92]]))
    | model | rmse |
    | --- | --- |
    | metarec | 0.9123 |
    | ridge | 0.9200 |
    """
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(_cell(value) for value in line)} |" for line in lines)
