"""The report of a study: descriptions of its run, pictures of its trials, and the pages at its end."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import yaml

from metarec.ratings import Domain
from metarec.report.findings import Findings, findings_of, segments_of
from metarec.report.interactive import search_page
from metarec.report.page import report_page
from metarec.report.story import story, study_description
from metarec.study.reporter import Reporter
from metarec.study.results import StudyResult
from metarec.study.spec import StudySpec
from metarec.study.trial_files import TrialFiles
from metarec.tracking import StudyRun

__all__ = ["FINDINGS", "FOLDER", "REPORT", "StudyReporter", "keep_findings"]

REPORT, SEARCH, FINDINGS = "report.html", "search.html", "findings.json"
"""Files of a study's run."""

FOLDER = "report"
"""In a study's own folder what its report is made of."""


class StudyReporter(Reporter):
    """Writes descriptions, pictures and pages."""

    def prepare(self) -> None:
        import_module("metarec.report.pictures")

    def description(self, spec: StudySpec, domains: Mapping[str, Domain], name: str) -> str:
        return study_description(spec, domains, name)

    def draw_trial(self, files: TrialFiles, folder: Path) -> None:
        # It imports matplotlib, which nothing before the end of the first trial needs.
        from metarec.report.figures import figures

        figures.save(figures.learning_curve(files.curves, files.best_epoch), folder / "learning_curve.png")
        if files.weights is not None:
            figures.save(figures.base_weights(files.weights, files.base_names), folder / "base_weights.png")

    def report(self, run: StudyRun, spec: StudySpec, result: StudyResult, domains: Mapping[str, Domain]) -> None:
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
    from metarec.report.pictures import draw

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
