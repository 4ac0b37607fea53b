"""Cells are on disk whole or not at all, and found only by those with the same key and facts."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from metarec.cells import Cell, CellResult, CellStore, run_cells
from metarec.files import code_facts

ROOT = Path(__file__).parents[1]

FRAME = pd.DataFrame({"user": ["a", "b"], "value": [0.1, np.pi]})


def cell(fold=0, **facts):
    return Cell({"set": "films", "fold": fold}, {"data": "d1", "code": {"bases": "b1", "fusion": "f1"}, **facts})


def result(value=1.0):
    return CellResult({"rows": FRAME.assign(value=value)}, {"settings": {"alpha": np.float64(0.5)}}, 2.0)


@pytest.fixture
def store(tmp_path):
    return CellStore(tmp_path)


def test_what_is_saved_is_loaded(store):
    assert store.load(cell()) is None
    store.save(cell(), result())
    loaded = store.load(cell())
    pd.testing.assert_frame_equal(loaded.frames["rows"], result().frames["rows"])
    assert (loaded.notes, loaded.seconds) == ({"settings": {"alpha": 0.5}}, 2.0)
    assert store.load(cell(1)) is None


@pytest.mark.parametrize("change", [{"data": "d2"}, {"code": {"bases": "b1", "fusion": "f2"}}, {"extra": 1}])
def test_another_fact_is_another_cell(store, change):
    store.save(cell(), result())
    other = replace(cell(), facts={**cell().facts, **change})
    assert store.load(other) is None
    assert len(store.why_stale(other)) == 1


def test_why_a_cell_is_stale(store):
    assert store.why_stale(cell()) == []
    store.save(cell(), result())
    assert store.why_stale(cell()) == []
    newer = cell(code={"bases": "b1", "fusion": "f2"}, shots=5)
    assert store.why_stale(newer) == ["code.fusion: f1 -> f2", "shots: not there -> 5"]
    # Another fold's results say nothing about this one.
    assert store.why_stale(cell(1, data="d2")) == []


@pytest.mark.parametrize("damage", ["cut record", "other number", "folder", "cut frame", "no frame", "other frame"])
def test_a_damaged_cell_does_not_count(store, damage, caplog):
    store.save(cell(), result())
    (frame,) = store.folder.rglob("*.parquet")
    (record,) = store.folder.rglob("*.json")
    if damage == "cut record":
        record.write_bytes(record.read_bytes()[:-20])
    elif damage == "other number":
        record.write_text(record.read_text().replace("0.5", "0.7"))
    elif damage == "folder":
        record.unlink()
        record.mkdir()
    elif damage == "cut frame":
        frame.write_bytes(frame.read_bytes()[:-20])
    elif damage == "no frame":
        frame.unlink()
    else:
        result(2.0).frames["rows"].to_parquet(frame)
    assert not store.finished(cell())
    assert store.load(cell()) is None
    assert "is damaged; it is computed again" in caplog.text
    if damage == "folder":
        # Only who made it can say what is in it.
        record.rmdir()
    store.save(cell(), result())
    assert store.finished(cell())


def test_an_interrupted_write_leaves_no_cell_and_the_next_one_cleans_up(store, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("metarec.files._whole.os.replace", interrupted)
        with pytest.raises(KeyboardInterrupt):
            store.save(cell(), result())
    assert not store.finished(cell())
    store.save(cell(), result())
    assert not list(store.folder.rglob("*.part"))


def test_notes_that_json_does_not_know_are_refused(store):
    with pytest.raises(TypeError, match="set"):
        store.save(cell(), CellResult({}, {"settings": {1, 2}}))


def test_a_run_keeps_what_came_before_an_error(store):
    def compute(one):
        if one.key["fold"] == 2:
            raise RuntimeError("the third")
        return result()

    cells, finished = [cell(fold) for fold in range(4)], []
    with pytest.raises(RuntimeError, match="the third"):
        run_cells(cells, compute, store, on_done=lambda one, _: finished.append(one))
    assert finished == cells[:2]
    assert [store.finished(one) for one in cells] == [True, True, False, False]
    assert store.load(cells[0]).seconds < 2.0


def test_cells_that_belong_together_are_computed_one_after_the_other(store):
    computed, finished = [], []

    def compute(one):
        computed.append(one.key["fold"])
        return result()

    cells = [cell(fold) for fold in range(4)]
    run_cells(
        cells,
        compute,
        store,
        on_done=lambda one, _: finished.append(one.key["fold"]),
        together=lambda one: one.key["fold"] % 2,
    )
    assert computed == finished == [0, 2, 1, 3]
    assert all(store.finished(one) for one in cells)


def test_the_digest_of_code_follows_the_code(tmp_path):
    (tmp_path / "bases").mkdir()
    (tmp_path / "bases" / "one.py").write_text("a = 1\n")
    (tmp_path / "alone.py").write_text("b = 1\n")
    parts = ("bases", "alone.py", "later")

    def code():
        return code_facts(parts, (), tmp_path)["code"]

    before = code()
    assert before == code()
    (tmp_path / "bases" / "one.py").write_text("a = 2\n")
    changed = code()
    assert {part for part in parts if before[part] != changed[part]} == {"bases"}
    (tmp_path / "later").mkdir()
    (tmp_path / "later" / "new.py").write_text("c = 1\n")
    assert code()["later"] != before["later"]


def test_words_in_the_code_do_not_change_its_digest(tmp_path):
    """An hour of computed cells is not lost to a docstring that is reworded; a changed number is another code."""
    file = tmp_path / "one.py"
    found = []
    for text in (
        '"""One."""\ndef one(a):\n    """Its size."""\n    return a + 1\n',
        '"""Two."""\n\n# A comment.\ndef one(a):\n    """Other words."""\n    return (a + 1)  # Why.\n',
        "def one(a):\n    return a + 1\n",
        '"""One."""\ndef one(a):\n    """Its size."""\n    return a + 2\n',
        '"""One."""\ndef one(a):\n    """Its size."""\n    return "a" + 1\n',
    ):
        file.write_text(text)
        found.append(code_facts(("one.py",), (), tmp_path)["code"]["one.py"])
    assert found[0] == found[1] == found[2]
    assert len(set(found)) == 3


def test_a_record_says_what_a_cell_depends_on(store):
    store.save(cell(), result())
    (record,) = store.folder.rglob("*.json")
    content = json.loads(record.read_text())
    assert content["key"] == cell().key
    assert content["facts"] == cell().facts


def test_a_pool_that_fails_says_what_and_no_more(tmp_path):
    # Workers do not import the script.
    (tmp_path / "cells_of_it.py").write_text("def broken(one):\n    raise RuntimeError(f'cell {one.name}')\n")
    script = tmp_path / "fails.py"
    script.write_text(
        "from pathlib import Path\n"
        "from cells_of_it import broken\n"
        "from metarec.cells import Cell, CellStore, run_cells\n"
        "if __name__ == '__main__':\n"
        "    cells = [Cell({'set': 'films', 'fold': fold}, {}) for fold in range(30)]\n"
        f"    run_cells(cells, broken, CellStore(Path({str(tmp_path)!r})), jobs=2)\n"
    )
    ended = subprocess.run(
        [sys.executable, str(script)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(tmp_path)])},
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 1
    assert "RuntimeError: cell films/fold-" in ended.stderr
    # The worker's and this process's.
    assert ended.stderr.count("Traceback") == 2
