"""What the parent run of a study holds: a description to read, the test numbers, files and pictures."""

from __future__ import annotations

from collections.abc import Mapping

import yaml
from optuna.trial import TrialState

from metarec.ratings import Domain
from metarec.study.engine_check import EngineCheck
from metarec.study.evaluation import METAREC
from metarec.study.recorded_trial import error_of
from metarec.study.results import StudyResult, microseconds
from metarec.study.spec import StudySpec
from metarec.study.tracking import Dataset, StudyRun, markdown_table

__all__ = ["record_beginning", "record_result", "study_description"]


SPEC_FILE = "study.yaml"


def study_description(spec: StudySpec, domains: Mapping[str, Domain], name: str) -> str:
    """The run's description while the search runs."""
    data = markdown_table(
        ["domain", "users", "items", "ratings", "scale"],
        [[key, d.num_users, d.num_items, len(d.ratings), str(d.scale)] for key, d in domains.items()],
    )
    known = ""
    if spec.transfer is not None:
        known = (
            f" {spec.transfer.target_users} users of it are known ({spec.transfer.regime}); strategies are compared on "
            "its validation users, whom nobody has who knows only those."
        )
    return (
        f"**{name}** {spec.description}\n\n{data}\n\n"
        f"Target: {spec.target}.{known} Each child run is one trial of the search."
    )


def record_beginning(run: StudyRun, spec: StudySpec, domains: Mapping[str, Domain]) -> None:
    """Write what a study is given to its parent run: the data, and the file to repeat it with."""
    run.log_datasets([_dataset(spec, name, domain) for name, domain in domains.items()])
    with run.artifacts() as folder:
        (folder / SPEC_FILE).write_text(yaml.safe_dump(spec.model_dump(mode="json"), sort_keys=False))


def _dataset(spec: StudySpec, name: str, domain: Domain) -> Dataset:
    source = spec.domains if isinstance(spec.domains, str) else spec.domains.get(name, "")
    counts = {"users": domain.num_users, "items": domain.num_items, "ratings": len(domain.ratings)}
    digest = domain.fingerprint()
    return Dataset(name, digest, source, {**counts, "scale": str(domain.scale), "fingerprint": digest})


def record_result(run: StudyRun, spec: StudySpec, result: StudyResult, domains: Mapping[str, Domain]) -> None:
    """Write a finished study to its parent run."""
    from metarec.study import figures

    metrics: dict[str, float] = {"best_validation_unit_rmse": error_of(result.best)}
    for domain, outcome in result.test.items():
        for model, row in outcome.scores.items():
            for measure in ("rmse", "mae", "unit_rmse"):
                metrics[f"test/{domain}/{model}/{measure}"] = getattr(row, measure)
    for check in result.engines:
        if check.milliseconds is not None:
            metrics[f"engine/{check.engine}/milliseconds"] = check.milliseconds
        if check.difference is not None:
            metrics[f"engine/{check.engine}/gradient_difference"] = check.difference
    run.log_metrics(metrics)
    run.describe(_story(spec, result, domains))
    with run.artifacts() as folder:
        (folder / "chosen_settings.yaml").write_text(
            yaml.safe_dump(_plain({domain: dict(chosen) for domain, chosen in result.settings.items()}))
        )
        (folder / "test_predictions.parquet").write_bytes(result.predictions.read_bytes())
        for domain, outcome in result.test.items():
            rows = [figures.TableRow(model, row.rmse) for model, row in outcome.scores.items()]
            picture = f"test_{domain}".replace("/", "_")
            figures.save(figures.model_comparison(rows, domain=domain), folder / f"{picture}.png")
        points = [
            figures.TrialPoint(
                trial.number,
                error_of(trial) if trial.state == TrialState.COMPLETE else None,
                {TrialState.COMPLETE: "complete", TrialState.PRUNED: "pruned"}.get(trial.state, "failed"),
            )
            for trial in result.trials
        ]
        figures.save(figures.search_history(points, metric="validation RMSE (unit scale)"), folder / "search.png")
        if result.front:
            best = {line.trial for line in result.front}
            timed = [
                figures.TimedTrial(line.trial, line.error, line.seconds, best=line.trial in best)
                for line in result.timed
            ]
            figures.save(figures.pareto_front(timed), folder / "pareto_front.png")


def _story(spec: StudySpec, result: StudyResult, domains: Mapping[str, Domain]) -> str:
    parts = [study_description(spec, domains, result.name)]
    best = ", ".join(f"{name} {_short(value)}" for name, value in result.best.params.items())
    parts.append(f"Best: trial {result.best.number} ({best}).")
    for domain, outcome in result.test.items():
        some = outcome.scores[METAREC]
        rows = [
            [model, row.rmse, row.mae, str(outcome.gains.get(model, ""))]
            for model, row in sorted(outcome.scores.items(), key=lambda pair: pair[1].rmse)
        ]
        parts.append(
            f"### Test: {domain} ({outcome.scale}), {some.n_users} users, {some.n_ratings} ratings\n\n"
            + markdown_table(["model", "RMSE", "MAE", "metarec gains (95 %)"], rows)
        )
    if result.strategies:
        rows = [list(line) for line in result.strategies]
        head = ["strategy", "trials", "best trial", "its validation RMSE (unit scale)"]
        parts.append("### Strategies\n\n" + markdown_table(head, rows))
    if result.front:
        rows = [[line.trial, f"{line.error:.5f}", microseconds(line.seconds)] for line in result.front]
        head = ["trial", "validation RMSE (unit scale)", "a prediction"]
        parts.append("### Pareto front\n\n" + markdown_table(head, rows))
    if result.engines:
        parts.append(_engines(result.engines))
    return "\n\n".join(parts)


def _engines(checks: list[EngineCheck]) -> str:
    rows = [
        [check.engine, f"{check.milliseconds:.0f} ms" if check.milliseconds else check.problem, _difference(check)]
        for check in checks
    ]
    return "### Engines\n\n" + markdown_table(["engine", "one meta-step", "gradient difference"], rows)


def _difference(check: EngineCheck) -> str:
    return "reference" if check.difference is None else f"{check.difference:.1e}"


def _short(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _plain(value: object) -> object:
    """Numbers that YAML knows, in place of numpy's."""
    if isinstance(value, dict):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if hasattr(value, "item"):
        return value.item()
    return value if isinstance(value, str | int | float | bool | None) else str(value)
