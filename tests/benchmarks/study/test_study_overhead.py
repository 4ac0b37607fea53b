"""The overhead benchmark runs, and counts every trial and every second."""

import json

import pytest
from typer.testing import CliRunner

from benchmarks.study import overhead as study_overhead
from metarec.study.spec import load_spec


@pytest.fixture
def app():
    import typer

    app = typer.Typer()
    app.command()(study_overhead.main)
    return app


@pytest.mark.slow
def test_every_trial_and_every_second_is_counted(app, tmp_path, monkeypatch):
    # Wrapped functions stay wrapped in this process, which would affect other tests.
    monkeypatch.setattr("benchmarks.study.clock.Clock.wrap_targets", lambda clock, module: None)
    small = load_spec("quickstart", {"trials": 2, "bases": ["bias", "item-knn"], "baselines": ["mean"]})
    monkeypatch.setattr("metarec.study.spec.load_spec", lambda name, changes: small)
    options = ["--rounds", "1", "--trials", "100", "--work", str(tmp_path / "work"), "--out", str(tmp_path)]
    found = CliRunner().invoke(app, options, catch_exceptions=False)
    assert found.exit_code == 0, found.output
    report = json.loads((tmp_path / "study_overhead.json").read_text())
    grown = report["growth"]
    assert (grown["trials"], grown["recorded"], grown["waiting"]) == (100, 100, 0)
    assert len(grown["milliseconds_by_block"]) == 1
    assert grown["milliseconds_a_trial"] < 1000
    # Nothing was wrapped, so all time has the label of the rest.
    assert set(report["share"]["seconds_a_trial"]) == {"anything else"}
    assert report["share"]["added"] == {"Optuna": 0.0, "MLflow": 0.0}
    again = CliRunner().invoke(app, options)
    assert again.exit_code == 2
    assert "is there already; give a new folder" in again.output


def test_overhead_is_not_part_of_the_trials_own_time():
    seconds = {"Optuna": 1.0, "MLflow: sending": 2.0, "MLflow: numbers": 3.0, "figures": 4.0, "anything else": 5.0}
    assert study_overhead._own(seconds) == 9.0
