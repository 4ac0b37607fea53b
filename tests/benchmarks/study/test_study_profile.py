"""Each moment of a study belongs to one row: by hand, in a small real study, and in the report."""

import importlib
import json
import os
import subprocess
import sys
import time

import pytest

from benchmarks.study.clock import IMPORTS, OTHER, TARGETS, WAITING, Clock, Segment, Timeline
from benchmarks.study.profile import markdown, profile_study, shown
from benchmarks.study.shares import EXIT, START, profile_of, typical
from tests.benchmarks.conftest import ROOT, write_set


def test_nested_blocks_are_counted_once():
    clock = Clock()
    with clock.during("outer"):
        time.sleep(0.02)
        with clock.during("inner"):
            time.sleep(0.05)
        time.sleep(0.02)
    (timeline,) = clock.timelines()
    assert [segment.label for segment in timeline.segments] == [OTHER, "outer", "inner", "outer", OTHER]
    assert all(a.end == b.start for a, b in zip(timeline.segments, timeline.segments[1:], strict=False))
    lengths = [segment.end - segment.start for segment in timeline.segments]
    assert lengths[2] >= 0.05
    assert 0.04 <= lengths[1] + lengths[3] < 0.09


def test_shares_by_hand():
    """The bases are fitted from second 4 to 6, by two processes; the main thread waits from 3 to 8."""
    main = [
        Segment(IMPORTS + "torch", 1.0, 2.0, 0.9),
        Segment(OTHER, 2.0, 3.0, 0.5),
        Segment(WAITING, 3.0, 8.0, 0.1),
        Segment("meta-steps", 8.0, 9.0, 1.0),
        Segment("validation passes", 9.0, 9.5, 0.5),
    ]
    fits = [
        [Segment(IMPORTS + "torch", 3.0, 4.0, 1.0), Segment("base recommenders", 4.0, 5.5, 1.2)],
        [Segment("base recommenders", 5.0, 6.0, 0.8)],
    ]
    timelines = [Timeline(1, True, main), *(Timeline(2 + number, True, own) for number, own in enumerate(fits))]
    profile = profile_of(timelines, 1, 0.5, 10.0, cpu=7.0)
    assert {label: share.wall for label, share in profile.rows.items()} == pytest.approx(
        {
            "base recommenders": 2.0,
            "meta-steps": 1.0,
            WAITING: 3.0,
            "imports": 1.0,
            START: 0.5,
            EXIT: 0.5,
            "validation passes": 0.5,
            OTHER: 1.0,
        }
    )
    assert sum(share.wall for share in profile.rows.values()) == pytest.approx(profile.wall)
    assert profile.rows["base recommenders"].cpu == pytest.approx(2.0)
    assert profile.rows["imports"].cpu == pytest.approx(1.9)
    assert profile.outside == pytest.approx(6.5)
    assert profile.summary()["outside_but_validation_s"] == pytest.approx(6.0)
    assert profile.imports == {"torch": 1.0}


def test_the_typical_run_is_the_one_in_the_middle():
    def lasting(seconds):
        return profile_of([Timeline(1, True, [Segment(OTHER, 0, seconds, 0)])], 1, 0, seconds, 0)

    assert typical([lasting(3), lasting(1), lasting(2)]).wall == 2
    assert typical([lasting(2), lasting(1)]).wall == 1


@pytest.mark.parametrize("name", TARGETS)
def test_every_target_exists(name):
    module = importlib.import_module(name)
    for path in TARGETS[name]:
        owner = module
        *parents, last = path.split(".")
        for parent in parents:
            owner = getattr(owner, parent)
        assert callable(vars(owner)[last])
        # An abstract method is never called: its overrides are.
        assert not getattr(vars(owner)[last], "__isabstractmethod__", False)


@pytest.mark.slow
def test_a_small_study(tmp_path):
    write_set(tmp_path / "small", seed=0)
    study = ["quickstart", "--data", f"small={tmp_path / 'small'}", "--trials", "2", "--set", "bases=[bias, item-knn]"]
    study += ["--set", "training.epochs=2", "--set", "episodes.shots=3", "--set", "baselines=[mean]"]
    profile, table = profile_study(study, ROOT)
    assert sum(share.wall for share in profile.rows.values()) == pytest.approx(profile.wall)
    assert min(share.wall for share in profile.rows.values()) >= 0
    for label in ("base recommenders", "meta-steps", "validation passes", "imports", "baseline: mean", "figures"):
        assert profile.rows[label].wall > 0, label
    # Threads that libraries start use little time.
    assert sum(share.cpu for share in profile.rows.values()) == pytest.approx(profile.cpu, rel=0.2)
    assert "metarec" in json.loads(table)["small"]
    report = {
        "run": {"command": "", "date": "", "versions": {}, "machine": {}},
        "study": ["quickstart"],
        "tables_identical": True,
        "checkouts": {
            "now": {"commit": "", "typical": profile.to_json(), "rounds": [profile.summary()], "without_clock_s": [1.0]}
        },
    }
    text = markdown(json.loads(json.dumps(report)))
    assert f"| **whole** | **{profile.wall:.2f} s, 100.0 %** |" in text


def test_no_path_of_the_machine_is_shown(monkeypatch):
    monkeypatch.setenv("METAREC_DATA", "/home/ada/data")
    assert shown(["--data", "movies=/home/ada/data/small"]) == ["--data", "movies=$METAREC_DATA/small"]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("--data", "m=x.csv", "--trials", "0"), 2, "--trials must be >= 1 but got 0"),
        (("--data", "m=x.csv", "--json", "no/such/x.json"), 2, "cannot be written there"),
        (("--data", "m=x.csv", "--against", "nowhere"), 2, "has no benchmarks/study/clock.py"),
        (("--data", "m=no-such-file.csv"), 1, "no-such-file.csv"),
    ],
)
def test_refusals(arguments, code, message):
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.study.profile", *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == code
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert message in done.stderr
