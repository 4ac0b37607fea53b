"""``python -m metarec.study report``: the page of a study that has ended, from what it kept; nothing is computed."""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory

from metarec.errors import InputError
from metarec.report.findings import Findings
from metarec.report.page import report_page
from metarec.report.records import FINDINGS, FOLDER, REPORT
from metarec.search.trials import join_study
from metarec.study.job import Job
from metarec.study.recorded_trial import RUN_ID

__all__ = ["write_report"]


def write_report(job: Job) -> Path:
    """Write the page of a study to the study's own folder.

    It is made of ``report/`` there, or else of the same files among the artifacts of the study's run.

    Raises:
        InputError: there is no such study, it has not been scored, or its files are neither here nor there.
    """
    kept = job.folder / FOLDER
    if (kept / FINDINGS).is_file():
        return _write(job, kept)
    study = join_study(job.study_name, job.optuna_storage)
    run_id = study.user_attrs.get(RUN_ID)
    with TemporaryDirectory(prefix="metarec-report-") as place:
        fetched = Path(place)
        if run_id is None or not job.tracker.fetch(run_id, FINDINGS, fetched):
            raise InputError(
                f'study "{job.study_name}" has no {FINDINGS}, neither in {kept} nor with its run: a report is made of '
                "what a study keeps at its end; run the study to its end, or give its --out or --tracking-uri"
            )
        for picture in _read(fetched)["pictures"]:
            job.tracker.fetch(run_id, picture["file"], fetched)
        return _write(job, fetched)


def _write(job: Job, kept: Path) -> Path:
    job.folder.mkdir(parents=True, exist_ok=True)
    page = job.folder / REPORT
    page.write_text(report_page(_read(kept), kept), encoding="utf-8")
    return page


def _read(folder: Path) -> Findings:
    path = folder / FINDINGS
    try:
        findings: Findings = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path} is not JSON ({error}); remove it, and the study's run is asked instead") from None
    return findings
