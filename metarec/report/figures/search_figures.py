"""Pictures of a search: learning curves, parameter importance, slices, parallel coordinates and strategies.

They follow the rules of :mod:`metarec.report.figures.figures`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter

from metarec.evaluation.measures import Measure
from metarec.report.figures.canvas import BLUE, COLOURS, GREY, INK, ORANGE, beside, canvas, edge_of, nothing, panels

__all__ = ["Tried", "importances", "learning_curves", "parallel_coordinates", "slices", "strategies", "varied"]

# Dark is good. The map is made for any colour vision.
COLOUR_MAP = "cividis"


class Tried(NamedTuple):
    """A complete trial: its number, its parameters, and its value on validation users."""

    number: int
    params: Mapping[str, Any]
    value: float


def learning_curves(curves: Mapping[str, Mapping[str, Sequence[float]]], measure: Measure) -> Figure:
    """Training loss and validation metric of several trials.

    Args:
        curves: name of a trial -> series -> a number for each epoch, from 0.
    """
    wanted = [
        ("train", "Training: loss of each epoch", "loss"),
        (measure.curve, f"Validation: {measure.label} of each epoch", measure.validation_label),
    ]
    figure, axes = panels([title for _, title, _ in wanted], height=3.3)
    for one, (start, _, label) in zip(axes, wanted, strict=True):
        drawn = 0
        for number, (name, series) in enumerate(curves.items()):
            values = np.asarray(_series(series, start), dtype=float)
            if np.isfinite(values).any():
                marker = "o" if len(values) <= 30 else None
                values = np.where(np.isfinite(values), values, np.nan)
                one.plot(values, color=COLOURS[number % len(COLOURS)], marker=marker, markersize=3.5, label=name)
                drawn += 1
        if not drawn:
            nothing(figure, one, "no epochs on record")
            continue
        one.set_xlabel("epoch")
        one.set_ylabel(label)
        one.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        one.legend(frameon=False)
    return figure


def _series(series: Mapping[str, Sequence[float]], start: str) -> Sequence[float]:
    return next((values for name, values in series.items() if name.startswith(start)), [])


def importances(shares: Mapping[str, float], *, trials: int) -> Figure:
    """The share of the variance among trials that each parameter explains, the most important on top."""
    figure, axes = canvas(f"Parameter importance (n = {trials} trials)", height=1.6 + 0.36 * max(len(shares), 3))
    shown = sorted(((name, share) for name, share in shares.items() if math.isfinite(share)), key=lambda pair: pair[1])
    if not shown:
        return nothing(figure, axes, f"not available from {trials} complete trials")
    axes.barh([name for name, _ in shown], [share for _, share in shown], color=BLUE, height=0.6)
    for place, (_, share) in enumerate(shown):
        axes.annotate(f" {share:.0%}", (share, place), va="center", color=INK, fontsize=9)
    axes.set_xlim(0, max(share for _, share in shown) * 1.12 or 1)
    axes.set_xlabel("share of the explained variance of the error (fANOVA)")
    return figure


def slices(trials: Sequence[Tried], measure: Measure) -> Figure:
    """The value of each trial against each parameter that was varied; triangles are worse than the axis shows."""
    names = varied([trial for trial in trials if math.isfinite(trial.value)])
    if not names:
        return nothing(
            *canvas(f"{measure.noun.capitalize()} against each parameter", height=3), "no parameter was varied"
        )
    figure, axes = panels(names, columns=3, height=2.5)
    edge = edge_of([trial.value for trial in trials], maximised=measure.maximised)
    beyond = "v" if measure.maximised else "^"
    for one, name in zip(axes, names, strict=True):
        own = [trial for trial in trials if name in trial.params and math.isfinite(trial.value)]
        places, labels = _places([trial.params[name] for trial in own])
        if labels is not None:
            places = _spread(places)
        for place, value in zip(places, [trial.value for trial in own], strict=True):
            out = value != edge and measure.best([value, edge]) == edge
            marker, colour = (beyond, ORANGE) if out else ("o", BLUE)
            at = edge if out else value
            one.scatter(place, at, c=colour, marker=marker, s=22, alpha=0.8, edgecolors="white", linewidths=0.4)
        if labels is not None:
            one.set_xticks(range(len(labels)), labels, rotation=20 if len(labels) > 3 else 0, fontsize=8)
            one.set_xlim(-0.5, len(labels) - 0.5)
        elif _is_log([trial.params[name] for trial in own]):
            one.set_xscale("log")
            # Over less than two decades the labels would overlap.
            one.xaxis.set_minor_formatter(NullFormatter())
        one.tick_params(labelsize=8)
        one.yaxis.set_major_locator(MaxNLocator(nbins=4))
    figure.supylabel(measure.validation_label, fontsize=10)
    return figure


def parallel_coordinates(trials: Sequence[Tried], measure: Measure) -> Figure:
    """Every trial as a line through its parameters; better trials are darker."""
    names = varied(trials)
    figure, axes = canvas("Trials through their parameters", height=4.6)
    finite = sorted(
        (trial for trial in trials if math.isfinite(trial.value)),
        key=lambda trial: measure.cost(trial.value),
        reverse=True,
    )
    if not names or not finite:
        return nothing(figure, axes, "no parameter was varied")
    heights: dict[str, dict[int, float]] = {}
    for name in names:
        own = [trial for trial in finite if name in trial.params]
        places, labels = _places([trial.params[name] for trial in own])
        if labels is None and _is_log(places):
            places = [math.log(place) for place in places]
        low, span = min(places), max(places) - min(places)
        heights[name] = {
            trial.number: (place - low) / span if span else 0.5 for trial, place in zip(own, places, strict=True)
        }
        low_text, high_text = (labels[0], labels[-1]) if labels else _ends([trial.params[name] for trial in own])
        for height, text in ((-0.04, low_text), (1.04, high_text)):
            axes.text(names.index(name), height, text, ha="center", va="center", fontsize=8, color=GREY)
    values = [trial.value for trial in finite]
    # A few bad trials must not take all colours.
    low, high = sorted([measure.best(values), edge_of(values, maximised=measure.maximised)])
    colours = ScalarMappable(Normalize(low, high), COLOUR_MAP + "_r" * measure.maximised)
    for trial in finite:
        line = [heights[name].get(trial.number, math.nan) for name in names]
        axes.plot(range(len(names)), line, color=colours.to_rgba(np.asarray(trial.value)), alpha=0.8, linewidth=1.4)
    axes.set_xticks(range(len(names)), [name.replace("_", "\n") for name in names], fontsize=9)
    axes.set_yticks([])
    axes.set_ylim(-0.1, 1.1)
    figure.colorbar(colours, ax=axes, label=measure.validation_label, shrink=0.8)
    return figure


def strategies(trials: Mapping[str, Sequence[float]], measure: Measure) -> Figure:
    """The values of each strategy's trials on validation users, the best strategy on top."""
    count = sum(map(len, trials.values()))
    figure, axes = canvas(f"Strategies (n = {count} trials)", height=1.6 + 0.4 * max(len(trials), 3))
    finite = {name: [value for value in values if math.isfinite(value)] for name, values in trials.items()}
    shown = [(name, values, measure.best(values)) for name, values in finite.items() if values]
    shown.sort(key=lambda own: measure.cost(own[2]), reverse=True)
    if not shown:
        return nothing(figure, axes, "no strategy was searched")
    for place, (_, values, best) in enumerate(shown):
        axes.plot([min(values), max(values)], [place, place], color=GREY, linewidth=1)
        axes.scatter(values, [place] * len(values), color=BLUE, s=28, alpha=0.7, zorder=2)
        axes.scatter(best, place, color=ORANGE, s=60, zorder=3)
        beside(axes, f"{best:.4f} ({len(values)})", place, fontsize=9, color=ORANGE)
    axes.set_yticks(range(len(shown)), [name.replace("_", " ") for name, *_ in shown])
    axes.set_ylim(-0.6, len(shown) - 0.4)
    best_trial = f"orange: the best trial; right: its {measure.noun} and the number of trials"
    axes.set_xlabel(f"{measure.validation_label}; {best_trial}")
    return figure


