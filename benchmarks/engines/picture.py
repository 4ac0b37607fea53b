"""The time of a meta-step against the number of tasks and of inner steps, as one picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

__all__ = ["costs_picture"]

# Okabe and Ito's colours, for any colour vision; the markers differ, too.
_LOOKS = {
    "learn2learn": ("#e69f00", "s"),
    "higher": ("#cc79a7", "D"),
    "TorchOpt": ("#56b4e9", "v"),
    "torch.func in a loop": ("#f0e442", "^"),
    "vmap": ("#009e73", "P"),
    "batched": ("#0072b2", "o"),
}
_BASE = {"network": "attention", "tasks": 32, "steps": 5, "shots": 10, "first_order": False, "threads": 1}


def costs_picture(cases: Sequence[Mapping[str, Any]]) -> Figure:
    """Two panels on logarithmic axes: seconds per meta-step against tasks, and against inner steps."""
    figure = Figure(figsize=(11, 4.6), dpi=100, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    for axes, (key, label) in zip(
        figure.subplots(1, 2, sharey=True), (("tasks", "tasks"), ("steps", "inner steps")), strict=True
    ):
        _panel(axes, [case for case in cases if _is_base_but(case, key)], key, label)
    figure.axes[0].set_ylabel("seconds per meta-step")
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False, fontsize=9)
    figure.suptitle("One meta-step of the attention network, second order, one thread", x=0.01, ha="left")
    return figure


def _is_base_but(case: Mapping[str, Any], key: str) -> bool:
    return all(case[name] == value for name, value in _BASE.items() if name != key)


def _panel(axes: Axes, cases: Sequence[Mapping[str, Any]], key: str, label: str) -> None:
    ordered = sorted(cases, key=lambda case: case[key])
    for name, (colour, marker) in _LOOKS.items():
        points = [(case[key], case["contestants"][name]) for case in ordered if name in case["contestants"]]
        if points:
            axes.plot(
                [x for x, _ in points], [own["median_s"] for _, own in points], color=colour, marker=marker, label=name
            )
    axes.plot(
        [case[key] for case in ordered],
        [case["products_s"] for case in ordered],
        color="#777777",
        linestyle=":",
        label="matrix products alone",
    )
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xticks([case[key] for case in ordered], [f"{case[key]:,}" for case in ordered])
    axes.minorticks_off()
    axes.set_xlabel(label)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
