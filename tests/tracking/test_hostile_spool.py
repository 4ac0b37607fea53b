"""A spool that another hand has written: nothing outside of it is sent or removed, and the next run goes on."""

import json
import os
import re
import shutil
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mlflow import MlflowClient

from metarec.tracking import MlflowTracker, sqlite_uri
from metarec.tracking.spool import _spooled_runs
from metarec.tracking.spool._records import UNFIT, read_record
from metarec.tracking.spool._spool import Spool

NAME = "0" * 32
"""A folder of files in a spool."""


@pytest.fixture
def folder(migrated_store, tmp_path):
    folder = tmp_path / "runs"
    folder.mkdir()
    shutil.copy(migrated_store, folder / "mlflow.db")
    return folder


@pytest.fixture
def client(folder):
    return MlflowClient(tracking_uri=sqlite_uri(folder / "mlflow.db"))


@pytest.fixture
def victim(tmp_path):
    """A folder beside the runs, which is none of their business."""
    place = tmp_path / "victim"
    place.mkdir()
    (place / "thesis.txt").write_text("years of work")
    return place


@pytest.fixture(autouse=True)
def _hurry(monkeypatch):
    # A record that is sent again and again ends a test soon.
    monkeypatch.setattr(_spooled_runs, "FLUSH_S", 3.0)


def begun(folder, name="s"):
    with MlflowTracker.in_folder(folder).start_study(name, params={}) as study:
        pass
    return study


def left_behind(folder, study, *lines):
    """The spool of a dead process with these lines, which are bytes or operations."""
    spool = Spool.new(folder / "spool", {"study": study._parent.name, "run_id": study.run_id})
    usual = {"child": None, "time": 1}
    raw = (line if isinstance(line, bytes) else json.dumps({**usual, **line}).encode() for line in lines)
    (spool.folder / "operations.jsonl").write_bytes(b"".join(line + b"\n" for line in raw))
    spool._file.close()
    spool._lock.release()
    return spool.folder


def uploaded(folder):
    return {path.name for path in (folder / "artifacts").rglob("*") if path.is_file()}


def refused(place):
    path = place / "refused.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def goes_on(folder, client, name="s"):
    """The next run of the study, and a trial of its own that arrives."""
    with MlflowTracker.in_folder(folder).start_study(name, params={}) as study:
        study.start_trial(7, {"x": 1}).finish("complete", value=0.5)
    runs = client.search_runs([study.experiment_id], f"tags.`mlflow.parentRunId` = '{study.run_id}'")
    assert "7" in {run.data.tags["metarec.trial"] for run in runs}
    assert client.get_run(study.run_id).info.status == "FINISHED"
    return runs


GOOD = {"what": "log", "params": {"after": "arrived"}, "metrics": [], "tags": {}}

OUTSIDE = {
    "up": "../../../victim",
    "up behind a name": "files/../../../../victim",
    "absolute": "{victim}",
    "all files": "files",
    "the spool": ".",
    "nothing": "",
    "a number": 5,
    "a list": ["files"],
    "none": None,
    "a zero": "files/\0",
    "a file": "about.json",
}


@pytest.mark.parametrize("case", OUTSIDE)
def test_a_folder_outside_the_files_of_the_spool_is_neither_sent_nor_removed(folder, client, victim, caplog, case):
    study = begun(folder)
    value = OUTSIDE[case]
    value = str(victim) if value == "{victim}" else value
    place = left_behind(folder, study, {"what": "files", "folder": value}, GOOD)
    (place / "files" / NAME).mkdir(parents=True)
    goes_on(folder, client)
    assert (victim / "thesis.txt").read_text() == "years of work"
    assert (place / "about.json").exists()
    assert (place / "files" / NAME).is_dir()
    assert uploaded(folder) == set()
    assert [json.loads(one["line"])["folder"] for one in refused(place)] == [value]
    (error,) = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert "files/" in error
    assert "refused.jsonl" in error
    assert client.get_run(study.run_id).data.params == {"after": "arrived"}