def varied(trials: Sequence[Tried]) -> list[str]:
    """The parameters that have more than one value."""
    names = dict.fromkeys(name for trial in trials for name in trial.params)
    return [name for name in names if len({str(trial.params[name]) for trial in trials if name in trial.params}) > 1]


FEW = 8
"""So many different whole numbers are shown as choices."""


def _places(values: Sequence[Any]) -> tuple[list[float], list[str] | None]:
    """The places of values on an axis; for choices and a few whole numbers also the labels of the places."""
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    whole = numbers and all(isinstance(value, int) for value in values) and len(set(values)) <= FEW
    if numbers and not whole:
        return [float(value) for value in values], None
    labels = [str(value) for value in sorted(set(values))] if whole else sorted({str(value) for value in values})
    return [float(labels.index(str(value))) for value in values], labels


def _spread(places: Sequence[float]) -> list[float]:
    """The places of choices, with those of one choice beside each other."""
    seen: Counter[float] = Counter()
    spread = []
    for place in places:
        # Seven places, from the middle to both sides.
        spread.append(place + 0.07 * ((seen[place] + 1) // 2 % 4) * (-1) ** seen[place])
        seen[place] += 1
    return spread


def _is_log(values: Sequence[float]) -> bool:
    return min(values) > 0 and max(values) / min(values) > 20


def _ends(values: Sequence[float]) -> tuple[str, str]:
    return f"{min(values):.3g}", f"{max(values):.3g}"
