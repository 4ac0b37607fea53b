"""``python -m studies.feature_groups``: the effect of each group of features on the RMSE for new users.

On the folds of users of ``benchmarks.cold``, the network, the boosted trees and feature-weighted linear stacking
are fitted with all features and without each group. A left-out group has its standardised columns set to zero, their
mean. Differences are paired over all users of all folds.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
import typer

from benchmarks.cold.cells import LIBRARIES, ROOT, bases_of
from benchmarks.cold.models import static_network_predictions
from benchmarks.common.machine import describe_run
from benchmarks.common.sets import FOLDER, find_sets
from benchmarks.common.statistics import signed_rank
from metarec.episodes import DomainEpisodes, EpisodeBatch, Episodes, EpisodeSettings, FusionInputs, cross_validate
from metarec.errors import InputError
from metarec.evaluation.metrics import paired_gains, prediction_rows, squared_errors
from metarec.model import fit_stacker
from metarec.threads import one_thread

__all__ = ["GROUPS", "main", "without"]

FOLDS = 5

GROUPS: Mapping[str, Collection[str]] = {
    "evidence of the bases": ("says", "evidence", "share_saying"),
    "errors on the user's support": ("support_error", "support_absolute_error"),
    "the user's ratings": ("shots", "support_mean", "support_spread"),
    "the item": ("item_count", "item_offset", "item_spread", "item_age", "fallback"),
    "disagreement of the bases": ("deviation", "disagreement"),
}
"""Features of bases, and context features, that are left out together."""


def without(episodes: Episodes, names: Collection[str]) -> Episodes:
    """The same episodes with these features set to zero, their mean over the train users' rows."""
    features = _kept(episodes.feature_names, names)
    context = _kept(episodes.context_names, names)

    def hide(inputs: FusionInputs) -> FusionInputs:
        shape = inputs.algorithm_features
        return inputs._replace(
            algorithm_features=shape * shape.new_tensor(features), context=inputs.context * shape.new_tensor(context)
        )

    support, query = episodes.batch
    return dataclasses.replace(episodes, batch=EpisodeBatch(hide(support), hide(query)))


def _kept(names: Collection[str], left_out: Collection[str]) -> list[float]:
    return [float(name not in left_out) for name in names]


def _predict(episodes: DomainEpisodes, seed: int) -> dict[str, np.ndarray]:
    predictions = {"network": static_network_predictions(episodes, seed)}
    for name in ("gbm", "fwls"):
        predictions[name] = fit_stacker(name, episodes.train, episodes.validation, seed=seed).predict(episodes.test)
    return predictions


def compare(cross: Any, shots: int, seed: int = 0) -> dict[str, dict[str, dict[str, float]]]:
    """group -> model -> the reduction of its RMSE with the group, in percent, with interval and signed-rank p."""
    frames: dict[str, list[pd.DataFrame]] = {name: [] for name in ("", *GROUPS)}
    for fold in range(cross.num_folds):
        whole = cross.episodes(fold, shots)
        for group in frames:
            names = GROUPS.get(group, ())
            parts = DomainEpisodes(*(without(part, names) for part in (whole.train, whole.validation, whole.test)))
            frames[group].append(prediction_rows(whole.test, _predict(parts, seed)))
    rows = {group: pd.concat(parts, ignore_index=True) for group, parts in frames.items()}
    counts = rows[""].groupby("user", sort=False).size().to_numpy()
    full = squared_errors(rows[""])
    found: dict[str, dict[str, dict[str, float]]] = {group: {} for group in GROUPS}
    for group in GROUPS:
        less = squared_errors(rows[group])
        for model in full.columns:
            gain = paired_gains(full[model].to_numpy(), less[[model]], seed=seed)[model]
            test = signed_rank(((less[model] - full[model]) / counts).to_numpy())
            found[group][model] = {**gain._asdict(), "p": test.p}
    return found


def _table(results: Mapping[str, Mapping[str, Mapping[str, Mapping[str, float]]]]) -> str:
    lines = ["| set | features | network | gbm | fwls |", "|---|---|---|---|---|"]
    for name, groups in results.items():
        for group, models in groups.items():
            cells = [
                f"{one['percent']:+.2f} % [{one['low']:+.2f}, {one['high']:+.2f}], p {one['p']:.2g}"
                for one in models.values()
            ]
            lines.append(f"| {name} | {group} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main(
    sets: Annotated[str, typer.Option(help="Rating sets, as in benchmarks.cold.")] = "ml_latest_small",
    shots: Annotated[int, typer.Option(help="Size of the support set.")] = 10,
    ml100k: Annotated[Path | None, typer.Option(help="Folder of MovieLens-100K's atomic files.")] = None,
    cache: Annotated[Path | None, typer.Option(help="Folder for the predictions of the bases.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Where to write the numbers.")] = None,
) -> None:
    """Measure the reduction of the RMSE by each group of features."""
    try:
        data = os.environ.get(FOLDER)
        results = {}
        for chosen in find_sets(sets.split(","), Path(data) if data else None, ml100k):
            domain = chosen.read()
            cross = cross_validate(
                domain, EpisodeSettings(), bases_of(domain), shots=(shots,), folds=FOLDS, cache=cache, jobs=2
            )
            with one_thread():
                results[chosen.name] = compare(cross, shots)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    if json_file:
        described = describe_run("studies.feature_groups", sys.argv[1:], LIBRARIES, ROOT)
        report = {"run": described, "shots": shots, "folds": FOLDS, "seed": 0, "sets": results}
        json_file.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(_table(results))


if __name__ == "__main__":
    typer.run(main)