@pytest.mark.parametrize("link", ["the folder", "files", "a file", "a folder in it", "deep", "a pipe", "away"])
def test_a_link_in_the_files_of_the_spool_is_not_followed(folder, client, victim, caplog, link):
    study = begun(folder)
    place = left_behind(folder, study, {"what": "files", "folder": f"files/{NAME}"}, GOOD)
    files = place / "files" / NAME
    if link == "files":
        (victim / NAME).mkdir()
        (victim / NAME / "own.txt").write_text("own")
        (place / "files").symlink_to(victim)
    else:
        files.parent.mkdir()
        if link == "the folder":
            files.symlink_to(victim)
        else:
            (files / "deeper").mkdir(parents=True)
            (files / "own.txt").write_text("own")
    if link == "a file":
        (files / "thesis.txt").symlink_to(victim / "thesis.txt")
    if link == "a folder in it":
        (files / "more").symlink_to(victim)
    if link == "deep":
        (files / "deeper" / "thesis.txt").symlink_to(victim / "thesis.txt")
    if link == "a pipe":
        os.mkfifo(files / "pipe")
    if link == "away":
        (files / "gone").symlink_to("/no/such/place")
    goes_on(folder, client)
    assert (victim / "thesis.txt").read_text() == "years of work"
    assert link != "files" or (victim / NAME / "own.txt").exists()
    assert uploaded(folder) == set()
    assert files.is_symlink() or files.is_dir()
    # A spool with a link in place of its own files is left alone as a whole.
    assert len(refused(place)) == (0 if link == "files" else 1)
    assert "ERROR" in {record.levelname for record in caplog.records}


@pytest.mark.parametrize("file", ["sent", "sent.part", "refused.jsonl", "owner.lock", "operations.jsonl", "about.json"])
def test_a_link_in_place_of_a_file_of_the_spool_changes_nothing_elsewhere(folder, client, victim, caplog, file):
    study = begun(folder)
    place = left_behind(folder, study, b"no JSON", GOOD)
    before = (place / file).read_bytes() if (place / file).exists() else b"years of work"
    (victim / "thesis.txt").write_bytes(before)
    (place / file).unlink(missing_ok=True)
    (place / file).symlink_to(victim / "thesis.txt")
    goes_on(folder, client)
    assert (victim / "thesis.txt").read_bytes() == before


def test_a_file_beside_the_spools_is_none_of_them(folder, client, caplog):
    (folder / "spool").mkdir()
    (folder / "spool" / ".DS_Store").write_text("x")
    goes_on(folder, client)
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


def test_a_link_in_place_of_a_spool_is_left_alone(folder, client, victim):
    study = begun(folder)
    place = left_behind(folder, study, GOOD)
    shutil.move(place, victim / "spool")
    place.symlink_to(victim / "spool")
    before = {path: path.stat().st_mtime_ns for path in victim.rglob("*")}
    goes_on(folder, client)
    assert {path: path.stat().st_mtime_ns for path in victim.rglob("*")} == before


@pytest.mark.parametrize(
    "change", [{"path": "../other/artifacts/model"}, {"path": "/etc"}, {"path": "a/b"}, {"path": 3}, {"model": "prod"}]
)
def test_only_the_own_model_of_the_study_is_registered(folder, client, change):
    study = begun(folder)
    record = {"what": "register", "path": "model", "model": "metarec-s", "tags": {}, **change}
    place = left_behind(folder, study, record, GOOD)
    goes_on(folder, client)
    assert client.search_registered_models() == []
    assert len(refused(place)) == 1


@pytest.mark.parametrize("sent", [b"-1", b"99999999999", b"x", b"\xff", b"[]", b"9" * 5000])
def test_a_count_of_sent_records_that_cannot_be(folder, client, sent):
    study = begun(folder)
    place = left_behind(folder, study, GOOD)
    (place / "sent").write_bytes(sent)
    goes_on(folder, client)
    assert not refused(place)


@pytest.mark.parametrize("about", [b"", b"[]", b"null", b"{", b"[" * 100_000, b"\xff", b'{"study": "s"}'])
def test_a_spool_that_is_about_nothing(folder, client, about):
    place = left_behind(folder, begun(folder), GOOD)
    (place / "about.json").write_bytes(about)
    goes_on(folder, client)
    assert place.exists()


