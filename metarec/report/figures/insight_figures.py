"""Pictures of the best network: gains, segments of users, base weights and calibration.

They follow the rules of :mod:`metarec.report.figures.figures`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from metarec.evaluation.measures import Measure
from metarec.evaluation.metrics import Gain
from metarec.report.figures.canvas import BLUE, COLOURS, GREY, INK, ORANGE, beside, canvas, nothing, panels

__all__ = ["calibration", "gains_forest", "segments", "weights_against"]

MARKERS = "osD^vPX*"


def gains_forest(gains: Mapping[str, Gain], measure: Measure, *, domain: str, n_users: int) -> Figure:
    """metarec's gain over every other model with its 95 % interval; a filled mark if the interval excludes 0."""
    title = f"metarec's gain on test users: {domain} (n = {n_users} users)"
    figure, axes = canvas(title, height=1.7 + 0.34 * max(len(gains), 3))
    shown = [(name, gain) for name, gain in gains.items() if np.isfinite(gain).all()]
    if not shown:
        return nothing(figure, axes, "no other model to compare with")
    shown.sort(key=lambda pair: pair[1].percent)
    for place, (_, gain) in enumerate(shown):
        _interval(axes, gain, place)
        text = f"{gain.percent:+.1f} [{gain.low:+.1f}, {gain.high:+.1f}]".replace("-", "−")
        beside(axes, text, place, fontsize=9, color=_colour(gain))
    _no_gain(axes, len(shown))
    axes.set_yticks(range(len(shown)), [name[:28] for name, _ in shown])
    change = f"{'increase' if measure.maximised else 'reduction'} of {measure.label}"
    axes.set_xlabel(f"{change} against this model, % (line: 95 % paired bootstrap over users; hollow: holds 0)")
    return figure


def segments(table: pd.DataFrame, measure: Measure) -> Figure:
    """Metric and gain in each segment of users; a segment of too few users is marked.

    Args:
        table: as :func:`~metarec.evaluation.segments.segment_table` makes it.
    """
    if table.empty:
        return nothing(*canvas("Segments of test users", height=3), "no segments")
    reference = table["reference"].iloc[0]
    titles = [f"{measure.label} by segment", f"gain over {reference}"]
    figure, (left, right) = panels(titles, columns=2, height=1.9 + 0.36 * len(table))
    labels = []
    values = table[[measure.key, f"reference_{measure.key}"]][::-1].itertuples(index=False, name=None)
    for place, (row, (ours, theirs)) in enumerate(zip(table[::-1].itertuples(), values, strict=True)):
        mark = " (too few)" if row.few else ""
        labels.append(f"{row.measure.replace('_', ' ')}: {row.segment}, n = {row.n_users}{mark}")
        left.plot([theirs, ours], [place, place], color=GREY, linewidth=1.4, zorder=1)
        left.scatter(theirs, place, color=INK, marker="D", s=34, label=reference if not place else None)
        left.scatter(ours, place, color=ORANGE, s=44, label="metarec" if not place else None)
        _interval(right, Gain(row.gain, row.gain_low, row.gain_high), place, faint=row.few)
    left.set_yticks(range(len(table)), labels)
    left.tick_params(axis="y", labelsize=9)
    left.set_ylim(-0.6, len(table) - 0.4)
    right.set_yticks(range(len(table)), [])
    _no_gain(right, len(table))
    left.set_xlabel(measure.axis.replace(" in ", ", "))
    right.set_xlabel("% [95 %, bootstrap over users]")
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower left", ncols=2, frameon=False)
    return figure


