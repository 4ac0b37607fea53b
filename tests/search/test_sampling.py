"""Samplers, the first trials from earlier studies, and studies of two objectives."""

import hypothesis.strategies as st
import optuna
import pytest
from hypothesis import given, settings
from optuna.trial import TrialState, create_trial

from metarec.errors import InputError
from metarec.fusion.space import Choice, IntRange, RealRange
from metarec.search.sampling import SAMPLERS
from metarec.search.trials import run_trials
from metarec.search.warm_start import APART, COUNT, best_configurations
from metarec.study.spec import StudySpec
from tests.search.test_search import SPEC, Plain, ignored
from tests.support.studies import opened, warm_started

SPACE = {
    "rate": RealRange(low=1e-3, high=1.0, log=True),
    "steps": IntRange(first=0, last=3),
    "loss": Choice(choices=["mse", "mae"]),
}
USUAL = {"rate": 0.1, "steps": 1, "loss": "mse"}


@pytest.mark.parametrize("objectives", [["error"], ["error", "seconds"]], ids=" ".join)
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_draw_depends_on_the_trials_before_it_and_not_on_the_process(tmp_path, sampler, objectives, monkeypatch):
    # Not measured, so that both studies have the same times.
    monkeypatch.setattr("metarec.study.records._trial.seconds_per_prediction", lambda answer, users: 1.0 / users)
    spec = SPEC.model_copy(update={"sampler": sampler, "objectives": objectives})
    drawn = []
    for how in ("in one go", "in pieces"):
        for trials in [13] if how == "in one go" else [1, 4, 11, 13]:
            study = opened(spec.model_copy(update={"trials": trials}), "s", str(tmp_path / how), "identity")
            assert len(study.directions) == len(objectives)
            run_trials(study, Plain(spec), ignored)
        drawn.append([trial.params for trial in study.trials])
    assert drawn[0] == drawn[1]
    assert len({str(params) for params in drawn[0]}) == 13


def test_samplers_learn_from_earlier_trials(tmp_path):
    drawn = {}
    for sampler in SAMPLERS:
        spec = SPEC.model_copy(update={"sampler": sampler, "trials": 24})
        study = opened(spec, "s", str(tmp_path / sampler), "identity")
        run_trials(study, Plain(spec), ignored)
        # The value is the outer rate, so a sampler that learns draws from its lower end.
        drawn[sampler] = sorted(trial.params["outer_lr"] for trial in study.trials[12:])[6]
    assert drawn["tpe"] < drawn["random"] / 2
    assert drawn["gp"] < drawn["random"] / 2


def ended(value, **params):
    kinds = {
        "rate": optuna.distributions.FloatDistribution(1e-4, 10.0, log=True),
        "steps": optuna.distributions.IntDistribution(0, 9),
        "loss": optuna.distributions.CategoricalDistribution(["mse", "mae", "huber"]),
        "width": optuna.distributions.IntDistribution(0, 9),
    }
    return create_trial(value=value, params=params, distributions={name: kinds[name] for name in params})


def test_the_best_of_each_earlier_study_come_in_turn_and_fit_the_new_space():
    one = [
        ended(0.9, rate=0.5, steps=0, loss="mae"),
        ended(0.1, rate=5.0, steps=7, loss="huber", width=3),
        ended(0.2, rate=4.0, steps=7, loss="huber", width=3),
    ]
    other = [ended(7.0, rate=0.002)]
    assert best_configurations([one, other], SPACE, USUAL) == [
        {"rate": 1.0, "steps": 3, "loss": "mse"},
        {"rate": 0.002, "steps": 1, "loss": "mse"},
        # The second of the first study is moved to the same place, so its third comes.
        {"rate": 0.5, "steps": 0, "loss": "mae"},
    ]


trials_of_a_study = st.lists(
    st.builds(
        ended,
        st.floats(0, 1),
        rate=st.floats(1e-4, 10.0),
        steps=st.integers(0, 9),
        loss=st.sampled_from(["mse", "mae", "huber"]),
    ),
    max_size=12,
)


@settings(deadline=None, max_examples=50)
@given(st.lists(trials_of_a_study, max_size=3))
def test_configurations_that_are_carried_over_lie_in_the_space_and_apart(earlier):
    chosen = best_configurations(earlier, SPACE, USUAL, but=[USUAL])
    assert len(chosen) <= COUNT
    for params in chosen:
        assert params.keys() == SPACE.keys()
        assert all(SPACE[name].holds(value) for name, value in params.items())
    everything = [USUAL, *chosen]
    for place, params in enumerate(everything):
        for other in everything[:place]:
            assert max(abs(SPACE[name].place(params[name]) - SPACE[name].place(other[name])) for name in SPACE) >= APART


def test_a_study_tries_first_what_was_best_in_another(tmp_path):
    journal = str(tmp_path / "optuna.journal")
    spec = SPEC.model_copy(update={"trials": 12})
    before = opened(spec, "movies", journal, "movies")
    run_trials(before, Plain(spec), ignored)
    spec = spec.model_copy(update={"trials": 6, "warm_start": ["movies"], "sampler": "random"})
    study = opened(spec, "books", journal, "books", warm_started(spec, "books", journal))
    run_trials(study, Plain(spec), ignored)
    assert study.trials[0].params == spec.trial_zero
    best = sorted(before.trials, key=lambda trial: trial.value)[0]
    assert study.trials[1].params == best.params
    # A resumed study has tried them already.
    assert warm_started(spec, "books", journal) == spec.first_trials
    begun = len(study.trials)
    opened(spec, "books", journal, "books", warm_started(spec, "books", journal))
    assert len(study.get_trials()) == begun


def test_an_earlier_study_that_is_not_there_is_named(tmp_path):
    journal = str(tmp_path / "optuna.journal")
    spec = SPEC.model_copy(update={"warm_start": ["movis"]})
    with pytest.raises(
        InputError, match='warm_start: study "movis" is not in the storage of this one; it has no study'
    ):
        warm_started(spec, "books", journal)
    assert not (tmp_path / "optuna.journal").exists()
    opened(SPEC, "movies", journal, "identity")
    with pytest.raises(InputError, match='study "movis" is not in the storage of this one; did you mean "movies"'):
        warm_started(spec, "books", journal)
    with pytest.raises(InputError, match='study "movies" has no complete trial'):
        warm_started(spec.model_copy(update={"warm_start": ["movies"]}), "books", journal)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"sampler": "grid"}, "sampler"),
        ({"objectives": ["seconds"], "pruner": "none"}, r"objectives must be \[error\] or \[error, seconds\] but got"),
        ({"objectives": ["error", "seconds"], "pruner": "median"}, "several objectives need pruner: none"),
    ],
)
def test_an_impossible_search_is_refused(changes, problem):
    with pytest.raises(ValueError, match=problem):
        StudySpec(bases={"bias": {}}, **changes)


def test_a_trial_of_two_objectives_has_two_values(tmp_path):
    spec = SPEC.model_copy(update={"objectives": ["error", "seconds"]})
    study = opened(spec, "s", str(tmp_path / "optuna.journal"), "identity")
    predicted = []

    class Slow(Plain):
        users = 3

        def _evaluate(self, trial, params, record):
            result = super()._evaluate(trial, params, record)
            return result._replace(predict_one=lambda user: predicted.append(user) or 2)

    run_trials(study, Slow(spec), ignored)
    assert [trial.state for trial in study.trials] == [TrialState.COMPLETE] * 5
    assert all(
        error == trial.params["outer_lr"] and seconds > 0 for trial in study.trials for error, seconds in [trial.values]
    )
    assert set(predicted) == {0, 1, 2}
