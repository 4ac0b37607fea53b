"""Pruners: the values that trials report, the trials that are stopped, and nothing else that changes."""

import optuna
import pytest
import torch

from metarec.search.pruning import PRUNERS, WARM_UP, progress_of
from metarec.study.job import run_study
from metarec.study.networks import NetworkObjective
from metarec.study.records import facts_of
from metarec.tracking import NullTracker
from tests.support.studies import reported, runs_of, tiny_spec

EPOCHS = 25


@pytest.fixture(scope="module")
def episodes(movies, new_folder):
    from metarec.episodes import build_episodes

    spec = tiny_spec(target="movies")
    return build_episodes(movies, "movies", spec.episodes, spec.bases, seed=0, cache=new_folder(), jobs=1)


class Off:
    """A learner whose predictions are off by about `error` for each user."""

    def __init__(self, error, spread, seed):
        self.error, self.spread = error, spread
        self.noise = torch.Generator().manual_seed(seed)

    def adapt(self, support):
        return self

    def predict(self, query):
        users = len(query.targets)
        return query.targets + self.error + self.spread * torch.randn(users, 1, generator=self.noise)


def study_with(pruner):
    return optuna.create_study(pruner=PRUNERS[pruner](EPOCHS))


def epochs_until_end(study, validation, error, pruner="wilcoxon", epochs=EPOCHS, spread=0.001):
    """Run a trial whose predictions are off by about `error`; the number of its epochs."""
    trial = study.ask()
    learner = Off(error, spread, trial.number)
    progress = progress_of(trial, pruner, validation, epochs=EPOCHS, seed=0)
    for epoch in range(epochs):
        try:
            progress.after_epoch(epoch, error, learner)
        except optuna.TrialPruned:
            study.tell(trial, state=optuna.trial.TrialState.PRUNED)
            return epoch
    progress.at_end(learner)
    study.tell(trial, error)
    return epochs


def test_wilcoxon_stops_a_trial_that_is_worse_on_the_same_users(episodes):
    validation = episodes["movies"].validation
    study = study_with("wilcoxon")
    # The first one ends early, and still reports all of its users.
    assert epochs_until_end(study, validation, 0.2, epochs=7) == 7
    assert set(study.trials[0].intermediate_values) == set(range(len(validation)))
    assert WARM_UP < epochs_until_end(study, validation, 0.25) < EPOCHS
    assert epochs_until_end(study, validation, 0.1) == EPOCHS
    users = study.trials[1].intermediate_values
    assert 1 < len(users) < len(validation)
    assert all(abs(error - 0.25) < 0.01 for error in users.values())


def test_wilcoxon_keeps_a_trial_that_is_no_worse(episodes):
    validation = episodes["movies"].validation
    study = study_with("wilcoxon")
    ends = [epochs_until_end(study, validation, 0.2, spread=0.05) for _ in range(20)]
    # Its threshold stops one equal trial in ten by chance; more, because it is tested after each epoch.
    assert ends.count(EPOCHS) >= 10


def test_the_median_compares_epochs(episodes):
    validation = episodes["movies"].validation
    study = study_with("median")
    assert [epochs_until_end(study, validation, error, "median") for error in (0.2, 0.21, 0.22, 0.23)] == [EPOCHS] * 4
    assert epochs_until_end(study, validation, 0.3, "median") == WARM_UP
    assert epochs_until_end(study, validation, 0.1, "median") == EPOCHS


def test_hyperband_gives_most_of_its_epochs_to_the_best(episodes):
    validation = episodes["movies"].validation
    study = study_with("hyperband")
    errors = torch.rand(30, generator=torch.Generator().manual_seed(0)).tolist()
    ends = [epochs_until_end(study, validation, error, "hyperband") for error in errors]
    assert min(ends) < EPOCHS
    best = sorted(range(30), key=errors.__getitem__)
    assert sum(ends[place] for place in best[:10]) > sum(ends[place] for place in best[-10:])


@pytest.mark.parametrize("pruner", PRUNERS)
def test_training_does_not_depend_on_the_pruner(episodes, tmp_path, pruner):
    training = {"epochs": 8, "patience": 8}
    spec = tiny_spec(target="movies", pruner=pruner, training=training)
    run = NullTracker().start_study("s", params={})
    train = {name: domain.train for name, domain in episodes.items()}
    objective = NetworkObjective(spec, train, episodes["movies"].validation, run, tmp_path)
    study = study_with(pruner)
    study.enqueue_trial(spec.trial_zero)
    study.optimize(objective, n_trials=1)
    assert study.trials[0].values == [objective.value_of(spec.trial_zero)]
    (facts,) = facts_of(study)
    assert bool(facts.curve) == (pruner != "wilcoxon")


@pytest.fixture(scope="module")
def timed(movies, new_folder):
    """A finished study of two objectives: (result, folder)."""
    spec = tiny_spec(target="movies", objectives=["error", "seconds"], trials=5)
    folder = new_folder()
    return run_study(spec, movies, reported(folder, "timed")), folder


def test_no_trial_beats_one_of_the_front_in_both_objectives(timed):
    result, _ = timed
    front = {line.trial for line in result.front}
    assert front
    for line in result.timed:
        beaten = [
            other
            for other in result.timed
            if other.error <= line.error and other.seconds <= line.seconds and other[1:] != line[1:]
        ]
        assert (line.trial in front) == (not beaten)
    assert result.best.number == result.front[0].trial


def test_both_objectives_are_on_record(timed):
    result, folder = timed
    client, (parent,), children = runs_of(folder)
    assert len(children) == 5
    for line, child in zip(sorted(result.timed), children, strict=True):
        assert child.data.metrics["validation_unit_rmse"] == line.error
        assert child.data.metrics["seconds_per_prediction"] == line.seconds
        assert 1e-7 < line.seconds < 1
    assert "### Pareto front" in parent.data.tags["mlflow.note.content"]
    assert "pareto_front.png" in [file.path for file in client.list_artifacts(parent.info.run_id)]
    written = result.to_json()
    assert [line["number"] for line in written["front"]] == [line.trial for line in result.front]
    assert written["best"]["value"] == result.front[0].error
