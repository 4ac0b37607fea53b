"""The gain of the fixed strategies over the best control, target by target, as one picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from benchmarks.cold.picture import INK, colour, marker
from benchmarks.transfer.bars import FIXED, Line
from benchmarks.transfer.statistics import Section

__all__ = ["gains_picture"]

STYLES = dict(zip(FIXED, ("-", ":"), strict=True))


def gains_picture(lines: Mapping[Line, Section]) -> Figure:
    """A panel for each target (and a row for each regime): gain by target users, a colour for each number of shots.

    Above zero the strategy is better than the best control, chosen with hindsight. A hollow mark is no significant
    difference from it.
    """
    regimes = list(dict.fromkeys(line.regime for line in lines))
    targets = list(dict.fromkeys(line.target for line in lines))
    figure = Figure(
        figsize=(1.5 + 2.4 * len(targets), 1.6 + 2.8 * len(regimes)),
        dpi=100,
        layout=ConstrainedLayoutEngine(w_pad=0.06, h_pad=0.08),
        facecolor="white",
    )
    FigureCanvasAgg(figure)
    panels = figure.subplots(len(regimes), len(targets), sharex=True, sharey="row", squeeze=False)
    users = sorted({line.users for line in lines})
    shots = sorted({line.shots for line in lines})
    for row, regime in zip(panels, regimes, strict=True):
        row[0].set_ylabel(f"{regime}\ngain in RMSE, %", color=INK)
        for axes, target in zip(row, targets, strict=True):
            own = {line: section for line, section in lines.items() if (line.regime, line.target) == (regime, target)}
            _panel(axes, own, users, shots)
            axes.set_title(target, loc="left", fontsize=9, color=INK)
    figure.suptitle("Gain over the best control, by users of the target", x=0.01, ha="left", color=INK)
    figure.supxlabel("users of the target; hollow: no significant difference", fontsize=9, color=INK)
    legend = panels[0, 0]
    handles = [
        *(legend.plot([], [], color=INK, linestyle=style, label=name)[0] for name, style in STYLES.items()),
        *(
            legend.plot([], [], color=colour(place), marker=marker(place), label=f"{number} shots")[0]
            for place, number in enumerate(shots)
        ),
    ]
    figure.legend(handles=handles, loc="outside upper right", ncols=len(handles), frameon=False, fontsize=8)
    return figure


def _panel(axes: Axes, own: Mapping[Line, Section], users: Sequence[int], shots: Sequence[int]) -> None:
    for place, number in enumerate(shots):
        for name, style in STYLES.items():
            found = {
                users.index(line.users): section.over_best(name)
                for line, section in own.items()
                if line.shots == number and name in section.strategies
            }
            where = sorted(found)
            axes.plot(where, [found[x].difference for x in where], color=colour(place), linestyle=style, linewidth=1.2)
            for x in where:
                axes.plot(
                    x,
                    found[x].difference,
                    marker=marker(place),
                    color=colour(place),
                    markersize=4.5,
                    markerfacecolor="white" if found[x].verdict == "no difference" else colour(place),
                )
    axes.axhline(0, color=INK, linewidth=1, zorder=1)
    axes.set_xticks(range(len(users)), [str(count) for count in users])
    axes.set_xlim(-0.3, len(users) - 0.7)
    axes.spines[["top", "right"]].set_visible(False)