BAD_LINES = [
    b"",
    b"no JSON",
    b"[" * 100_000,
    b"[]",
    b"null",
    b"5",
    b'"begin"',
    b"\xff\xfe",
    b'{"what":"log"',
    b'{"what":"log"}',
    {},
    {"what": None},
    {"what": "format the disk"},
    {"what": ["log"]},
    {"what": "begin"},
    {"what": "begin", "child": {"a": 1}},
    {"what": "begin", "child": "' or '1' = '1"},
    {"what": "begin", "child": "\x1b[31m\u202e"},
    {"what": "begin", "child": 1.5},
    {"what": "begin", "child": True},
    {"what": "begin", "child": -1},
    {"what": "begin", "child": 10**30},
    {"what": "begin", "child": 3, "name": ["a"]},
    {"what": "begin", "child": 3, "time": "now"},
    {"what": "begin", "child": 3, "time": 10**30},
    {"what": "log", "params": []},
    {"what": "log", "params": {"x": 1}},
    {"what": "log", "tags": {"x": None}},
    {"what": "log", "metrics": {}},
    {"what": "log", "metrics": [1]},
    {"what": "log", "metrics": [["x"]]},
    {"what": "log", "metrics": [["x", "much", 0, 0]]},
    {"what": "log", "metrics": [["x", 1.0, 0, 10**30]]},
    {"what": "end"},
    {"what": "end", "state": "great"},
    {"what": "end", "state": ["complete"]},
    {"what": "datasets"},
    {"what": "datasets", "datasets": [1]},
    {"what": "datasets", "datasets": [{"name": "x"}]},
    {"what": "register"},
    {"what": "files"},
]


def test_lines_that_are_no_records_are_refused_and_the_others_are_sent(folder, client, caplog):
    study = begun(folder)
    place = left_behind(folder, study, *BAD_LINES, GOOD, {"what": "begin", "child": 2, "name": "trial-002"})
    runs = goes_on(folder, client)
    assert len(refused(place)) == len(BAD_LINES)
    assert {run.data.tags["metarec.trial"] for run in runs} == {"2", "7"}
    assert client.get_run(study.run_id).data.params == {"after": "arrived"}
    errors = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert len(errors) == len(BAD_LINES)
    assert all(error.isprintable() for error in errors)
    # They are refused once.
    caplog.clear()
    goes_on(folder, client)
    assert len(refused(place)) == len(BAD_LINES)
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


@pytest.mark.parametrize("text", ["\0", "\ud800", "a\0b", "\x1b[2J\u202e", "x" * 300, "\U0001f600" * 9000])
def test_a_text_that_a_store_cannot_keep_does_not_stop_the_others(folder, client, text):
    study = begun(folder)
    parts = {"params": {"x": text, text: "x"}, "tags": {"y": text, text: "y"}, "metrics": [[text, 1.0, 0, 0]]}
    place = left_behind(
        folder,
        study,
        {"what": "begin", "child": 2, "name": text},
        {"what": "log", "child": 2, **parts},
        {"what": "end", "child": 2, "state": "complete", "name": text},
        GOOD,
    )
    runs = goes_on(folder, client)
    assert not refused(place)
    (run,) = [run for run in runs if run.data.tags["metarec.trial"] == "2"]
    assert run.info.status == "FINISHED"
    kept = {run.info.run_name, *run.data.params.values(), *run.data.tags.values(), *run.data.metrics}
    assert all(one.isprintable() for one in kept)
    assert len(run.info.run_name) <= 250


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
FIELDS = ("what", "child", "time", "name", "params", "tags", "metrics", "state", "folder", "path", "model", "datasets")
RECORD = st.fixed_dictionaries(
    {"what": st.sampled_from(["begin", "log", "files", "datasets", "register", "end"]), "time": st.just(1)},
    optional={name: JSON for name in FIELDS if name not in ("what", "time")},
)
LINE = st.one_of(RECORD, st.dictionaries(st.sampled_from(FIELDS), JSON)).map(lambda one: json.dumps(one).encode())
LINE |= st.binary(max_size=30).map(lambda raw: raw.replace(b"\n", b""))


@settings(deadline=None)
@given(line=LINE)
def test_a_line_is_a_record_that_can_be_sent_or_unfit(line):
    record = read_record(line)
    assert record["what"] in ("begin", "log", "files", "datasets", "register", "end", UNFIT)
    assert record["what"] != "files" or re.fullmatch("files/[0-9a-f]{32}", record["folder"])
    assert record["what"] != UNFIT or record["problem"].isprintable()
    # None of them is lost: it can be written again.
    json.dumps(record)


@settings(max_examples=5, deadline=None, suppress_health_check=list(HealthCheck))
@given(lines=st.lists(LINE, min_size=5, max_size=20))
def test_whatever_the_lines_are_the_next_run_goes_on(folder, client, victim, lines):
    name = f"study {time.monotonic_ns()}"
    left_behind(folder, begun(folder, name), *lines, GOOD)
    goes_on(folder, client, name)
    assert [path.name for path in victim.iterdir()] == ["thesis.txt"]
