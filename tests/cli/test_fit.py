"""`metarec.fit`: the study of the command, from Python."""

import inspect
import json
import re
import subprocess
import sys
from dataclasses import replace

import pandas as pd
import pytest

import metarec
from metarec.cli import running
from metarec.cli import study as command
from metarec.errors import InputError
from metarec.model import FusedRecommender
from metarec.ratings import simulate_implicit_domains
from metarec.study.data import read_data
from metarec.study.spec import OF_DATA, load_spec
from tests.support.commands import ROOT
from tests.support.studies import JOB

SMALL = {key: value for key, value in JOB.items() if key != "name"}


@pytest.fixture(autouse=True, scope="module")
def one_process():
    """And no comparison of engines, which takes half of the time."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("metarec.study.networks._stages.check_engines", lambda *_, **__: [])
        for module in (running, command):
            patched.setattr(module, "cores", lambda: 1)
        yield


@pytest.fixture(scope="module")
def by_command(place, new_folder):
    """What ``--json`` has of the command's study."""
    folder = new_folder()
    sets = [part for key, value in SMALL.items() for part in ("--set", f"{key}={json.dumps(value)}")]
    arguments = ["cold-start", "--data", f"films={place / 'movies.csv'}", "--trials", "2", "--seed", "3", *sets]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(sys, "argv", ["study", *arguments, "--out", str(folder), "--json", str(folder / "a.json")])
        command.main()
    return json.loads((folder / "a.json").read_text())


@pytest.fixture(scope="module")
def fitted(place, new_folder):
    """The result for the same table as a DataFrame."""
    frame = pd.read_csv(place / "movies.csv")
    return metarec.fit({"films": frame}, trials=2, seed=3, out=new_folder(), **SMALL)


@pytest.mark.slow
def test_it_is_the_study_of_the_command(by_command, fitted):
    theirs, ours = by_command, json.loads(json.dumps(fitted.to_json()))
    for key in ("metric", "target", "test", "gains", "adds", "members"):
        assert ours[key] == theirs[key], key
    for mine, other in zip(ours["trials"], theirs["trials"], strict=True):
        assert (mine["params"], mine["value"]) == (other["params"], other["value"])
    pd.testing.assert_frame_equal(pd.read_parquet(fitted.predictions), pd.read_parquet(theirs["predictions"]))


@pytest.mark.slow
def test_the_tables_of_the_result(by_command, fitted):
    board, trials = fitted.leaderboard(), fitted.trials()
    assert board["rmse"].is_monotonic_increasing
    pd.testing.assert_frame_equal(board, fitted.leaderboard("films"))
    for row in board.to_dict("records"):
        assert row["rmse"] == by_command["test"]["films"][row["model"]]["rmse"]
        gain = by_command["gains"]["films"].get(row["model"])
        if gain is None:
            assert row["model"] == "metarec"
            assert pd.isna(row["gain_percent"])
        else:
            assert [row[f"gain_{name}"] for name in ("percent", "low", "high")] == [*gain.values()]
    assert trials["number"].tolist() == [0, 1]
    assert trials["validation_unit_rmse"].tolist() == [trial["value"] for trial in by_command["trials"]]
    assert trials["params_inner_lr"].tolist() == [trial["params"]["inner_lr"] for trial in by_command["trials"]]
    with pytest.raises(InputError, match='no domain "filsm"; did you mean "films"'):
        fitted.leaderboard("filsm")


def test_the_model_and_the_report_of_the_result(fitted, place):
    assert isinstance(fitted.model, FusedRecommender)
    assert fitted.model is fitted.model
    best = fitted.model.adapt(pd.DataFrame({"item": ["m001", "m002"], "rating": [5.0, 1.0]})).recommend(3)
    assert len(best) == 3
    assert fitted.name in fitted.report.read_text(encoding="utf-8")


def test_a_study_without_a_model_says_so(fitted):
    with pytest.raises(InputError, match=r"keeps no model: studies of transfer strategies"):
        replace(fitted, model_uri=None).model  # noqa: B018


class BegunError(Exception):
    """Raised in place of the study, with its spec and its domains."""


@pytest.fixture
def begun(monkeypatch, tmp_path):
    """Calls fit, and returns the spec and the domains with which a study would begin."""

    def begin(spec, domains, where):
        raise BegunError(spec, domains, where)

    def call(data, **options):
        monkeypatch.setattr("metarec.study.job.run_study", begin)
        with pytest.raises(BegunError) as ended:
            metarec.fit(data, out=tmp_path / "runs", **options)
        assert not (tmp_path / "runs").exists()
        return ended.value.args

    return call


