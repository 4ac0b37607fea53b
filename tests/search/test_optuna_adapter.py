"""The contract with Optuna: one test for each private name that the adapter uses.

A test that fails after an upgrade of Optuna names what the adapter must change.
"""

import ast
import inspect
import re
from pathlib import Path

import optuna
import pytest
from optuna.storages import BaseStorage, RDBStorage
from optuna.trial import TrialState

import metarec
from metarec.search.storage import _optuna as adapter
from metarec.search.storage import end_stale_trials, open_storage, queued_params
from metarec.search.storage._database import PatientDatabase
from metarec.search.storage._journal import JournalStudies

PACKAGE = Path(metarec.__file__).parent
ADAPTER = Path(adapter.__file__)
PRIVATE = re.compile(r"_[a-zA-Z]")


@pytest.fixture(params=["journal", "database"])
def study(request, tmp_path):
    storage = str(tmp_path / "journal") if request.param == "journal" else f"sqlite:///{tmp_path / 'optuna.db'}"
    return optuna.create_study(storage=open_storage(storage))


# --- one test for each name ------------------------------------------------------------------------------------------


def test_base_heartbeat_is_what_optuna_tests_a_storage_for(study):
    from optuna.storages._heartbeat import BaseHeartbeat, is_heartbeat_enabled

    abstract = {"record_heartbeat", "_get_stale_trial_ids", "get_heartbeat_interval"}
    assert {*abstract, "get_heartbeat_stale_trial_callback"} == BaseHeartbeat.__abstractmethods__
    assert is_heartbeat_enabled(study._storage)


def test_heartbeat_threads_beat_at_the_start_of_a_trial(study):
    beats = []
    storage = study._storage if isinstance(study._storage, JournalStudies) else study._storage._backend
    original = storage.record_heartbeat
    storage.record_heartbeat = lambda trial_id: (beats.append(trial_id), original(trial_id))
    study.optimize(lambda trial: 0.0, n_trials=1)
    assert beats == [adapter.id_of(study.trials[0])]


def test_get_stale_trial_ids_is_what_optuna_calls_before_a_trial(study, monkeypatch):
    stale = study.ask()
    kind = JournalStudies if isinstance(study._storage, JournalStudies) else PatientDatabase
    monkeypatch.setattr(kind, "stale_trial_ids", lambda self, study_id: [stale._trial_id])
    study.optimize(lambda trial: 0.0, n_trials=1)
    assert [trial.state for trial in study.trials] == [TrialState.FAIL, TrialState.COMPLETE]


def test_get_stale_trial_ids_of_a_database_finds_a_silent_trial(tmp_path, monkeypatch):
    study = optuna.create_study(storage=open_storage(f"sqlite:///{tmp_path / 'optuna.db'}"))
    trial = study.ask()
    study._storage.record_heartbeat(trial._trial_id)
    database = study._storage._backend
    assert database.stale_trial_ids(study._study_id) == []
    database.grace_period = -1
    assert database.stale_trial_ids(study._study_id) == [trial._trial_id]


def test_storage_and_study_id_are_a_studys_own(study):
    assert isinstance(study._storage, BaseStorage)
    assert study._storage.get_study_name_from_id(study._study_id) == study.study_name
    end_stale_trials(study)


def test_trial_id_finds_the_trial_in_its_storage(study):
    study.ask()
    trial = study.ask()
    frozen = study.trials[1]
    assert adapter.id_of(frozen) == trial._trial_id
    assert study._storage.get_trial(adapter.id_of(frozen)).number == 1


def test_fixed_params_are_those_that_a_trial_was_enqueued_with(study):
    study.enqueue_trial({"x": 0.5})
    trial, drawn = study.ask(), study.ask()
    assert study.trials[0].params == {}
    assert queued_params(study.trials[0]) == {"x": 0.5}
    assert trial.suggest_float("x", 0, 1) == 0.5
    drawn.suggest_float("x", 0, 1)
    assert queued_params(study.trials[1]) == {}


