"""The page of a study is complete and loads nothing from elsewhere."""

import html
import json
import os
import re
import shutil
import sys

import pytest
from markdown_it import MarkdownIt

from metarec.cli import study as command
from metarec.errors import InputError
from metarec.evaluation.measures import RATING
from metarec.evaluation.metrics import METAREC, Gain
from metarec.ratings import Domain
from metarec.report import StudyReporter, write_report
from metarec.report.description import final_description, headline
from metarec.report.findings import importances_of, study_of
from metarec.report.interactive import search_page
from metarec.report.page import report_page
from metarec.study.job import Job, run_study
from metarec.tracking import TAG_LENGTH, MlflowTracker
from tests.support.studies import reported, runs_of, tiny_spec

PICTURES = {
    "test_movies.png",
    "gains_movies.png",
    "segments.png",
    "search.png",
    "learning_curves.png",
    "slices.png",
    "parallel_coordinates.png",
    "weights.png",
    "calibration.png",
}


def kept(folder, name="tiny study"):
    place = folder / "artifacts" / name / "report"
    return json.loads((place / "findings.json").read_text()), place


def loads(page):
    """All addresses that a browser would load."""
    found = re.findall(r"""(?:src|href)\s*=\s*["']?([^"'\s>]+)|url\(([^)]+)\)|@import\s+(\S+)""", page)
    return ["".join(parts) for parts in found if not "".join(parts).startswith("data:")]


def test_a_study_writes_its_report_to_its_folder_and_its_run(finished):
    _, _, folder = finished
    client, (parent,), _ = runs_of(folder)
    names = {entry.path for entry in client.list_artifacts(parent.info.run_id)}
    assert names >= {"report.html", "search.html", "findings.json", "segments.csv", "study.yaml", *PICTURES}
    page = (folder / "artifacts" / "tiny study" / "report.html").read_text()
    assert page.count("data:image/png;base64,") == len(kept(folder)[0]["pictures"])
    assert len(page.encode()) < 5_000_000
    assert loads(page) == []
    assert "<script" not in page
    assert "@media print" in page


def test_the_report_has_the_numbers_of_the_study(finished):
    _, result, folder = finished
    page = (folder / "artifacts" / "tiny study" / "report.html").read_text()
    for outcome in result.test.values():
        for model, row in outcome.scores.items():
            assert f'<td>{model}</td>\n<td class="n">{row.rmse:.4f}</td>' in page
        for gain in outcome.gains.values():
            assert str(gain) in page
            assert gain.verdict in page
        assert outcome.adds in page


def test_the_command_writes_the_same_page_again(finished, monkeypatch, capsys, tmp_path):
    _, _, folder = finished
    page = folder / "artifacts" / "tiny study" / "report.html"
    before = page.read_text()
    page.unlink()
    monkeypatch.setattr(sys, "argv", ["study", "report", "--study-name", "tiny study", "--out", str(folder)])
    command.main()
    assert page.read_text() == before
    assert str(page) in capsys.readouterr().out

    # In another folder the files come from the run.
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    os.link(folder / "optuna.journal", elsewhere / "optuna.journal")
    tracker = MlflowTracker.in_folder(folder)
    assert write_report(Job(elsewhere, "tiny study", tracker=tracker)).read_text() == before


def test_a_missing_study_or_a_missing_report_is_an_input_error(finished, tmp_path):
    _, _, folder = finished
    with pytest.raises(InputError, match='--study-name "none" is not in the storage'):
        write_report(Job(folder, "none"))
    shutil.copy(folder / "optuna.journal", tmp_path)
    with pytest.raises(InputError, match=r'study "tiny study" has no findings.json, neither in .* nor with its run'):
        write_report(Job(tmp_path, "tiny study"))


DOMAIN = "<b>x[y](z)$^$|`*"
STUDY = "s&<i>|[y](z)"


def test_names_from_the_data_are_escaped(world, new_folder, monkeypatch):
    monkeypatch.setattr("metarec.study.networks._stages.check_engines", lambda *_, **__: [])
    movies = world["movies"]
    named = {DOMAIN: Domain(DOMAIN, movies.ratings, movies.scale, items=movies.items)}
    spec = tiny_spec(trials=1, description="<script>alert(1)</script> ![](http://evil.example/x.png) \u202e\x1b[2J")
    folder = new_folder()
    run_study(spec, named, reported(folder, STUDY))
    place = folder / "artifacts" / STUDY
    page = (place / "report.html").read_text()
    assert "&lt;b&gt;x" in page
    assert "<b>x" not in page
    assert "<script" not in page
    assert "s&amp;&lt;i&gt;" in page
    assert r"\u202e\x1b[2J" in page
    assert page.replace("\n", "").isprintable()
    assert (place / "report" / f"test_{DOMAIN}.png").is_file()
    # In MLflow a link would be followed and a picture be loaded by who looks at the run.
    _, (parent,), _ = runs_of(folder)
    note = parent.data.tags["mlflow.note.content"]
    tokens = MarkdownIt("commonmark").enable("table").parse(note)
    kinds = {inner.type for token in tokens for inner in (token, *(token.children or ()))}
    assert not kinds & {"link_open", "image", "html_inline", "html_block"}
    texts = [inner.content for token in tokens for inner in (token.children or ()) if inner.type == "text"]
    assert any(DOMAIN[:9] in text for text in texts)
    assert f'`metarec.load("models:/metarec-{STUDY}@champion", tracking_uri="sqlite:///' in note
    assert note.replace("\n", "").isprintable()
    assert parent.info.run_name.endswith(f" · {STUDY}")


