"""The number of trials of a study in one process and in several, and trials whose process is gone."""

import errno
import multiprocessing
import os
import signal
import time

import optuna
import pytest
from optuna.trial import TrialState

from metarec.errors import InputError
from metarec.meta import NonFiniteLossError
from metarec.search import REASON
from metarec.search import trials as search_module
from metarec.search.runners.processes import stopping_politely
from metarec.search.trials import IDENTITY, counted_trials, equip, join_study, run_trials
from metarec.search.trials import SPEC as STORED_SPEC
from metarec.study.records import RecordedObjective, TrialResult
from metarec.study.spec import StudySpec
from metarec.tracking import NullTracker
from tests.support.studies import opened

SPEC = StudySpec(trials=5, pruner="none", bases={"bias": {}})


def ignored(trial):
    pass


class Plain(RecordedObjective):
    """A trial takes no time, and its value is its outer rate."""

    def __init__(self, spec=SPEC, run=None, act=ignored):
        super().__init__(spec, run or NullTracker().start_study("s", params={}))
        self.act = act

    users = 1

    def recorded_by(self, run):
        return Plain(self.spec, run, self.act)

    def value_of(self, params):
        return params["outer_lr"]

    def _evaluate(self, trial, params, record):
        self.act(trial)
        return TrialResult(self.value_of(params), NoFiles(), lambda user: 1)


class NoFiles:
    def write(self, folder, reporter):
        pass


def states(study):
    return [trial.state.name for trial in study.get_trials(deepcopy=False)]


@pytest.fixture
def journal(tmp_path):
    return str(tmp_path / "optuna.journal")


def begun(journal, **changes):
    return opened(SPEC.model_copy(update=changes), "s", journal)


def joined(journal):
    study = join_study("s", journal)
    equip(study, SPEC.search_settings)
    return study


def test_a_study_has_as_many_trials_as_are_wanted_and_goes_on(journal):
    assert run_trials(begun(journal), Plain(), ignored) == 5
    assert run_trials(begun(journal), Plain(), ignored) == 0
    study = begun(journal, trials=7)
    assert run_trials(study, Plain(), ignored) == 2
    assert states(study) == ["COMPLETE"] * 7
    assert study.trials[0].params == SPEC.trial_zero


def _worker(journal):
    study = joined(journal)
    run_trials(study, Plain(act=lambda trial: time.sleep(0.01)), ignored)


def test_several_processes_together_run_exactly_as_many(journal):
    study = begun(journal, trials=12)
    context = multiprocessing.get_context("fork")
    crew = [context.Process(target=_worker, args=(journal,)) for _ in range(3)]
    for process in crew:
        process.start()
    for process in crew:
        process.join(120)
        assert process.exitcode == 0
    assert len(counted_trials(study)) == 12
    assert {state for state in states(study) if state != "FAIL"} == {"COMPLETE"}
    drawn = [tuple(trial.params.items()) for trial in counted_trials(study)]
    assert len(set(drawn)) == 12


def test_of_two_processes_that_begin_the_last_trial_one_gives_way(journal, monkeypatch):
    """The trial with the lower number counts."""
    study = begun(journal, trials=1)
    others = optuna.load_study(study_name="s", storage=study._storage)
    reached = []

    def second(trial):
        if not reached:
            reached.append(trial.number)
            others.optimize(search_module._checked(others, Plain(), 1), n_trials=1, catch=(Exception,))

    run_trials(study, Plain(act=second), ignored)
    assert states(study) == ["COMPLETE", "FAIL"]
    assert [trial.number for trial in counted_trials(study)] == [0]


def test_only_a_trial_that_failed_by_itself_counts(journal):
    def fails(trial):
        if trial.number == 1:
            raise NonFiniteLossError("the meta-loss", float("nan"), 0, 0)

    study = begun(journal)
    assert run_trials(study, Plain(act=fails), ignored) == 5
    assert states(study) == ["COMPLETE", "FAIL", "COMPLETE", "COMPLETE", "COMPLETE"]
    assert study.trials[1].user_attrs[REASON].startswith("the meta-loss")

    def breaks(trial):
        raise RuntimeError("the store is gone")

    study = begun(journal, trials=6)
    with pytest.raises(RuntimeError, match="the store is gone"):
        run_trials(study, Plain(act=breaks), ignored)
    assert len(counted_trials(study)) == 5
    broken = study.trials[5]
    assert run_trials(study, Plain(), ignored) == 1
    assert study.trials[6].params == broken.params
    assert study.trials[6].user_attrs["again"] == 5


