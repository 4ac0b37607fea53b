"""The fuzzing driver finds each kind of fault, each once, and goes on."""

import os
import time
import warnings

from hypothesis import strategies as st

from metarec.errors import InputError
from tests.support.fuzz import Case, fuzz, kept_cases, mutated

FAULTS = {
    b"error": lambda: {}["x"],
    b"lines": lambda: _refuse("two\nlines"),
    b"warning": lambda: warnings.warn("never", stacklevel=1),
    b"hang": lambda: time.sleep(60),
    b"memory": lambda: bytearray(4 << 30),
    b"end": lambda: os.abort(),
    b"refused": lambda: _refuse("a rule"),
}


def _refuse(message):
    raise InputError(message)


def planted(case, folder):
    assert list(folder.iterdir()) == []
    (folder / case.name).write_bytes(case.content)
    for name, fault in FAULTS.items():
        if name in case.content:
            fault()


def fine(case, folder):
    pass


def test_each_kind_of_fault_is_found(tmp_path):
    cases = [Case("a.txt", content) for content in (*FAULTS, b"fine", *FAULTS)]
    for place, case in enumerate(cases):
        (tmp_path / f"{place:02}--{case.name}").write_bytes(case.content)
    assert kept_cases(tmp_path) == cases
    finds = fuzz(planted, st.just(Case("b.txt", b"fine")), tmp_path, seconds=0, examples=2, example_seconds=1)
    assert [find.case.content for find in finds] == [b"error", b"lines", b"warning", b"hang", b"memory", b"end"]
    for find, part in zip(
        finds, ["KeyError", "not one line", "UserWarning", "1 seconds", "MemoryError", "ended with -6"], strict=True
    ):
        assert part in find.what


def test_a_find_is_made_smaller_and_kept(tmp_path):
    long = Case("a.txt", b"x" * 300 + b"error" + b"y" * 300)
    assert fuzz(planted, mutated([long]), tmp_path / "new", seconds=2)[0].case.content == b"error"
    assert kept_cases(tmp_path / "new") == [Case("a.txt", b"error")]


def test_a_short_run_has_the_same_examples_every_time(tmp_path):
    cases = mutated([Case("a.txt", b"user,item,rating\n")], [b"\0"])
    first, again = [], []
    assert fuzz(fine, cases.map(lambda case: first.append(case) or case), tmp_path, seconds=0, examples=50) == []
    assert fuzz(fine, cases.map(lambda case: again.append(case) or case), tmp_path, seconds=0, examples=50) == []
    assert first == again
    assert len(set(first)) > 30
