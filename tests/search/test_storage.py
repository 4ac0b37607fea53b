"""Where Optuna keeps a study: nothing is lost when a process, a disk or a database fails."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import optuna
import pytest
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import TrialState
from sqlalchemy.exc import OperationalError

from benchmarks.study.servers import Postgres, postgres_missing
from metarec.errors import InputError
from metarec.search.storage import _database, _journal, end_stale_trials, open_storage
from metarec.search.trials import join_study, quieten_optuna

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _quiet():
    quieten_optuna()


@pytest.fixture
def journal(tmp_path):
    return tmp_path / "optuna.journal"


def study_in(storage, on_stale=None):
    return optuna.create_study(storage=open_storage(str(storage), on_stale), study_name="s", load_if_exists=True)


def started(journal, body):
    """Another process, which is running a trial."""
    code = (
        "import optuna, sys, time\n"
        "from metarec.search.storage import open_storage\n"
        "study = optuna.load_study(study_name='s', storage=open_storage(sys.argv[1]))\n"
        "def run(trial):\n"
        "    trial.suggest_float('x', 0, 1)\n"
        "    print('running', flush=True)\n"
        f"    {body}\n"
        "    return 0.5\n"
        "study.optimize(run, n_trials=1)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(journal)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "running\n"
    return process


def states(study):
    return [trial.state for trial in study.get_trials(deepcopy=False)]


# --- a journal -------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_only_the_trial_of_a_killed_process_is_stale_and_at_once(journal):
    gone = []
    study = study_in(journal, lambda study, trial: gone.append(trial.number))
    with started(journal, "time.sleep(60)") as doomed, started(journal, "time.sleep(6)") as alive:
        time.sleep(1.1)
        end_stale_trials(study)
        assert states(study) == [TrialState.RUNNING] * 2
        doomed.send_signal(signal.SIGKILL)
        doomed.wait()
        end_stale_trials(study)
        assert states(study) == [TrialState.FAIL, TrialState.RUNNING]
        assert gone == [0]
        end_stale_trials(study)
        assert gone == [0]
        assert alive.wait(30) == 0
    assert states(study) == [TrialState.FAIL, TrialState.COMPLETE]
    assert list(journal.with_name("optuna.journal.running").iterdir()) == []


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (lambda whole: whole.replace(b'"op_code"', b'"op_cofe"', 1), r"is damaged \(KeyError: 'op_code'\)"),
        (lambda whole: whole.replace(b'"op_code":0', b'"op_code":{', 1), "cannot be opened: Expecting property name"),
        (lambda whole: whole.replace(b'"op_code"', b'"\xff\xffcode"', 1), "cannot be opened: 'utf-8' codec"),
    ],
)
def test_a_damaged_journal_is_one_line(journal, damage, problem):
    study_in(journal).add_trial(optuna.trial.create_trial(value=0.5))
    journal.write_bytes(damage(journal.read_bytes()))
    with pytest.raises(InputError, match=f"the journal .*optuna.journal of --out {problem}"):
        join_study("s", str(journal))


def test_a_trial_that_was_killed_before_it_had_a_lock_is_found_later(journal, monkeypatch):
    study = study_in(journal)
    study.ask()
    end_stale_trials(study)
    assert states(study) == [TrialState.RUNNING]
    monkeypatch.setattr(_journal, "UNLOCKED_S", 0.0)
    end_stale_trials(study)
    assert states(study) == [TrialState.FAIL]


@pytest.mark.parametrize("torn", ['{"op_code": 4, "wor', '{"op_code": 4', '{"op_code":'])
def test_half_a_line_is_cut_off_before_the_next_one(journal, torn):
    study = study_in(journal)
    study.set_user_attr("a", 1)
    with journal.open("a") as file:
        file.write(torn)
    again = study_in(journal)
    again.set_user_attr("b", 2)
    assert study_in(journal).user_attrs == {"a": 1, "b": 2}
    assert torn not in journal.read_text().splitlines()


def test_a_full_disk_leaves_no_half_line(journal, monkeypatch):
    study = study_in(journal)
    before = journal.read_bytes()

    def full(file):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        study.set_user_attr("a", "x" * 100)
    monkeypatch.undo()
    assert journal.read_bytes() == before
    study.set_user_attr("b", 2)
    assert study_in(journal).user_attrs == {"b": 2}


def test_a_lock_dies_with_its_process(journal):
    """A process that is killed while it writes does not block others."""
    study = study_in(journal)
    code = (
        "import os, signal, sys; from filelock import FileLock\n"
        "FileLock(sys.argv[1]).acquire(); os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", code, f"{journal}.lock"], check=False)
    began = time.monotonic()
    study.set_user_attr("a", 1)
    assert time.monotonic() - began < 1.0


def test_a_journal_that_cannot_be_written(tmp_path):
    with pytest.raises(InputError, match=r"cannot be opened: .*No such file"):
        open_storage(str(tmp_path / "nowhere" / "optuna.journal"))


# --- a database ------------------------------------------------------------------------------------------------------


def test_a_call_waits_until_the_database_is_back(tmp_path, monkeypatch, caplog):
    calls = []
    original = optuna.storages.RDBStorage.set_trial_user_attr

    def sometimes(self, *args, **names):
        calls.append(args)
        if len(calls) < 3:
            raise OperationalError("insert", {}, Exception("server closed the connection"))
        original(self, *args, **names)

    monkeypatch.setattr(_database.PatientDatabase, "set_trial_user_attr", _database._patient(sometimes))
    storage = open_storage(f"sqlite:///{tmp_path / 'optuna.db'}")
    study = optuna.create_study(storage=storage)
    with caplog.at_level("INFO", logger="metarec"):
        study.ask().set_user_attr("a", 1)
    assert len(calls) == 3
    assert study.trials[0].user_attrs == {"a": 1}
    assert [record.message.split(",")[0] for record in caplog.records] == [
        "the database of the study does not answer; waiting for it",
        "the database of the study answers again",
    ]


def test_a_call_that_the_database_refuses_is_not_tried_again(tmp_path):
    storage = open_storage(f"sqlite:///{tmp_path / 'optuna.db'}")
    study = optuna.create_study(storage=storage)
    trial = study.ask()
    study.tell(trial, 1.0)
    began = time.monotonic()
    with pytest.raises(UpdateFinishedTrialError):
        storage.set_trial_user_attr(trial._trial_id, "a", 1)
    assert time.monotonic() - began < 1.0


def test_the_end_of_a_trial_may_be_sent_twice(tmp_path):
    """The connection broke after the database had stored it: no error, and no second trial."""
    storage = open_storage(f"sqlite:///{tmp_path / 'optuna.db'}")
    study = optuna.create_study(storage=storage)
    trial = study.ask()
    assert storage.set_trial_state_values(trial._trial_id, TrialState.COMPLETE, [0.25])
    assert storage.set_trial_state_values(trial._trial_id, TrialState.COMPLETE, [0.25])
    with pytest.raises(UpdateFinishedTrialError):
        storage.set_trial_state_values(trial._trial_id, TrialState.COMPLETE, [0.5])
    with pytest.raises(UpdateFinishedTrialError):
        storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)


def test_a_database_that_was_never_reached_is_not_waited_for():
    began = time.monotonic()
    with pytest.raises(InputError, match="cannot be opened"):
        open_storage("postgresql+psycopg://nobody@127.0.0.1:1/nothing")
    assert time.monotonic() - began < 10


@pytest.mark.slow
@pytest.mark.skipif(postgres_missing() is not None, reason=str(postgres_missing()))
def test_postgresql_is_stopped_and_started_three_times():
    pytest.importorskip("psycopg", reason="the driver psycopg is not installed")
    gone = []
    with Postgres() as server:
        study = study_in(server.url, lambda study, trial: gone.append(trial.number))

        def bounce():
            for _ in range(3):
                time.sleep(1)
                server.stop()
                time.sleep(2)
                server.start()

        def run(trial):
            value = trial.suggest_float("x", 0, 1)
            for step in range(4):
                trial.report(value, step)
                time.sleep(0.05)
            return value

        bouncing = threading.Thread(target=bounce)
        bouncing.start()
        study.optimize(run, n_trials=30)
        bouncing.join()
        trials = study.get_trials(deepcopy=False)
    assert [trial.state for trial in trials] == [TrialState.COMPLETE] * 30
    assert all(trial.value == trial.params["x"] and len(trial.intermediate_values) == 4 for trial in trials)
    assert gone == []
