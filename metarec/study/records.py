"""What the parent run of a study holds: a description to read, the test numbers, files and pictures."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from metarec.ratings import Domain
from metarec.study.findings import Findings, findings_of, segments_of
from metarec.study.interactive import search_page
from metarec.study.page import report_page
from metarec.study.recorded_trial import error_of
from metarec.study.results import StudyResult
from metarec.study.spec import StudySpec
from metarec.study.story import story
from metarec.study.tracking import Dataset, StudyRun

__all__ = ["FINDINGS", "FOLDER", "REPORT", "keep_findings", "record_beginning", "record_result"]

SPEC_FILE, REPORT, SEARCH, FINDINGS = "study.yaml", "report.html", "search.html", "findings.json"
"""Files of a study's run."""

FOLDER = "report"
"""In a study's own folder what its report is made of."""


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
    folder = result.predictions.parent / FOLDER
    findings = keep_findings(folder, spec, result, domains)
    run.describe(story(findings))
    with run.artifacts() as kept:
        (kept / "chosen_settings.yaml").write_text(
            yaml.safe_dump(_plain({domain: dict(chosen) for domain, chosen in result.settings.items()}))
        )
        (kept / "test_predictions.parquet").write_bytes(result.predictions.read_bytes())
        (kept / SEARCH).write_text(search_page(result.trials, result.name), encoding="utf-8")
        (kept / REPORT).write_text(report_page(findings, folder), encoding="utf-8")
        shutil.copy(kept / REPORT, folder.parent)
        shutil.copytree(folder, kept, dirs_exist_ok=True)


def keep_findings(folder: Path, spec: StudySpec, result: StudyResult, domains: Mapping[str, Domain]) -> Findings:
    """Write what a report is made of to `folder`: ``findings.json``, the segments, and the pictures."""
    from metarec.study.pictures import draw

    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    segments = segments_of(spec, result)
    findings = findings_of(spec, result, domains, segments)
    segments.to_csv(folder / "segments.csv", index=False)
    findings["pictures"] = [picture._asdict() for picture in draw(result, findings, folder)]
    # Last: where it is, everything is.
    (folder / FINDINGS).write_text(json.dumps(findings, indent=1, default=_number) + "\n", encoding="utf-8")
    return findings


def _number(value: Any) -> Any:
    """One of numpy's as JSON knows it."""
    return value.item()


def _plain(value: object) -> object:
    """Numbers that YAML knows, in place of numpy's."""
    if isinstance(value, dict):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if hasattr(value, "item"):
        return value.item()
    return value if isinstance(value, str | int | float | bool | None) else str(value)
