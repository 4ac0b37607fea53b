"""metarec's gain over each baseline, set by set, as one picture."""

from __future__ import annotations

import math

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from benchmarks.cold.report import Sections

__all__ = ["INK", "colour", "gains_picture", "marker"]

# Okabe and Ito's colours, which people with any colour vision can distinguish. The markers repeat the colours.
_COLOURS = ("#56b4e9", "#e69f00", "#009e73", "#0072b2", "#cc79a7", "#d55e00")
_MARKERS = "ovsD^P"
INK = "#2b2f36"
_COLUMNS = 3


def gains_picture(sections: Sections) -> Figure:
    """A panel for each set: a line for each baseline, a mark with its 95 % interval for each number of shots.

    Right of zero metarec is better. A filled mark is a verdict of better, worse or mixed; a hollow one is no
    difference. Baselines stand in the same order everywhere, those that are hardest to beat on top.
    """
    sets = list(dict.fromkeys(name for name, _ in sections))
    shots = list(dict.fromkeys(number for _, number in sections))
    baselines = _hardest_last(sections)
    columns = min(_COLUMNS, len(sets))
    rows = math.ceil(len(sets) / columns)
    figure = Figure(
        figsize=(1.6 + 4.2 * columns, 1.4 + rows * (1.1 + 0.16 * len(baselines) * (1 + len(shots)))),
        dpi=100,
        layout=ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.08),
        facecolor="white",
    )
    FigureCanvasAgg(figure)
    panels = figure.subplots(rows, columns, sharey=True, squeeze=False).ravel()
    for axes, name in zip(panels, sets, strict=False):
        _panel(axes, name, sections, shots, baselines)
    for axes in panels[len(sets) :]:
        axes.set_axis_off()
    figure.suptitle(
        "metarec's gain in RMSE over each baseline, cold users", x=0.01, ha="left", fontweight="bold", color=INK
    )
    figure.supxlabel(
        "lower RMSE than the baseline, in percent, with 95 % intervals over users; "
        "left of the line metarec is behind; hollow: no significant difference",
        fontsize=10,
        color=INK,
    )
    handles = [
        axes_line
        for axes_line in (
            panels[0].plot([], [], color=colour(place), marker=marker(place), label=f"{number} shots")[0]
            for place, number in enumerate(shots)
        )
    ]
    figure.legend(handles=handles, loc="outside upper right", ncols=len(handles), frameon=False)
    return figure


def _panel(axes: Axes, name: str, sections: Sections, shots: list[int], baselines: list[str]) -> None:
    step = 0.8 / len(shots)
    for place, number in enumerate(shots):
        section = sections.get((name, number))
        for line, baseline in enumerate(baselines):
            if section is None or baseline not in section.rmse:
                continue
            against = section.rmse[baseline]
            assert against.interval is not None
            low, high = against.interval
            height = line + 0.4 - step * (place + 0.5)
            own = colour(place)
            axes.plot([low, high], [height, height], color=own, linewidth=1.6)
            axes.plot(
                against.difference,
                height,
                marker=marker(place),
                color=own,
                markersize=5,
                markerfacecolor="white" if against.verdict == "no difference" else own,
            )
    low, high = axes.get_xlim()
    axes.set_xlim(min(low, -0.25), max(high, 0.25))
    axes.axvspan(axes.get_xlim()[0], 0, color="#f3f1ee", zorder=0)
    axes.axvline(0, color=INK, linewidth=1, zorder=1)
    for line in range(len(baselines) - 1):
        axes.axhline(line + 0.5, color="#e6e8eb", linewidth=0.8, zorder=0)
    axes.set_title(name, loc="left", fontsize=11, color=INK)
    axes.set_yticks(range(len(baselines)), baselines)
    axes.set_ylim(-0.55, len(baselines) - 0.45)
    axes.tick_params(axis="y", length=0)
    axes.spines[["top", "right", "left"]].set_visible(False)


def _hardest_last(sections: Sections) -> list[str]:
    """Baselines by metarec's mean gain over them, the largest first: the last stands on top."""
    gains: dict[str, list[float]] = {}
    for section in sections.values():
        for name, against in section.rmse.items():
            gains.setdefault(name, []).append(against.difference)
    return sorted(gains, key=lambda name: (-sum(gains[name]) / len(gains[name]), name))


def colour(place: int) -> str:
    """Of the line at this place."""
    return _COLOURS[place % len(_COLOURS)]


def marker(place: int) -> str:
    """Of the line at this place."""
    return _MARKERS[place % len(_MARKERS)]
