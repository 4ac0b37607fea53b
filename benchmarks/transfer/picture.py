"""The gains of `auto` over three controls, target by target, as one picture."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from benchmarks.cold.picture import INK, colour, marker

__all__ = ["gains_picture"]

OVER = {
    "over_scratch": "over scratch",
    "over_stack": "over stack: what the sources' models add",
    "over_best_control": "over the best control with hindsight",
}
SPREAD = 0.22
"""The distance of two marks of one target."""


def gains_picture(name: str, regimes: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> Figure:
    """A panel for each regime: the gain of a strategy on each target, a colour for each control.

    Args:
        name: of the strategy. regimes: regime -> target -> gains, see :func:`benchmarks.transfer.bars.few_users_bar`.
    """
    targets = list(dict.fromkeys(target for own in regimes.values() for target in own))
    figure = Figure(
        figsize=(1.8 + 4.2 * len(regimes), 2.4 + 0.5 * len(targets)),
        dpi=100,
        layout=ConstrainedLayoutEngine(w_pad=0.06, h_pad=0.08),
        facecolor="white",
    )
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(regimes), sharex=True, sharey=True, squeeze=False)[0]
    for axes, (regime, own) in zip(panels, regimes.items(), strict=True):
        for place, (over, label) in enumerate(OVER.items()):
            rows = np.array([targets.index(target) for target in own]) + SPREAD * (place - 1)
            gains = np.array([entry[over]["difference"] for entry in own.values()])
            ends = np.array([entry[over]["interval"] or (np.nan, np.nan) for entry in own.values()])
            axes.errorbar(
                gains,
                rows,
                xerr=np.abs(ends - gains[:, None]).T,
                color=colour(place),
                marker=marker(place),
                linestyle="",
                markersize=5,
                capsize=2,
                label=label,
            )
        axes.axvline(0, color=INK, linewidth=1, zorder=1)
        axes.set_title(regime, loc="left", fontsize=10, color=INK)
        axes.set_xlabel("%, with 95 % intervals over draws; above 0 is better", fontsize=9, color=INK)
        axes.set_yticks(range(len(targets)), targets)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].invert_yaxis()
    figure.suptitle(f"Gain of {name} in RMSE, by what is scarce in the target", x=0.01, ha="left", color=INK)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=1, frameon=False, fontsize=8)
    return figure