@pytest.mark.parametrize(
    ("write", "lost"),
    [
        (lambda trial: trial.suggest_float("x", 0, 1), True),
        (lambda trial: trial.report(0.5, 0), True),
        (lambda trial: trial.set_user_attr("a", 1), True),
        (lambda trial: trial.storage.set_trial_system_attr(trial._trial_id, "a", 1), True),
        (lambda trial: trial.study.ask(), False),
        (lambda trial: trial.study.tell(trial, 0.5), False),
        (lambda trial: trial.study.set_user_attr("a", 1), False),
    ],
    ids=["param", "value", "user attribute", "system attribute", "new trial", "end", "study attribute"],
)
def test_journal_operations_about_a_running_trial_may_be_lost(tmp_path, monkeypatch, write, lost):
    study = optuna.create_study(storage=open_storage(str(tmp_path / "journal")))
    trial = study.ask()
    answers = []
    monkeypatch.setattr(
        "metarec.search.storage._journal.may_be_lost",
        lambda logs: answers.append(adapter.may_be_lost(logs)) or answers[-1],
    )
    write(trial)
    assert answers == [lost]


@pytest.mark.parametrize("name", adapter.DATABASE_METHODS)
def test_the_methods_of_a_database_are_there_and_wait(name):
    assert callable(getattr(RDBStorage, name))
    assert hasattr(getattr(PatientDatabase, name), "__wrapped__")


def test_optunas_cache_calls_no_other_method_of_a_database():
    """A method that a new version of Optuna calls besides would not wait."""
    source = inspect.getsource(optuna.storages._cached_storage)
    called = set(re.findall(r"self\._backend\.(\w+)\(", source))
    settings = {"get_heartbeat_interval", "get_heartbeat_stale_trial_callback"}
    assert "_get_trials" in called
    assert called - settings <= set(adapter.DATABASE_METHODS)


def test_optuna_puts_its_cache_before_a_database(tmp_path):
    study = optuna.create_study(storage=open_storage(f"sqlite:///{tmp_path / 'optuna.db'}"))
    assert isinstance(study._storage, optuna.storages._CachedStorage)
    assert isinstance(study._storage._backend, PatientDatabase)


# --- no other file uses one ------------------------------------------------------------------------------------------


def private_uses(path):
    """Private names of Optuna that a file imports, writes as text, or reads from an object other than `self`."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "optuna":
            names = [*node.module.split("."), *(alias.name for alias in node.names)]
            yield from filter(PRIVATE.match, names)
        if isinstance(node, ast.Attribute) and getattr(node.value, "id", "") != "self" and node.attr in OPTUNAS:
            yield node.attr
        if isinstance(node, ast.Constant) and node.value in OPTUNAS:
            yield node.value


def privates_of_optuna():
    """The private names of studies, trials and storages, and the keys that Optuna writes into them."""
    root = Path(optuna.__file__).parent
    paths = [path for part in ("storages", "study", "trial") for path in (root / part).rglob("*.py")]
    attributes = {name for path in paths for name in re.findall(r"\.(_[a-z]\w+)", path.read_text(encoding="utf-8"))}
    return attributes - {"_asdict", "_replace"} | {"fixed_params", "op_code"}


OPTUNAS = privates_of_optuna()

FILES = sorted(path for path in PACKAGE.rglob("*.py") if path != ADAPTER and "optuna" in path.read_text("utf-8"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_other_file_uses_a_private_name_of_optuna(path):
    assert set(private_uses(path)) == set()


def test_private_uses_are_found():
    found = set(private_uses(ADAPTER))
    assert found >= {"_heartbeat", "_storage", "_study_id", "_trial_id", "_get_stale_trial_ids", "_get_trials"}
    assert found >= {"fixed_params", "op_code"}


@pytest.mark.parametrize("kind", [JournalStudies, PatientDatabase])
def test_no_private_name_of_ours_hides_one_of_optuna(kind):
    ours = {name for name in vars(kind) if PRIVATE.match(name)} - {"_abc_impl"}
    theirs = {name for base in kind.__mro__[1:] if base.__module__.startswith("optuna") for name in vars(base)}
    assert ours & theirs <= set(adapter.DATABASE_METHODS)
