"""The pictures of a finished study, as files with titles and captions."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from metarec.evaluation.insight import Insight
from metarec.evaluation.segments import THIRDS, thirds
from metarec.report.figures import figures, insight_figures, search_figures
from metarec.report.findings import Findings
from metarec.search import ranked
from metarec.study.records import CURVES
from metarec.study.results import StudyResult, complete_trials, state_of
from metarec.study.stages import member_name
from metarec.study.transfer_spec import STRATEGY

__all__ = ["Picture", "draw"]


class Picture(NamedTuple):
    """A picture's file, title and caption."""

    file: str
    title: str
    caption: str


def draw(result: StudyResult, findings: Findings, folder: Path) -> list[Picture]:
    """Draw all pictures into `folder`, and list them in reading order."""
    drawn = []
    for picture, figure in _all(result, findings):
        figures.save(figure, folder / picture.file)
        drawn.append(picture)
    return drawn


def _all(result: StudyResult, findings: Findings) -> Iterator[tuple[Picture, Figure]]:
    yield from _tests(result)
    segments = pd.DataFrame(findings["segments"])
    if not segments.empty:
        caption = (
            f"Test users in segments by their support {result.measure.data}. Segments are not used for any choice."
        )
        yield Picture("segments.png", "Segments of users", caption), insight_figures.segments(segments, result.measure)
    yield from _search(result, findings)
    if result.insight is not None and result.insight.user_weights is not None:
        yield from _weights(result.insight)


def _tests(result: StudyResult) -> Iterator[tuple[Picture, Figure]]:
    for domain in sorted(result.test, key=lambda name: name != result.target):
        outcome = result.test[domain]
        measure = outcome.measure
        values = {model: row.values[measure.key] for model, row in outcome.scores.items()}
        n_users = next(iter(outcome.scores.values())).n_users
        yield (
            Picture(f"test_{domain}.png", f"Test users of {domain}", f"Every model on the same query {measure.data}."),
            figures.model_comparison(values, measure, domain=domain),
        )
        yield (
            Picture(
                f"gains_{domain}.png",
                f"Gain over models: {domain}",
                f"Right of 0: metarec has the {'higher' if measure.maximised else 'lower'} {measure.label}.",
            ),
            insight_figures.gains_forest(outcome.gains, measure, domain=domain, n_users=n_users),
        )


def _search(result: StudyResult, findings: Findings) -> Iterator[tuple[Picture, Figure]]:
    nouns = f"{result.measure.noun.capitalize()}s"
    measure, complete = result.measure, complete_trials(result.ended)
    values = {trial.number: result.shown(trial) for trial in complete}
    points = [figures.TrialPoint(trial.number, values.get(trial.number), state_of(trial)) for trial in result.ended]
    yield (
        Picture("search.png", "The search", f"{nouns} on validation users, trial by trial."),
        figures.search_history(points, measure),
    )
    curves = {
        member_name(trial): trial.user_attrs.get(CURVES, {})
        for trial in ranked(complete)
        if member_name(trial) in result.members
    }
    if any(curves.values()):
        caption = "The trials whose networks metarec combines. Different losses are not comparable."
        yield (
            Picture("learning_curves.png", "Learning curves of the best trials", caption),
            search_figures.learning_curves(curves, measure),
        )
    if result.strategies:
        by_strategy: dict[str, list[float]] = {}
        for trial in complete:
            by_strategy.setdefault(trial.params[STRATEGY], []).append(result.shown(trial))
        yield (
            Picture("strategies.png", "Strategies", f"{nouns} on validation users; a point is a trial."),
            search_figures.strategies(by_strategy, measure),
        )
    found = findings["importances"]
    if found["shares"]:
        yield (
            Picture("importances.png", "Parameter importance", "A rough guess with few trials."),
            search_figures.importances(found["shares"], trials=found["trials"]),
        )
    tried = [search_figures.Tried(trial.number, trial.params, result.shown(trial)) for trial in complete]
    if search_figures.varied(tried):
        caption = "A point is a trial. Triangles stand for trials that are worse than the axis shows."
        yield Picture("slices.png", "Each parameter", caption), search_figures.slices(tried, measure)
        yield (
            Picture("parallel_coordinates.png", "All parameters together", "A line is a trial; dark ones are better."),
            search_figures.parallel_coordinates(tried, measure),
        )
    if result.front:
        caption = f"Trials that no other beats in {measure.noun} and in time."
        figure = figures.pareto_front(result.timed, result.front, measure)
        yield Picture("pareto_front.png", f"{measure.noun.capitalize()} and time", caption), figure


def _weights(insight: Insight) -> Iterator[tuple[Picture, Figure]]:
    rows, bases = insight.rows, list(insight.bases)
    assert rows is not None
    n_users = rows["user"].nunique()
    panels = [
        (
            f"Weights by support ratings (n = {n_users} test users)",
            "support ratings of a user (shots)",
            _by_shots(insight),
        ),
        ("Weights by activity", "users by pace of their support ratings, in thirds", _by_activity(insight)),
        ("Weights by popularity of the item", "ratings of the item by others", _by_popularity(insight)),
    ]
    caption = (
        "The best trial's network alone, on test users. Lines: 95 % over users. It was trained with the number of "
        "support ratings at the right end, and not with fewer."
    )
    yield Picture("weights.png", "Base weights", caption), insight_figures.weights_against(panels, bases)
    if f"confidence/{bases[0]}" in rows.columns:
        confidence, rightness = (
            rows[[f"{kind}/{base}" for base in bases]].to_numpy().ravel() for kind in ("confidence", "rightness")
        )
        caption = "Only the loss named fusion trains confidences; with another loss they are arbitrary."
        yield (
            Picture("calibration.png", "Calibration of confidences", caption),
            insight_figures.calibration(confidence, rightness, np.repeat(rows["user"].to_numpy(), len(bases))),
        )


def _by_shots(insight: Insight) -> pd.DataFrame:
    shots = insight.shots
    return pd.DataFrame() if shots is None else _means(shots, shots["shots"], insight.bases)


def _by_activity(insight: Insight) -> pd.DataFrame:
    places = thirds(insight.behaviour["activity"])
    if places.nunique() < 2:
        return pd.DataFrame()
    assert insight.rows is not None
    table = _means(insight.rows, insight.rows["user"].map(places), insight.bases)
    return table.set_axis([THIRDS[int(float(place))] for place in table.index])


def _by_popularity(insight: Insight) -> pd.DataFrame:
    assert insight.rows is not None
    popularity = insight.rows["popularity"]
    edges = np.unique(np.quantile(popularity, [0.2, 0.4, 0.6, 0.8]))
    bins = pd.Series(np.searchsorted(edges, popularity, side="left"), index=popularity.index)
    table = _means(insight.rows, bins, insight.bases)
    inside = popularity.groupby(bins).agg(["min", "max"])
    return table.set_axis([f"{low}–{high}" if low < high else f"{low}" for low, high in inside.itertuples(index=False)])


def _means(rows: pd.DataFrame, groups: pd.Series, bases: tuple[str, ...]) -> pd.DataFrame:
    """The mean weight of each base in each group, and half the width of its 95 % interval over users."""
    columns = [f"weight/{base}" for base in bases]
    by_user = rows[columns].groupby([groups.rename("group"), rows["user"]]).mean().set_axis(list(bases), axis=1)
    by_group = by_user.groupby("group")
    half = 1.96 * by_group.sem().add_suffix(" ±")
    table = pd.concat([by_group.mean(), half.fillna(0.0)], axis=1)
    return table.set_axis([f"{group:g}" for group in table.index])