def test_the_task_is_that_of_the_table(begun, place):
    events = next(iter(simulate_implicit_domains(0).values())).ratings
    rated = pd.read_csv(place / "movies.csv")
    assert begun(rated)[0].name == "cold-start"
    spec, domains, _ = begun(events[["user", "item"]])
    assert (spec.name, spec.task, list(domains)) == ("ranking", "ranking", ["data"])
    some = rated.assign(rating=rated["rating"].where(rated.index % 2 == 0))
    assert begun(some)[0].task == "ranking"
    assert begun(rated, task="ranking")[0].name == "ranking"
    two = {"films": rated, "shop": events[["user", "item"]]}
    assert begun(two, target="shop")[0].name == "ranking"
    assert begun(two, target="films")[0].name == "cold-start"


def test_keys_of_the_spec_replace_only_themselves(begun, place):
    spec, domains, _ = begun(
        place / "movies.csv",
        trials=7,
        name="films",
        episodes={"shots": 3, "folds": 2},
        scale="0,6",
        columns={"item": "item"},
        timeout=9,
    )
    usual = load_spec("cold-start", {})
    changes = {"shots": 3, "folds": 2}
    assert spec.episodes == usual.episodes.model_copy(update=changes)
    assert (spec.name, spec.trials, spec.timeout, spec.training) == ("films", 7, 9, usual.training)
    assert str(domains["data"].scale) == "0..6"


def test_other_stores_are_named_by_the_environment(begun, place, monkeypatch):
    monkeypatch.setenv("METAREC_TRACKING_URI", "sqlite:///b.db")
    monkeypatch.setenv("METAREC_STORAGE", "sqlite:///a.db")
    _, _, where = begun(place / "movies.csv")
    assert where.tracker.tracking_uri == "sqlite:///b.db"
    assert where.optuna_storage == "sqlite:///a.db"


GOOD = pd.DataFrame({"user": list("abcabc"), "item": list("xxxyyy"), "rating": [1, 2, 3, 4, 5, 4]})


@pytest.mark.parametrize(
    ("data", "options", "message"),
    [
        ({}, {}, "data must name at least one table but is empty"),
        (3, {}, 'data "data" must be a DataFrame or a path but is int'),
        ({"a": None}, {}, 'data "a" must be a DataFrame or a path but is NoneType'),
        ("missing.csv", {}, "missing.csv: no such file or folder"),
        ({"a": GOOD, "b": GOOD}, {}, "target must say which of the domains is the target: a, b"),
        (GOOD, {"domains": {}}, "domains: the argument data has the tables"),
        (GOOD, {"trails": 3}, 'unknown key "trails"; did you mean "trials"'),
        (GOOD, {"task": "rank"}, "task: Input should be 'rating' or 'ranking', but got 'rank'"),
        (GOOD, {"trials": 0}, "trials: Input should be greater than or equal to 1, but got 0"),
        (GOOD, {"name": "/"}, "name"),
        (GOOD.assign(item=[1, "a", 2, "b", 3, None]), {}, r"the DataFrame: cannot be read \(.*values of one kind"),
        (GOOD.drop(columns="item"), {}, "the DataFrame: no column for the item"),
        (
            GOOD.assign(domain=list("ppqqpq")),
            {},
            r"holds 2 domains \(p, q\); give the rows of one of them, as in frame",
        ),
        (GOOD.iloc[:0], {}, "the DataFrame: the table has no rows"),
    ],
)
def test_wrong_input_is_refused_and_nothing_is_written(data, options, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=message):
        metarec.fit(data, **options)
    assert not list(tmp_path.iterdir())


def test_the_data_is_read_by_all_keys_that_the_readers_have():
    """Otherwise `fit` would read the tables by other rules than the command."""
    used = set(re.findall(r"spec\.(\w+)", inspect.getsource(read_data)))
    assert used - {"read"} <= set(OF_DATA)
    assert {"scale", "columns", "event_weights", "missing", "encoding"} <= set(OF_DATA)


def test_a_stored_study_says_that_its_table_was_in_memory():
    spec = load_spec("cold-start", {"domains": {"films": "DataFrame"}, "target": None})
    with pytest.raises(InputError, match=r'domain "films" was a DataFrame.* --data films=PATH'):
        read_data(spec)


def test_the_package_has_it_and_stays_light():
    code = "import sys, metarec; print(metarec.fit.__name__, 'pandas' in sys.modules, 'rich' in sys.modules)"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert ended.stdout == "fit False False\n"
