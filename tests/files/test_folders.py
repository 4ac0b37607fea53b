"""Who may read what metarec writes: the owner, and a group with which the owner has shared the folder."""

import os
import shutil
import stat
import subprocess
import sys

import pandas as pd
import pytest

from metarec.files import keep_private, make_folder, make_folders, write_whole
from metarec.tracking import MlflowTracker
from tests.support.commands import ROOT, begun, ended


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def open_to_others(folder):
    """The files and folders with a bit for the group or for others, the folder itself among them."""
    return [str(path) for path in (folder, *folder.rglob("*")) if mode(path) & 0o077]


def test_folders_are_the_owners_even_in_a_library(tmp_path):
    """The umask of the process is left alone, so files are readable, but no one else comes to them."""
    make_folders(tmp_path / "new" / "runs", tmp_path / "new" / "runs" / "cache")
    write_whole(tmp_path / "new" / "cells" / "one.json", b"{}")
    tracker = MlflowTracker("sqlite:///unused", spool=tmp_path / "new" / "spool")
    assert os.umask(0o022) == 0o022
    assert not tracker.spool.exists()
    assert open_to_others(tmp_path / "new") == []


def test_a_folder_that_exists_keeps_its_mode(tmp_path):
    tmp_path.chmod(0o755)
    make_folder(tmp_path)
    assert mode(tmp_path) == 0o755
    make_folder(tmp_path / "a" / "b")
    assert (mode(tmp_path / "a"), mode(tmp_path / "a" / "b")) == (0o700, 0o700)


@pytest.mark.parametrize(("shared", "folders", "files"), [(0o755, 0o700, 0o600), (0o2770, 0o2770, 0o660)])
@pytest.mark.parametrize("umask", [0o002, 0o022, 0o077])
def test_a_folder_is_shared_with_a_group_by_its_mode(tmp_path, shared, folders, files, umask):
    os.umask(umask)
    out = tmp_path / "out"
    out.mkdir()
    out.chmod(shared)
    keep_private(out / "later")
    make_folders(out, out / "cache")
    write_whole(out / "cache" / "whole", b"")
    (out / "cache" / "plain").touch()
    assert mode(out / "cache") == folders
    assert {mode(path) for path in (out / "cache").iterdir()} == {files}


def test_world_writable_folders_are_no_shared_ones(tmp_path):
    tmp_path.chmod(0o1777)
    keep_private(tmp_path / "out")
    (tmp_path / "file").touch()
    assert mode(tmp_path / "file") == 0o600


@pytest.mark.slow
def test_all_that_the_commands_write_is_the_owners(place, tmp_path):
    """A study, a comparison and predictions, in a shell with the usual umask."""
    place = shutil.copytree(place, tmp_path / "place")
    ended(
        begun(place, "job.yaml", "--data", "movies=movies.csv", "--trials", "2", "--workers", "2", "--study-name", "s")
    )
    rows = pd.DataFrame({"user": ["1"], "item": ["1"]})
    rows.to_parquet(place / "rows.parquet")
    compare = [
        "metarec.compare",
        "--shots",
        "1",
        "--target-users",
        "5",
        "--seeds",
        "1",
        "--strategies",
        "scratch,mean",
    ]
    for command in (
        ["metarec.predict", "models:/metarec-s@champion", "rows.parquet", "out.parquet"],
        [*compare, "--out", "compared", "--json", "compared.json"],
    ):
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        ran = subprocess.run(
            [sys.executable, "-m", *command], cwd=place, env=environment, capture_output=True, text=True, timeout=280
        )
        assert ran.returncode == 0, ran.stderr
    written = [place / name for name in ("mlruns", "compared", "compared.json", "out.parquet")]
    assert {path.name for path in written} <= {path.name for path in place.iterdir()}
    assert [path for top in written for path in open_to_others(top)] == []
