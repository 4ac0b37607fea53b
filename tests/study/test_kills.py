"""A study whose processes are killed in each of its phases, on both storages."""

import pytest

from benchmarks.study.kill import FIRST, LAST, STORAGES, run
from benchmarks.study.servers import postgres_missing


@pytest.mark.slow
@pytest.mark.parametrize("storage", STORAGES)
def test_whatever_is_killed_the_same_command_completes_the_study(storage, tmp_path):
    if storage == "postgresql":
        pytest.importorskip("psycopg", reason="the driver psycopg is not installed")
        if reason := postgres_missing():
            pytest.skip(reason)
    found = run(storage, kills=2, phase_kills=1, trials=6, workers=2, seed=0, folder=tmp_path / "killed")
    assert found["wrong"] == []
    assert found["counted"] >= 6
    assert {phase.name for phase in (*FIRST, *LAST)} <= found["killed"].keys()
