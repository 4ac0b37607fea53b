"""Optuna's interactive plots of a search, in one page that needs no network."""

from __future__ import annotations

import html
from collections.abc import Sequence

from optuna.trial import FrozenTrial

from metarec.evaluation.measures import Measure
from metarec.report.findings import enough_for_importances, fanova, study_of
from metarec.study.results import SECONDS, complete_trials

__all__ = ["search_page"]

HEAD = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<style>body {{ font-family: sans-serif; max-width: 1100px; margin: 1em auto; color: #2b2f36 }}</style>
<script>{library}</script></head><body><h1>{title}</h1><p>{count} complete trials; errors are on validation users.</p>
"""


def search_page(trials: Sequence[FrozenTrial], name: str, measure: Measure) -> str:
    """History, slices and parallel coordinates; importances and the Pareto front where there are any.

    The page includes Plotly's library (5 MB).

    Args:
        trials: at least one of them is complete.
    """
    import optuna.visualization as views
    from plotly.offline import get_plotlyjs

    complete = complete_trials(trials)
    study = study_of(complete, measure)
    label = measure.validation.replace("_", " ")
    pictures = [views.plot_optimization_history(study, target_name=label)]
    if enough_for_importances(complete):
        pictures.append(views.plot_param_importances(study, evaluator=fanova(), target_name=label))
    pictures.append(views.plot_slice(study, target_name=label))
    pictures.append(views.plot_parallel_coordinate(study, target_name=label))
    if len(complete[0].values) > 1:
        pictures.append(
            views.plot_pareto_front(
                study_of(complete, measure, objectives=2), target_names=[measure.validation, SECONDS]
            )
        )
    head = HEAD.format(title=html.escape(f"The search of study {name}"), library=get_plotlyjs(), count=len(complete))
    plots = [picture.to_html(full_html=False, include_plotlyjs=False) for picture in pictures]
    return head + "\n".join(plots) + "</body></html>\n"
