"""Files are whole or missing, damage is noticed, and what a killed process leaves goes away."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from metarec.errors import InputError
from metarec.files import read_kept, write_kept, write_whole

ROOT = Path(__file__).parents[2]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "inner" / "kept"


def test_what_is_kept_is_read(path):
    assert read_kept(path) is None
    for content in (b"", b"content"):
        write_kept(path, content)
        assert read_kept(path) == content
    assert [file.name for file in path.parent.iterdir()] == ["kept"]


@pytest.mark.parametrize("damage", ["empty", "cut", "grown", "flipped", "folder"])
def test_damage_is_noticed(path, caplog, damage):
    write_kept(path, b"content" * 100)
    whole = path.read_bytes()
    path.unlink()
    if damage == "folder":
        path.mkdir()
    else:
        flipped = whole[:50] + bytes([whole[50] ^ 1]) + whole[51:]
        path.write_bytes({"empty": b"", "cut": whole[:-1], "grown": whole + b"x", "flipped": flipped}[damage])
    assert read_kept(path) is None
    assert f"{path} " in caplog.text
    assert "it is made again" in caplog.text


def test_a_folder_in_the_place_of_a_file_is_named(path):
    path.mkdir(parents=True)
    with pytest.raises(InputError, match="kept: there is a folder in the place of this file; move it elsewhere"):
        write_whole(path, b"content")
    assert [file.name for file in path.parent.iterdir()] == ["kept"]


KILLED = """
import os, signal, sys
from pathlib import Path
from metarec import files
os.replace = lambda *names: os.kill(os.getpid(), signal.SIGKILL)
files.write_whole(Path(sys.argv[1]), b"half")
"""


def test_the_next_writer_removes_what_a_killed_one_left(path, monkeypatch):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    killed = subprocess.run([sys.executable, "-c", KILLED, str(path)], env=environment, check=False)
    assert killed.returncode == -signal.SIGKILL
    (left,) = path.parent.iterdir()
    assert left.name.endswith(".part")
    # It may have been opened just now, without a lock yet.
    write_whole(path.with_name("other"), b"")
    assert left.exists()
    monkeypatch.setattr("metarec.files._whole.LOCKED_S", -1.0)
    write_whole(path.with_name("other"), b"")
    assert not left.exists()


def test_no_writer_removes_what_another_is_writing(path, monkeypatch):
    monkeypatch.setattr("metarec.files._whole.LOCKED_S", -1.0)
    replace = os.replace

    def write_another_first(source, target):
        monkeypatch.setattr(os, "replace", replace)
        write_whole(path.with_name("other"), b"other")
        replace(source, target)

    monkeypatch.setattr(os, "replace", write_another_first)
    write_whole(path, b"content")
    assert {file.name: file.read_bytes() for file in path.parent.iterdir()} == {"kept": b"content", "other": b"other"}
