"""The numbers of a finished study's run, and a run for each model of its table."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from metarec.evaluation.metrics import METAREC, Gain
from metarec.tracking import Row, StudyRun, View

if TYPE_CHECKING:
    from metarec.study.results import DomainResult, StudyResult

__all__ = ["record_table"]

GAIN = "gain of metarec"
"""The tag with metarec's gain over the model, its interval and what that means."""


def record_table(run: StudyRun, result: StudyResult) -> None:
    """Record the metrics of the study, the rows of its table, and how MLflow shows rows and trials."""
    run.log_metrics(_metrics(result))
    for domain, outcome in result.test.items():
        for model, scores in outcome.best_first():
            gain = outcome.gains.get(model)
            label = model if domain == result.target else f"{model} on {domain}"
            tags = {"domain": domain, GAIN: "" if gain is None else f"{gain}: {gain.verdict}"}
            row = run.start_row(Row(json.dumps([domain, model]), label, {"model": model, "domain": domain}, tags))
            # metarec's row has the metrics of the others, too. A model over which there is no gain in percent has none.
            shown = Gain(0.0, 0.0, 0.0) if model == METAREC else gain
            row.log_metrics({**scores.values, **_gain_metrics(shown), "test_users": scores.n_users})
            row.finish("complete", value=scores.values[outcome.measure.key])
    measure = result.measure
    where = {"domain": result.target}
    run.show(View("row", measure.key, not measure.maximised, [measure.key], tags=[GAIN], where=where))
    searched = dict.fromkeys(name for trial in result.ended for name in trial.params)
    run.show(View("trial", measure.validation, not measure.maximised, [measure.validation], list(searched)))


def _gain_metrics(gain: Gain | None) -> dict[str, float]:
    if gain is None:
        return {}
    return {"metarec_gain_percent": gain.percent, "interval_low": gain.low, "interval_high": gain.high}


def _metrics(result: StudyResult) -> dict[str, float]:
    measure, ours = result.measure, result.test[result.target].scores[METAREC]
    metrics: dict[str, float] = {measure.best_value: result.shown(result.best), **ours.values}
    for domain, outcome in result.test.items():
        metrics |= _domain_metrics(domain, outcome)
    for check in result.engines:
        if check.milliseconds is not None:
            metrics[f"engine/{check.engine}/milliseconds"] = check.milliseconds
        if check.difference is not None:
            metrics[f"engine/{check.engine}/gradient_difference"] = check.difference
    return metrics


def _domain_metrics(domain: str, outcome: DomainResult) -> dict[str, float]:
    metrics = {
        f"test/{domain}/{model}/{metric}": value
        for model, row in outcome.scores.items()
        for metric, value in row.values.items()
    }
    for part, gain in outcome.additions._asdict().items():
        if gain is not None:
            metrics |= {f"adds/{domain}/{part}/{name}": value for name, value in gain._asdict().items()}
    return metrics