def test_a_value_that_is_no_number_is_a_failure_that_counts(journal, monkeypatch):
    monkeypatch.setattr(Plain, "value_of", lambda self, params: float("nan"))
    study = begun(journal, trials=2)
    assert run_trials(study, Plain(), ignored) == 2
    assert states(study) == ["FAIL", "FAIL"]


def _dies(journal, place):
    study = joined(journal)

    def act(trial):
        if trial.number == place:
            os.kill(os.getpid(), signal.SIGKILL)

    run_trials(study, Plain(act=act), ignored)


@pytest.mark.parametrize("place", [0, 2])
def test_a_killed_trial_is_tried_again(journal, place):
    study = begun(journal, trials=4)
    process = multiprocessing.get_context("fork").Process(target=_dies, args=(journal, place))
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    time.sleep(1.1)
    run_trials(study, Plain(), ignored)
    killed = study.trials[place]
    assert killed.state == TrialState.FAIL
    assert REASON not in killed.user_attrs
    again = [trial for trial in study.trials if trial.user_attrs.get("again") == place]
    assert [trial.params for trial in again] == [killed.params]
    assert len(counted_trials(study)) == 4


def test_a_trial_whose_end_cannot_be_written_raises_the_reason_and_is_tried_again(journal, monkeypatch):
    """A disk that is full at the very end of a trial."""
    study = begun(journal, trials=1)
    storage = type(study._storage)
    write = storage.set_trial_state_values

    def full(self, trial_id, state, values=None):
        if state == TrialState.COMPLETE:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(self, trial_id, state, values)

    monkeypatch.setattr(storage, "set_trial_state_values", full)
    with pytest.raises(OSError, match="No space left on device"):
        run_trials(study, Plain(), ignored)
    monkeypatch.undo()
    # As if the process were gone: it releases the trial's lock.
    for lock in study._storage.held.values():
        lock.release()
    time.sleep(1.1)
    again = begun(journal, trials=1)
    assert run_trials(again, Plain(), ignored) == 1
    assert states(again) == ["FAIL", "COMPLETE"]


def test_no_trial_begins_after_the_deadline_or_a_stop(journal):
    study = begun(journal)
    assert run_trials(study, Plain(), ignored, deadline=time.monotonic()) == 0
    seen = []
    assert run_trials(study, Plain(), seen.append, stopping=lambda: len(seen) == 2) == 2


def test_only_an_existing_study_can_be_joined(journal):
    with pytest.raises(InputError, match='"s" is not in the storage, which has no study yet'):
        join_study("s", journal)
    begun(journal)
    attributes = join_study("s", journal).user_attrs
    assert (StudySpec.model_validate(attributes[STORED_SPEC]), attributes[IDENTITY]) == (SPEC, "identity")
    with pytest.raises(InputError, match='"t" is not in the storage, which has s'):
        join_study("t", journal)


def requested_twice(first, second, requests):
    with stopping_politely(lambda: requests.append(first)) as stopping:
        assert not stopping()
        signal.raise_signal(first)
        assert stopping()
        if second is not None:
            signal.raise_signal(second)
            requests.append("goes on")


@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("second", [None, signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_requests_a_stop_and_the_second_interrupts(first, second):
    requests = []
    with pytest.raises(KeyboardInterrupt):
        requested_twice(first, second, requests)
    assert requests == [first]
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize("name", ["quickstart", "cold-start", "transfer"])
def test_a_spec_survives_the_storage(name, journal):
    from metarec.study.spec import load_spec

    spec = load_spec(name, {})
    opened(spec, "s", journal)
    assert StudySpec.model_validate(join_study("s", journal).user_attrs[STORED_SPEC]) == spec
