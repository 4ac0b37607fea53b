"""The pictures of a comparison."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from metarec.compare.plan import SCRATCH
from metarec.compare.summary import Comparison, Setting
from metarec.report.figures.canvas import COLOURS, GREY, INK, canvas, label, nothing, panels
from metarec.transfer.competitors import ORACLE, baselines

__all__ = ["gain_over_scratch", "similarity"]

SPREAD = 0.5
"""The width over which the strategies of one number of shots are spread; numbers of shots are 1 apart."""

MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">")


def gain_over_scratch(comparison: Comparison) -> Figure:
    """The gain of each strategy over scratch by number of shots, with a panel for each number of train users.

    Strategies that use the sources have colours and, where there are two draws or more, 95 % intervals over draws. The
    baselines, which learn from the few users alone, are thin grey lines; they do not set the limits of the axis.
    """
    settings = comparison.settings()
    plain = baselines(comparison.plan.fusion.task)
    shown = [name for name in comparison.plan.strategies if name not in (SCRATCH, *plain)]
    grey = [name for name in comparison.plan.strategies if name in plain]
    titles = [f"{comparison.plan.target}: gain over scratch, {setting}" for setting in settings]
    # The legend has the same height for any number of panels.
    figure, made = panels(titles, height=3.3 + 1.3 / len(titles))
    if not shown and not grey:
        return nothing(figure, made[0], "only scratch was computed")
    for axes, setting in zip(made, settings, strict=True):
        _draw_panel(axes, comparison, setting, shown, grey)
    made[-1].set_xlabel("shots: support ratings of each test user")
    handles, labels = made[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False)
    return figure


def _draw_panel(axes: Axes, comparison: Comparison, setting: Setting, shown: list[str], grey: list[str]) -> None:
    places = np.arange(len(comparison.plan.shots))
    own = [line for line in comparison.lines if line.setting == setting and line.shots is not None]
    # [shots, 3] the gain and the ends of its interval, NaN where there is none.
    gains_of = {
        name: np.array([line.gain[:3] for line in own if line.strategy == name and line.gain], dtype=float)
        for name in (*shown, *grey)
    }
    axes.axhline(0, color=INK, linewidth=1)
    for number, name in enumerate(grey):
        gains = gains_of[name]
        label = "baselines on the few users" if number == 0 else None
        axes.plot(places, gains[:, 0], color=GREY, linewidth=0.9, alpha=0.7, zorder=1, label=label)
        if not shown:
            axes.annotate(name, (places[-1], gains[-1, 0]), xytext=(6, 0), textcoords="offset points", color=GREY)
    offsets = np.linspace(-SPREAD / 2, SPREAD / 2, len(shown)) if len(shown) > 1 else np.zeros(len(shown))
    for number, (name, offset) in enumerate(zip(shown, offsets, strict=True)):
        gains = gains_of[name]
        colour = GREY if name == ORACLE else COLOURS[number % len(COLOURS)]
        axes.errorbar(
            places + offset,
            gains[:, 0],
            yerr=np.abs(gains[:, 1:] - gains[:, :1]).T,
            color=colour,
            linestyle="--" if name == ORACLE or number >= len(COLOURS) else "-",
            marker=MARKERS[number % len(MARKERS)],
            markersize=5,
            linewidth=1.4,
            elinewidth=1,
            capsize=2,
            label=name.replace("_", " "),
        )
    if shown:
        # A baseline with a large error must not flatten the other lines.
        values = np.concatenate([gains_of[name] for name in shown])
        low, high = min(0.0, float(np.nanmin(values))), max(0.0, float(np.nanmax(values)))
        margin = 0.08 * (high - low) or 1.0
        axes.set_ylim(low - margin, high + margin)
    axes.set_xticks(places, [str(shots) for shots in comparison.plan.shots])
    axes.set_xlim(-0.5, len(places) - 0.5)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=7))
    measure = comparison.plan.measure
    change = "increase" if measure.maximised else "reduction"
    axes.set_ylabel(f"{change} of {measure.label} against scratch, %")


def similarity(table: Mapping[str, Mapping[str, float]]) -> Figure:
    """The similarity of every two domains as a heat map with numbers; `table`: domain -> domain -> in [0, 1]."""
    names = list(table)
    figure, axes = canvas("Similarity of domains", height=2.2 + 0.62 * max(len(names), 2))
    values = np.array([[table[a][b] for b in names] for a in names])
    image = axes.imshow(values, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    axes.grid(visible=False)
    labels = [label(name) for name in names]
    axes.set_xticks(range(len(names)), labels, rotation=30 if len(names) > 6 else 0)
    axes.set_yticks(range(len(names)), labels)
    for row, column in np.ndindex(values.shape):
        value = values[row, column]
        axes.text(
            column, row, f"{value:.2f}", ha="center", va="center", fontsize=11, color="white" if value > 0.6 else INK
        )
    axes.set_xlabel("mean similarity of ratings, errors of the bases, and users; 1 is the same")
    figure.colorbar(image, ax=axes, shrink=0.9)
    return figure
