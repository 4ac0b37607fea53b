"""The pictures of a study, as matplotlib figures without any global state.

Each function returns a :class:`matplotlib.figure.Figure`, 800 pixels wide at its own resolution, for :func:`save`.
Numbers that are not finite leave gaps; a figure without data gives the reason.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from metarec.evaluation.measures import Measure
from metarec.report.figures.canvas import (
    BLUE,
    COLOURS,
    GREEN,
    GREY,
    INK,
    ORANGE,
    beside,
    canvas,
    edge_of,
    nothing,
    save,
)
from metarec.study.results import FrontLine

__all__ = [
    "TrialPoint",
    "base_weights",
    "learning_curve",
    "model_comparison",
    "pareto_front",
    "save",
    "search_history",
]


@dataclass(frozen=True)
class TrialPoint:
    """One trial of a search; `value` may be None; `state` is "complete", "pruned" or "failed"."""

    number: int
    value: float | None
    state: str


def learning_curve(history: Mapping[str, Sequence[float]], best_epoch: int | None = None) -> Figure:
    """One line per series of `history`, over epochs counted from 0, with the epoch that was kept marked."""
    figure, axes = canvas("Learning curve", height=4.5)
    drawn = 0
    for (name, values), colour in zip(history.items(), cycle(COLOURS), strict=False):
        numbers = _gaps(values)
        if np.isfinite(numbers).any():
            # A single epoch between gaps makes no line, so short series show their points.
            marker = "o" if np.isfinite(numbers).sum() <= 30 else None
            label = name.replace("_", " ")
            axes.plot(numbers, color=colour, marker=marker, markersize=4, linewidth=1.8, label=label)
            drawn += 1
    if not drawn:
        return nothing(figure, axes, "no epoch with a finite value")
    if best_epoch is not None:
        axes.axvline(best_epoch, color=GREY, linestyle="--", linewidth=1, label=f"kept: epoch {best_epoch}")
    axes.set_xlabel("epoch")
    axes.set_ylabel("loss")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    if all(len(values) <= 1 for values in history.values()):
        axes.set_xlim(-0.5, 0.5)
    axes.legend(frameon=False)
    return figure


def base_weights(weights: np.ndarray, base_names: Sequence[str]) -> Figure:
    """The distribution of each base's weight over rows, with the largest mean weight on top.

    Args:
        weights: [R, A] the weight of each base in each row; NaN leaves a row out.
        base_names: the A names.
    """
    weights = np.asarray(weights, dtype=float)
    if weights.ndim != 2 or weights.shape[1] != len(base_names):
        raise ValueError(f"weights must have shape [rows, {len(base_names)}] but got {list(weights.shape)}")
    figure, axes = canvas("Weight given to each base recommender", height=1.9 + 0.5 * max(len(base_names), 2))
    columns = [column[np.isfinite(column)] for column in weights.T]
    filled = [index for index, column in enumerate(columns) if len(column)]
    if not filled:
        return nothing(figure, axes, "no row with finite weights")
    order = sorted(filled, key=lambda index: float(columns[index].mean()))
    places = np.arange(len(order))
    shown = [columns[index] for index in order]
    boxes = axes.boxplot(
        shown,
        positions=places,
        orientation="horizontal",
        widths=0.55,
        whis=(5, 95),
        showfliers=False,
        patch_artist=True,
        medianprops={"color": INK, "linewidth": 1.4},
        whiskerprops={"color": GREY},
        capprops={"color": GREY},
    )
    for box in boxes["boxes"]:
        box.set(facecolor="#cfe3f1", edgecolor=BLUE)
    means = [float(column.mean()) for column in shown]
    axes.scatter(means, places, color=ORANGE, zorder=3, s=36, label="mean")
    right = max(max(float(column.max()) for column in shown), 1.0 / len(base_names)) * 1.02
    for place, mean in zip(places, means, strict=True):
        beside(axes, f"{mean:.0%}", place, color=ORANGE, fontsize=10)
    axes.axvline(1.0 / len(base_names), color=GREY, linestyle="--", linewidth=1, label="equal weights")
    axes.set_xlim(min(0.0, min(float(column.min()) for column in shown)), right)
    axes.set_yticks(places, [_short(base_names[index]) for index in order])
    axes.set_ylim(-0.6, len(order) - 0.4)
    axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.set_xlabel("weight (box: middle half of the rows; whiskers: 5 to 95 %)")
    axes.legend(loc="lower right", facecolor="white", edgecolor="none", framealpha=0.9)
    return figure


def model_comparison(values: Mapping[str, float], measure: Measure, *, domain: str) -> Figure:
    """The value of each model on the test users, the best on top, with its distance to the best single base."""
    figure, axes = canvas(f"{measure.label} on test users: {domain}", height=1.7 + 0.38 * max(len(values), 3))
    finite = ((model, value) for model, value in values.items() if math.isfinite(value))
    shown = sorted(finite, key=lambda pair: measure.cost(pair[1]), reverse=True)
    if not shown:
        return nothing(figure, axes, f"no model with a finite {measure.label}")
    reference = dict(shown).get("best-single")
    for place, (model, value) in enumerate(shown):
        ours = model == "metarec"
        colour = ORANGE if ours else INK if model == "best-single" else GREY
        if reference is not None:
            axes.plot([reference, value], [place, place], color=colour, alpha=0.5, linewidth=1.6)
        axes.scatter(value, place, color=colour, s=90 if ours else 48, zorder=3)
        text = f"{value:.4f}"
        if reference and model != "best-single":
            text += f"  ({value / reference - 1:+.1%})".replace("-", "−")
        beside(axes, text, place, color=colour, fontsize=10, fontweight="bold" if ours else "normal")
    if reference is not None:
        axes.axvline(reference, color=INK, linestyle="--", linewidth=1, zorder=1)
    axes.set_yticks(range(len(shown)), [_short(model) for model, _ in shown])
    for label, (model, _) in zip(axes.get_yticklabels(), shown, strict=True):
        label.set_fontweight("bold" if model == "metarec" else "normal")
    axes.set_ylim(-0.6, len(shown) - 0.4)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6))
    axes.margins(x=0.06)
    against = "; in brackets: against best-single" if reference is not None else ""
    axes.set_xlabel(f"{measure.axis}, {'more' if measure.maximised else 'less'} is better{against}")
    return figure


def search_history(trials: Sequence[TrialPoint], measure: Measure) -> Figure:
    """The value of each trial, the best so far, and which trials were pruned or failed."""
    figure, axes = canvas("Search", height=4.5)
    if not trials:
        return nothing(figure, axes, "no trial yet")
    trials = sorted(trials, key=lambda trial: trial.number)
    numbers = np.array([trial.number for trial in trials])
    values = _gaps([math.nan if trial.value is None else trial.value for trial in trials])
    states = np.array([trial.state for trial in trials])
    finite = np.isfinite(values)
    edge = edge_of(values, maximised=measure.maximised)
    beyond = finite & ((values < edge) if measure.maximised else (values > edge))
    values = np.where(beyond, edge, values)
    complete = finite & (states == "complete")
    pruned = finite & (states == "pruned")
    if complete.any():
        so_far = (np.maximum if measure.maximised else np.minimum).accumulate(values[complete])
        steps = np.append(numbers[complete], numbers[-1])
        axes.step(steps, np.append(so_far, so_far[-1]), where="post", color=GREEN, label="best so far")
    for group, name, colour, marker in (
        (complete, "complete", BLUE, "o"),
        (pruned, "pruned (last value)", GREY, "v"),
        (finite & ~complete & ~pruned, "failed (last value)", ORANGE, "x"),
    ):
        if group.any():
            axes.scatter(numbers[group], values[group], color=colour, marker=marker, s=42, zorder=3, label=name)
    if beyond.any():
        axes.scatter(
            numbers[beyond],
            values[beyond],
            color=INK,
            marker="v" if measure.maximised else "^",
            s=90,
            zorder=2,
            label="worse than the axis shows",
        )
    if not finite.all():
        # Trials without a value stand on the axis.
        axes.scatter(
            numbers[~finite],
            np.zeros((~finite).sum()),
            transform=axes.get_xaxis_transform(),
            color=ORANGE,
            marker="x",
            s=42,
            clip_on=False,
            zorder=4,
            label="failed or no value",
        )
    if not finite.any():
        axes.set_yticks([])
    axes.set_xlabel("trial")
    axes.set_ylabel(measure.validation_label)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    if len(trials) == 1:
        axes.set_xlim(trials[0].number - 0.5, trials[0].number + 0.5)
    axes.legend(frameon=False)
    return figure


def pareto_front(trials: Sequence[FrontLine], front: Sequence[FrontLine], measure: Measure) -> Figure:
    """Error against seconds of all trials; those of the Pareto front are joined and numbered.

    Trials far worse than the front are only counted, because they would flatten the picture.
    """
    figure, axes = canvas(f"{measure.noun.capitalize()} and time", height=4.5)
    if not trials:
        return nothing(figure, axes, "no complete trial")
    front = sorted(front, key=lambda line: line.seconds)
    low, high = front[-1].error, front[0].error
    top = high + max(4 * (high - low), 0.02 * high)
    others = [line for line in trials if line not in front and line.error <= top]
    if others:
        axes.plot(*_places(others, measure), color=GREY, marker="o", linestyle="", markersize=6, label="dominated")
    axes.plot(
        *_places(front, measure), color=ORANGE, marker="o", markersize=7, drawstyle="steps-post", label="Pareto front"
    )
    for line in front:
        axes.annotate(
            f"trial {line.trial}", (1e6 * line.seconds, measure.shown(line.error)), (6, 6), textcoords="offset points"
        )
    axes.set_xlabel("microseconds of a processor for a prediction")
    axes.set_ylabel(measure.validation_label)
    axes.margins(x=0.12, y=0.12)
    above = len(trials) - len(front) - len(others)
    axes.legend(
        frameon=False,
        title=f"{above} more {'below' if measure.maximised else 'above'}" if above else None,
        alignment="left",
    )
    return figure


def _places(trials: Sequence[FrontLine], measure: Measure) -> tuple[list[float], list[float]]:
    return [1e6 * line.seconds for line in trials], [measure.shown(line.error) for line in trials]


def _gaps(values: Sequence[float]) -> np.ndarray:
    numbers = np.asarray(values, dtype=float)
    return np.where(np.isfinite(numbers), numbers, np.nan)


def _short(name: str) -> str:
    return textwrap.shorten(name, width=28, placeholder="…") if " " in name else name[:28]
