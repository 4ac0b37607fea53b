"""The report of a study: the descriptions of its run, the pictures of its trials, and its pages."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory

import yaml

from metarec.errors import InputError
from metarec.files import make_folder
from metarec.ratings import Domain
from metarec.report.description import final_description, headline, running_description
from metarec.report.findings import Findings, findings_of, segments_of, table_of
from metarec.report.interactive import search_page
from metarec.report.page import report_page
from metarec.search.trials import join_study
from metarec.study.data import data_of
from metarec.study.job import Job
from metarec.study.reporter import Reporter, TrialPictures
from metarec.study.results import REPORT, RUN_ID, StudyResult
from metarec.study.spec import StudySpec
from metarec.tracking import StudyRun, loading_code, markdown_code, markdown_text

__all__ = ["StudyReporter", "write_report"]

SEARCH, FINDINGS = "search.html", "findings.json"
"""Files of a study's run."""

FOLDER = "report"
"""The folder with the report's files, inside the study's own folder."""


class StudyReporter(Reporter):
    """Writes descriptions, pictures and pages."""

    def prepare(self) -> None:
        import_module("metarec.report.pictures")

    def description(self, spec: StudySpec, domains: Mapping[str, Domain], name: str) -> str:
        return running_description(spec, domains, name)

    def describe_model(self, result: StudyResult, domains: Mapping[str, Domain]) -> str:
        table = table_of(result.target, result.test[result.target])
        measure = result.measure
        data = ", ".join(
            f"{line['domain']} ({line['users']:,} users, {line['items']:,} items, {line['ratings']:,} {measure.data})"
            for line in data_of(domains)
        )
        return (
            f"{markdown_text(headline(table, measure))}\n\nData: {markdown_text(data)}.\n\n"
            f"Study {markdown_text(result.name)}, finished {datetime.now(UTC):%Y-%m-%d %H:%M} UTC. "
            f"To load it: {markdown_code(loading_code(result.name, result.tracking_uri))}"
        )

    def draw_trial(self, pictures: TrialPictures, folder: Path) -> None:
        # It imports matplotlib, which nothing needs before the first trial has ended.
        from metarec.report.figures import figures

        figures.save(figures.learning_curve(pictures.curves, pictures.best_epoch), folder / "learning_curve.png")
        if pictures.weights is not None:
            figures.save(figures.base_weights(pictures.weights, pictures.base_names), folder / "base_weights.png")

    def report(self, run: StudyRun, spec: StudySpec, result: StudyResult, domains: Mapping[str, Domain]) -> None:
        folder = result.predictions.parent / FOLDER
        findings = _write_findings(folder, spec, result, domains)
        run.describe(final_description(findings))
        with run.artifacts() as kept:
            (kept / "chosen_settings.yaml").write_text(
                yaml.safe_dump(_plain({domain: dict(chosen) for domain, chosen in result.settings.items()}))
            )
            (kept / "test_predictions.parquet").write_bytes(result.predictions.read_bytes())
            (kept / SEARCH).write_text(search_page(result.ended, result.name, result.measure), encoding="utf-8")
            (kept / REPORT).write_text(report_page(findings, folder), encoding="utf-8")
            shutil.copy(kept / REPORT, folder.parent)
            shutil.copytree(folder, kept, dirs_exist_ok=True)


def write_report(job: Job) -> Path:
    """Write the page of a finished study to the study's own folder. Nothing is computed again.

    The page is made from ``report/`` in that folder, or else from the same files among the run's artifacts.

    Raises:
        InputError: there is no such study, it is not finished, or neither place has its files.
    """
    kept = job.folder / FOLDER
    if (kept / FINDINGS).is_file():
        return _write_page(job, _read(kept), kept)
    study = join_study(job.study_name, job.optuna_storage)
    run_id = study.user_attrs.get(RUN_ID)
    with TemporaryDirectory(prefix="metarec-report-") as place:
        fetched = Path(place)
        if run_id is None or not job.tracker.fetch(run_id, FINDINGS, fetched):
            raise InputError(
                f'study "{job.study_name}" has no {FINDINGS}, neither in {kept} nor with its run: a report needs '
                "the files of a finished study; finish the study, or give its --out or --tracking-uri"
            )
        findings = _read(fetched)
        for file in (picture["file"] for picture in findings["pictures"]):
            if Path(file).name == file:
                job.tracker.fetch(run_id, file, fetched)
        return _write_page(job, findings, fetched)


def _write_page(job: Job, findings: Findings, folder: Path) -> Path:
    make_folder(job.folder)
    page = job.folder / REPORT
    try:
        content = report_page(findings, folder)
    except (AttributeError, KeyError, IndexError, TypeError, ValueError) as error:
        raise InputError(
            f"{folder / FINDINGS} is not as a study wrote it ({type(error).__name__}: {error}); "
            "run the study's command again to write it anew"
        ) from None
    page.write_text(content, encoding="utf-8")
    return page


def _write_findings(folder: Path, spec: StudySpec, result: StudyResult, domains: Mapping[str, Domain]) -> Findings:
    """Write the report's files to `folder`: ``findings.json``, the segments, and the pictures."""
    from metarec.report.pictures import draw

    shutil.rmtree(folder, ignore_errors=True)
    make_folder(folder)
    segments = segments_of(spec, result)
    findings = findings_of(spec, result, domains, segments)
    segments.to_csv(folder / "segments.csv", index=False)
    findings["pictures"] = [picture._asdict() for picture in draw(result, findings, folder)]
    # It is written last: where this file exists, all files exist.
    (folder / FINDINGS).write_text(json.dumps(findings, indent=1, default=_plain) + "\n", encoding="utf-8")
    return findings


def _read(folder: Path) -> Findings:
    path = folder / FINDINGS
    try:
        findings: Findings = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path} is not JSON ({error}); remove it to use the file of the study's run") from None
    if not isinstance(findings, dict):
        raise InputError(f"{path} is not the findings of a study; remove it to use the file of the study's run")
    return findings


def _plain(value: object) -> object:
    """A value without numpy's types, for JSON and YAML."""
    if isinstance(value, dict):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if hasattr(value, "item"):
        return value.item()
    return value if isinstance(value, str | int | float | bool | None) else str(value)