def weights_against(pictured: Sequence[tuple[str, str, pd.DataFrame]], bases: Sequence[str]) -> Figure:
    """The mean weight of each base along a feature of users or items, with a panel for each feature.

    Args:
        pictured: title, name of the axis, and a table. Its index (text) stands on the axis, and its columns ``BASE``
            and ``BASE ±`` are the mean and half the width of its 95 % interval. An empty table leaves its panel empty.
    """
    figure, axes = panels([title for title, _, _ in pictured] or [""], height=2.6)
    if not bases or all(table.empty for _, _, table in pictured):
        for one in axes[1:]:
            one.set_axis_off()
        return nothing(figure, axes[0], "no weights")
    for one, (_, label, table) in zip(axes, pictured, strict=True):
        if table.empty:
            nothing(figure, one, "not available from these ratings")
            continue
        places = np.arange(len(table))
        for number, base in enumerate(bases):
            # The offset keeps one interval from hiding another.
            offset = places + 0.4 * (number / max(len(bases) - 1, 1) - 0.5) * min(1.0, len(bases) / 6)
            one.errorbar(
                offset,
                table[base],
                yerr=table[f"{base} ±"],
                color=COLOURS[number % len(COLOURS)],
                marker=MARKERS[number % len(MARKERS)],
                markersize=5,
                linewidth=1.2,
                elinewidth=1,
                label=base[:28],
            )
        one.set_xticks(places, list(table.index))
        one.set_xlabel(label)
        one.set_ylabel("mean weight")
        one.set_ylim(bottom=0)
        one.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    drawn = next(one for one, (*_, table) in zip(axes, pictured, strict=True) if not table.empty)
    figure.legend(
        *drawn.get_legend_handles_labels(), loc="outside lower center", ncols=min(len(bases), 4), frameon=False
    )
    return figure


def calibration(confidence: np.ndarray, rightness: np.ndarray, users: np.ndarray, *, bins: int = 10) -> Figure:
    """The network's confidences in the bases against their rightness, in bins of equal size.

    Args:
        confidence, rightness: [R] one base in one row each; NaN where a base makes no prediction.
        users: [R] the user of each row. Rows of one user are not independent, which widens the intervals.
    """
    valid = np.isfinite(confidence) & np.isfinite(rightness)
    figure, axes = canvas(
        f"Calibration of confidences (n = {valid.sum()} predictions, {len(set(users[valid]))} users)", height=4.8
    )
    if not valid.any():
        return nothing(figure, axes, "no confidences")
    order = np.argsort(confidence[valid], kind="stable")
    parts = np.array_split(np.flatnonzero(valid)[order], min(bins, len(order)))
    x, y = ([float(values[part].mean()) for part in parts] for values in (confidence, rightness))
    spread = [1.96 * _clustered_error(rightness[part], users[part]) for part in parts]
    axes.plot([0, 1], [0, 1], color=GREY, linestyle="--", linewidth=1, label="perfect calibration")
    axes.errorbar(
        x, y, yerr=spread, color=BLUE, marker="o", linewidth=1.6, label="tenths of the predictions; 95 % over users"
    )
    axes.set_xlim(-0.02, 1.02)
    axes.set_ylim(-0.02, 1.02)
    axes.set_xlabel("predicted confidence in a base")
    axes.set_ylabel("1 − its error / the largest base's error")
    axes.legend(frameon=False, loc="upper left")
    return figure


def _clustered_error(values: np.ndarray, users: np.ndarray) -> float:
    """The standard error of a mean whose values come from users, several from each (Liang, Zeger 1986)."""
    sums = pd.Series(values - values.mean()).groupby(users).sum()
    return float(np.sqrt((sums**2).sum()) / len(values))


def _colour(gain: Gain) -> str:
    if gain.low <= 0 <= gain.high:
        return GREY
    return BLUE if gain.low > 0 else ORANGE


def _interval(axes: Axes, gain: Gain, place: int, *, faint: bool = False) -> None:
    colour = GREY if faint else _colour(gain)
    sure = not gain.low <= 0 <= gain.high
    line = ":" if faint else "-"
    axes.plot([gain.low, gain.high], [place, place], color=colour, linewidth=2, linestyle=line, zorder=2)
    axes.scatter(
        gain.percent, place, s=46, zorder=3, edgecolors=colour, facecolors=colour if sure and not faint else "white"
    )


def _no_gain(axes: Axes, count: int) -> None:
    axes.axvline(0, color=INK, linestyle="--", linewidth=1, zorder=1)
    axes.set_ylim(-0.6, count - 0.4)
