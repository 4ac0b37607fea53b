"""Trials in worker processes of one machine."""

from metarec.search.runners import Work, run_in_processes
from metarec.study.records import FileKeeper
from metarec.tracking import NullTracker
from tests.support.studies import opened, prepared, tiny_spec


def test_workers_share_the_tensors_of_an_objective(movies, tmp_path):
    spec = tiny_spec(target="movies")
    run = NullTracker().start_study("s", params={})
    objective = prepared(spec, movies, tmp_path).objective(run, FileKeeper())
    tensors = [
        tensor
        for batch in (objective.validation.batch, objective.train["movies"].batch)
        for inputs in batch
        for tensor in inputs
    ]
    assert not any(tensor.is_shared() for tensor in tensors)
    journal = str(tmp_path / "optuna.journal")
    study = opened(spec, "s", journal)
    reported = []
    work = Work.of(study, journal, objective, NullTracker())
    run_in_processes(2, study, work, lambda trial: reported.append(trial.number))
    assert sorted(reported) == [0, 1, 2]
    # They are in shared memory, which each worker maps.
    assert all(tensor.is_shared() for tensor in tensors)
    assert [trial.value for trial in study.trials] == [objective.value_of(trial.params) for trial in study.trials]
