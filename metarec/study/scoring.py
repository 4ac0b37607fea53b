"""The table of a study: baselines, and every model's errors on the test users."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import Executor
from functools import partial
from typing import Any

import pandas as pd

from metarec.episodes import DomainEpisodes, Episodes
from metarec.fusion.stackers import STACKERS, Stacker
from metarec.meta import MetaLearner
from metarec.study.ensemble import combine
from metarec.study.evaluation import METAREC, base_unit_predictions, gains, prediction_rows, scores
from metarec.study.results import DomainResult
from metarec.study.spec import StudySpec
from metarec.threads import one_thread

__all__ = ["Settings", "fit_ahead", "score_on_test_users"]

Settings = dict[str, Mapping[str, Mapping[str, Any]]]
"""Domain -> model -> what it chose on validation users."""


def fit_ahead(
    spec: StudySpec, episodes: Mapping[str, DomainEpisodes], processes: Executor | None
) -> Iterator[tuple[str, dict[str, Stacker]]]:
    """Each domain's name and baselines. They need nothing of the search: other processes fit them while it runs.

    Without other processes they are fitted when they are asked for.
    """
    able = {name: domain for name, domain in episodes.items() if len(domain.train) and len(domain.validation)}
    sides = [domain.train for domain in able.values()], [domain.validation for domain in able.values()]
    return zip(able, (processes.map if processes else map)(partial(_fit_stackers, spec), *sides), strict=True)


def _fit_stackers(spec: StudySpec, train: Episodes, validation: Episodes) -> dict[str, Stacker]:
    """Every baseline on one domain. Runs in a worker process, or in this one."""
    with one_thread():
        return {name: STACKERS.get(name)().fit(train, validation, seed=spec.seed) for name in spec.baselines}


def score_on_test_users(
    spec: StudySpec,
    episodes: Mapping[str, DomainEpisodes],
    learners: Mapping[str, MetaLearner],
    fitted: Mapping[str, Mapping[str, Stacker]],
) -> tuple[dict[str, DomainResult], Settings, pd.DataFrame]:
    """The test users are looked at here, once, by models that nothing can change any more.

    Args:
        learners: name -> the networks that metarec is made of. fitted: domain -> baselines, as :func:`fit_ahead` says.

    Returns:
        by domain the errors of every model, and the settings that each of them chose; a row for each test query.
    """
    table: dict[str, DomainResult] = {}
    frames = []
    settings: Settings = {}
    for name, domain in episodes.items():
        if not len(domain.test):
            continue
        # Of a domain that cannot have baselines, fitting them says why.
        own = fitted.get(name) or _fit_stackers(spec, domain.train, domain.validation)
        rows, chosen = _test_rows(learners, own, domain)
        settings[name] = chosen
        table[name] = DomainResult(
            scores(rows, domain.test.scale.span), gains(rows, seed=spec.seed), str(domain.test.scale)
        )
        frames.append(rows)
    return table, settings, pd.concat(frames, ignore_index=True)


def _test_rows(
    learners: Mapping[str, MetaLearner], stackers: Mapping[str, Stacker], domain: DomainEpisodes
) -> tuple[pd.DataFrame, dict[str, Mapping[str, Any]]]:
    """The test predictions of every model on one domain, and the settings that each of them chose."""
    ours, weights = combine(domain, learners, stackers)
    baselines = {name: stacker.predict(domain.test) for name, stacker in stackers.items()}
    settings: dict[str, Mapping[str, Any]] = {
        METAREC: weights,
        **{name: stacker.settings for name, stacker in stackers.items()},
    }
    return prediction_rows(domain.test, {METAREC: ours, **baselines, **base_unit_predictions(domain.test)}), settings