def test_the_page_has_no_picture_of_elsewhere(finished, tmp_path):
    _, _, folder = finished
    findings, place = kept(folder)
    own = tmp_path / "report"
    shutil.copytree(place, own)
    secret = tmp_path / "secret.png"
    shutil.copy(place / "search.png", secret)
    (own / "search_x").mkdir()
    (own / "search_link.png").symlink_to(secret)
    shown = report_page(findings, own).count("base64,")
    for file in ("search_x/../../secret.png", str(secret), "search_link.png"):
        added = {**findings, "pictures": [*findings["pictures"], {"file": file, "title": "t", "caption": "c"}]}
        assert report_page(added, own).count("base64,") == shown


@pytest.mark.parametrize("content", ["[]", "null", "3", "{", '"x"'])
def test_findings_of_another_kind_are_an_input_error(tmp_path, content):
    place = tmp_path / "artifacts" / "s" / "report"
    place.mkdir(parents=True)
    (place / "findings.json").write_text(content)
    with pytest.raises(InputError, match="is not"):
        write_report(Job(tmp_path, "s"))


def test_a_link_in_place_of_the_predictions_leads_nowhere(movies, new_folder, monkeypatch, tmp_path):
    monkeypatch.setattr("metarec.study.networks._stages.check_engines", lambda *_, **__: [])
    (tmp_path / "report").mkdir()
    for file in ("report/thesis.txt", "thesis.parquet"):
        (tmp_path / file).write_text("years of work")
    folder = new_folder()
    place = folder / "artifacts" / "s"
    place.mkdir(parents=True)
    (place / "predictions.parquet").symlink_to(tmp_path / "thesis.parquet")
    result = run_study(tiny_spec(trials=1), movies, Job(folder, "s", reporter=StudyReporter()))
    for file in ("report/thesis.txt", "thesis.parquet"):
        assert (tmp_path / file).read_text() == "years of work"
    assert result.predictions == place.resolve() / "predictions.parquet"


def test_the_page_of_the_search_needs_no_network_access(finished):
    _, result, _ = finished
    page = search_page(result.ended, "</title><b>", RATING)
    assert "&lt;/title&gt;&lt;b&gt;" in page
    assert page.count("Plotly.newPlot(") >= 3
    tags = re.findall(r"<(?:script|link|img|iframe)[^>]*>", page)
    assert not [tag for tag in tags if "src=" in tag or "href=" in tag]
    assert len(page) < 8_000_000


def test_the_sections_of_the_description_are_in_order_and_fit_the_limit(finished):
    _, result, folder = finished
    _, (parent,), _ = runs_of(folder)
    text = parent.data.tags["mlflow.note.content"]
    heads = ["Data", "Result", "Comparison with other models", "Parameter importance", "Cost"]
    places = [text.index(f"### {head}\n") for head in heads]
    assert places == sorted(places)
    assert len(text) <= TAG_LENGTH
    assert "python -m metarec.study study.yaml" in text
    assert "3 complete trials are too few" in text.replace("3 Complete", "3 complete")
    assert f"| {result.test['movies'].gains['bias']} |" in text
    sure = [gain for gain in result.test["movies"].gains.values() if gain.low <= 0 <= gain.high]
    assert ("no significant difference" in text) == bool(sure)

    findings, _ = kept(folder)
    ours = result.test["movies"].scores[METAREC].values["rmse"]
    assert text.startswith(f"metarec has RMSE {ours:.4f} on movies: ")
    assert text.index("against best-single (") < text.index("### Data")
    page = (folder / "artifacts" / "tiny study" / "report.html").read_text()
    assert headline(findings["tables"][0], RATING) in html.unescape(page)
    long = {**findings, "tables": [{**findings["tables"][0], "domain": f"domain {i}"} for i in range(40)]}
    assert len(final_description(long)) <= TAG_LENGTH
    assert final_description(long).endswith("The rest is in `report.html`, among the artifacts.")


def test_a_difference_is_significant_if_its_interval_excludes_zero():
    found = [Gain(1.0, low, high).verdict for low, high in ((0.5, 2), (-2, -0.5), (-1, 2), (0.0, 2))]
    assert found == ["better", "worse", "no significant difference", "no significant difference"]


def test_importances_need_enough_trials(finished):
    import optuna
    from optuna.distributions import FloatDistribution

    _, result, _ = finished
    few = importances_of(result.ended, RATING)
    assert (few["shares"], few["reason"]) == ({}, "3 complete trials are too few; it takes 10")
    space = {"matters": FloatDistribution(0, 1), "does_not": FloatDistribution(0, 1)}
    trials = [
        optuna.trial.create_trial(
            params={"matters": i / 12, "does_not": (5 * i % 12) / 12}, distributions=space, value=i / 12
        )
        for i in range(12)
    ]
    shares = importances_of(trials, RATING)["shares"]
    assert shares["matters"] > 0.8
    assert importances_of([*trials[:1] * 12], RATING)["reason"] == "all trials have the same error"
    assert len(study_of(trials, RATING).trials) == 12


def test_a_missing_picture_is_left_out(finished, tmp_path):
    _, _, folder = finished
    findings, _ = kept(folder)
    page = report_page(findings, tmp_path)
    assert "data:image" not in page
