"""The model that a study proposes, learned on episodes that are made already."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from metarec.episodes import DomainEpisodes, Episodes
from metarec.evaluation.metrics import METAREC, base_unit_predictions
from metarec.model import Fusion
from metarec.search.trials import counted_trials, run_trials
from metarec.study.job import begin_search
from metarec.study.networks import PreparedNetworks
from metarec.study.records import FileKeeper, RecordedObjective
from metarec.study.spec import StudySpec
from metarec.study.stages import Workspace
from metarec.tracking import NullTracker

__all__ = ["searched", "study_predictions"]


def searched(episodes: DomainEpisodes, spec: StudySpec) -> tuple[Fusion, dict[str, Fusion]]:
    """The fusion that a study of this spec proposes for its target, and its contrasts."""

    def run(objective: RecordedObjective) -> Any:
        study = begin_search(spec, "cell", str(folder / "optuna.journal"), identity="cell")
        run_trials(study, objective, lambda trial: None)
        return [trial for trial in counted_trials(study) if trial.values]

    domain = episodes.train.domain
    with TemporaryDirectory(prefix="metarec-cell-") as name:
        folder = Path(name)
        prepared = PreparedNetworks(spec, {domain: episodes}, Workspace(folder / "cache", folder / "networks"), {}, {})
        record = NullTracker().start_study("cell", params={})
        found = prepared.search(run, run=record, keeper=FileKeeper())
        fusion = found.fusion(domain)
        return fusion, found.contrasts(domain, fusion)


def study_predictions(
    episodes: DomainEpisodes, spec: StudySpec, test: Episodes | None = None
) -> tuple[dict[str, np.ndarray], dict[str, Mapping[str, Any]]]:
    """Model -> [T, N] predictions of the test query rows; and the settings that validation rows chose.

    The models are metarec, its parts, its stackers or rankers, and the bases.

    Args:
        test: by default the test episodes.
    """
    test = episodes.test if test is None else test
    fusion, contrasts = searched(episodes, spec)
    members = fusion.members(test)
    predictions = {METAREC: fusion.combine(members)}
    predictions |= {name: one.predict(test) for name, one in contrasts.items()}
    predictions |= {name: members[name] for name in fusion.stackers}
    predictions |= base_unit_predictions(test)
    settings: dict[str, Mapping[str, Any]] = {
        **{name: one.weights for name, one in {METAREC: fusion, **contrasts}.items()},
        **{name: stacker.settings for name, stacker in fusion.stackers.items()},
    }
    return predictions, settings
