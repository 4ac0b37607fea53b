"""The size, colours and layout of all pictures, and how they are saved."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from metarec.errors import printable

__all__ = [
    "BLUE",
    "COLOURS",
    "GREEN",
    "GREY",
    "INK",
    "ORANGE",
    "beside",
    "canvas",
    "edge_of",
    "label",
    "nothing",
    "panels",
    "save",
]

_WIDTH = 8.0
_DPI = 100

# Okabe and Ito's colours, which are distinct for any colour vision, and three more for pictures with many lines.
BLUE = "#0072b2"
ORANGE = "#d55e00"
GREEN = "#009e73"
GREY = "#8a8f98"
INK = "#2b2f36"
COLOURS = (BLUE, ORANGE, GREEN, "#cc79a7", "#e69f00", "#56b4e9", "#6a3d9a", "#7f4f24", "#111111")


def canvas(title: str, *, height: float) -> tuple[Figure, Axes]:
    """An empty picture, 800 pixels wide and `height` inches high at 100 pixels each."""
    figure, (axes,) = panels([title], height=height)
    return figure, axes


def panels(titles: list[str], *, columns: int = 1, height: float) -> tuple[Figure, list[Axes]]:
    """An empty picture with `columns` panels in a row, each with a title and `height` inches high."""
    layout = ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.12)
    rows = -(-len(titles) // columns)
    figure = Figure(figsize=(_WIDTH, height * rows), dpi=_DPI, layout=layout, facecolor="white")
    FigureCanvasAgg(figure)
    made = list(figure.subplots(rows, columns, squeeze=False).ravel())
    for unused in made[len(titles) :]:
        unused.set_axis_off()
    size = 13 if columns == 1 else 11
    for axes, title in zip(made, titles, strict=False):
        axes.set_title(label(title), loc="left", fontsize=size, fontweight="bold", color=INK)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="both", color="#e6e8eb", linewidth=0.8)
        axes.set_axisbelow(True)
    return figure, made[: len(titles)]


def label(text: str) -> str:
    """A text that a picture shows as it is: between dollars would be mathematics, and wrong mathematics an error."""
    return printable(text).replace("$", r"\$")


def beside(axes: Axes, text: str, row: float, **style: Any) -> None:
    """Write a text to the right of the axes, at the height of a row."""
    axes.annotate(text, (1.01, row), xycoords=("axes fraction", "data"), va="center", **style)


def edge_of(values: Iterable[float], *, maximised: bool) -> float:
    """Where the axis of some values ends on their worse side, so that a few bad ones do not flatten the others.

    It is as far beyond the median as three times the median is from the best, or the worst value if that is nearer. NaN
    without a finite value.

    >>> edge_of([0.17, 0.18, 0.19, 3.0], maximised=False), edge_of([0.1, 0.2, 0.3], maximised=True)
    (0.23, 0.1)
    """
    best, worst = (max, min) if maximised else (min, max)
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return math.nan
    middle = statistics.median(finite)
    edge = middle + 3 * (middle - best(finite))
    return round(edge, 12) if edge != middle and worst(edge, worst(finite)) != edge else worst(finite)


def nothing(figure: Figure, axes: Axes, why: str) -> Figure:
    """A picture with the reason why there is nothing to draw."""
    axes.set_axis_off()
    axes.text(0.5, 0.5, why, ha="center", va="center", transform=axes.transAxes, color=GREY, fontsize=12)
    return figure


def save(figure: Figure, path: Path) -> None:
    """Write the figure as PNG. The file equals that of ``savefig``, which does the layout twice."""
    drawn = figure.canvas
    assert isinstance(drawn, FigureCanvasAgg)
    drawn.print_png(str(path))
