"""The settings of bases are tuned on validation users, and no test user has a part in it."""

from functools import partial

import numpy as np
import optuna
import pandas as pd
import pytest
import torch

from metarec.bases import BASES, Choices, Range, searched_settings
from metarec.bases.lenskit import BiasRecommender
from metarec.bases.ranking import RANKING_BASES
from metarec.episodes import EpisodeSettings, assign_roles, build_episodes
from metarec.episodes._split import UserRoles
from metarec.episodes.ranking import RankingSettings, build_ranking_episodes
from metarec.errors import InputError
from metarec.evaluation.metrics import base_unit_predictions
from metarec.meta import judge_of
from metarec.ratings import Domain, simulate_implicit_domains
from metarec.search import REASON, error_of
from metarec.search.storage import open_storage
from metarec.search.trials import join_study
from metarec.study.bases import BaseSearch, _tuning, tune_bases, tuned_bases

EPISODES = EpisodeSettings(shots=5, min_query=4, max_query=12, folds=2)


@pytest.fixture(scope="module")
def shop():
    return simulate_implicit_domains(0, num_users=60, num_items=150)["shop"]


@pytest.fixture(scope="module", params=["rating", "ranking"])
def given(request, world, shop):
    """The task, its domain, and bases that are quick."""
    if request.param == "rating":
        return request.param, world["movies"], {"bias": {}}
    return request.param, shop, {"popularity": {}, "item-knn": {"weights": "binary"}}


def search_of(given, folder, *, trials=3, seed=0, bases=None, domain=None):
    task, own, usual = given
    domain = domain or own
    roles = assign_roles({domain.name: domain}, domain.name, EPISODES, seed)
    storage = str(folder / "optuna.journal")
    return BaseSearch("study", storage, domain, roles, task, EPISODES, bases or usual, trials, seed)


def tuned(given, folder, **options):
    """Base -> (params, value) of each trial, and the chosen options."""
    found = tune_bases(search_of(given, folder, **options))
    return {
        name: ([(trial.params, error_of(trial)) for trial in own.trials], dict(own.options))
        for name, own in found.items()
    }


def other_test_users(domain, seed=0):
    """The same domain, in which test users have chosen other items."""
    roles = assign_roles({domain.name: domain}, domain.name, EPISODES, seed).roles
    rows = domain.ratings.copy()
    of_test = rows["user"].map(roles).eq("test").to_numpy()
    assert of_test.any()
    # Among the items of the other users, so that the catalogue is the same.
    items = np.unique(rows["item"][~of_test])
    rng = np.random.default_rng(1)
    for user in rows["user"][of_test].unique():
        own = (rows["user"] == user).to_numpy()
        rows.loc[own, "item"] = rng.choice(items, own.sum(), replace=False)
    if domain.feedback == "explicit":
        rows.loc[of_test, "rating"] = domain.scale.low
    return Domain(domain.name, rows, domain.scale, items=domain.items, feedback=domain.feedback)


def test_test_users_move_no_trial(given, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (first, second):
        folder.mkdir()
    assert tuned(given, first) == tuned(given, second, domain=other_test_users(given[1]))


def test_a_planted_fit_on_test_users_is_detected(given, tmp_path, monkeypatch):
    honest = UserRoles.held_out

    def leaking(roles, fold):
        return {user for user in honest(roles, fold) if roles.roles[user] != "test"}

    monkeypatch.setattr(UserRoles, "held_out", leaking)
    with pytest.raises(AssertionError):
        test_test_users_move_no_trial(given, tmp_path)


def test_a_planted_score_on_test_users_is_detected(given, tmp_path, monkeypatch):
    from metarec.episodes import _split
    from metarec.episodes.builders import _build
    from metarec.episodes.ranking import _validation

    def leaking(domain, roles, settings, seed):
        return [cut for cut in _split.cut_tasks(domain, roles, settings, seed) if roles.roles[cut.task.user] == "test"]

    for module in (_build, _validation):
        monkeypatch.setattr(module, "validation_cuts", leaking)
    # Test users have every place of the validation users.
    with pytest.raises(AssertionError):
        test_test_users_move_no_trial(given, tmp_path)


def test_the_defaults_have_the_value_that_the_base_has_in_the_study(given, tmp_path):
    task, domain, bases = given
    search = search_of(given, tmp_path, trials=1)
    arguments = {domain.name: domain}, domain.name, EPISODES
    if task == "rating":
        validation = build_episodes(*arguments, bases=bases)[domain.name].validation
    else:
        built = build_ranking_episodes(*arguments, RankingSettings(candidates=20), bases)
        validation = built[domain.name].validation
    predictions = base_unit_predictions(validation)
    for name, own in tune_bases(search).items():
        error = judge_of([validation])([torch.from_numpy(predictions[name])], [validation.batch.query])
        assert error_of(own.usual) == pytest.approx(error, rel=1e-4)


def test_the_first_trial_has_the_defaults_and_what_is_given_stays(given, tmp_path):
    registry = BASES if given[0] == "rating" else RANKING_BASES
    for name, own in tune_bases(search_of(given, tmp_path)).items():
        fixed = given[2][name]
        defaults = registry.get(name).Config().model_dump()
        assert own.trials[0] is own.usual
        assert own.usual.params == {key: defaults[key] for key in own.usual.params}
        assert not set(fixed) & set(own.usual.params)
        assert len(own.trials) == 3
        assert own.options == {**fixed, **own.best.params}
        assert error_of(own.best) == min(map(error_of, own.trials)) <= error_of(own.usual)


def test_a_base_whose_options_are_all_given_is_not_tuned(given, tmp_path):
    name = {"rating": "bias", "ranking": "popularity"}[given[0]]
    options = {"rating": {"damping": 2.0}, "ranking": {"half_life": 10.0}}[given[0]]
    assert tune_bases(search_of(given, tmp_path, bases={name: options})) == {}


class Killed(BaseException):
    """The end of a process in the middle of a trial."""


def test_a_killed_search_goes_on_without_repeating_trials(given, tmp_path, monkeypatch):
    honest, scored = BaseSearch._score, []

    def counting(search, name, chosen):
        scored.append((name, *chosen.items()))
        if len(scored) == 3:
            raise Killed
        return honest(search, name, chosen)

    monkeypatch.setattr(BaseSearch, "_score", counting)
    search = search_of(given, tmp_path, trials=4)
    with pytest.raises(Killed):
        tune_bases(search)
    with pytest.raises(InputError, match=r"has . of 4 trials: the process that began the study is still tuning"):
        tuned_bases(search)
    assert all(len(own.trials) == 4 for own in tune_bases(search).values())
    # The killed trial is the only one that is run again, and with the same settings.
    assert scored[2] == scored[3]
    del scored[2]
    assert len(scored) == len(set(scored))


@pytest.mark.slow
def test_processes_find_the_same(given, tmp_path):
    alone, shared = tmp_path / "alone", tmp_path / "shared"
    for folder in (alone, shared):
        folder.mkdir()
    expected = tuned(given, alone)
    found = tune_bases(search_of(given, shared), jobs=2)
    assert {name: dict(own.options) for name, own in found.items()} == {
        name: options for name, (_, options) in expected.items()
    }


def test_other_data_does_not_continue_a_search(given, tmp_path):
    tune_bases(search_of(given, tmp_path, trials=1))
    with pytest.raises(InputError, match="was begun with other data or settings"):
        tune_bases(search_of(given, tmp_path, trials=1, seed=5))


def test_settings_with_which_a_base_fails_are_recorded_as_failed(tmp_path, world, monkeypatch):
    honest = BiasRecommender.fit

    def failing(base, domain):
        if base.config.damping != 5.0:
            raise ZeroDivisionError("no luck")
        return honest(base, domain)

    monkeypatch.setattr(BiasRecommender, "fit", failing)
    given = "rating", world["movies"], {"bias": {}}
    own = tune_bases(search_of(given, tmp_path))["bias"]
    assert [trial.state.name for trial in own.trials] == ["COMPLETE", "FAIL", "FAIL"]
    assert "no luck" in own.trials[1].user_attrs[REASON]
    assert own.options == {"damping": 5.0}


def test_a_base_that_fails_with_its_defaults_ends_the_study(tmp_path, world, monkeypatch):
    def failing(base, domain):
        raise ZeroDivisionError("no luck")

    monkeypatch.setattr(BiasRecommender, "fit", failing)
    with pytest.raises(InputError, match='base recommender "bias" fails on domain "movies": ZeroDivisionError'):
        tune_bases(search_of(("rating", world["movies"], {"bias": {}}), tmp_path))


@pytest.mark.parametrize(
    ("searched", "problem"),
    [
        (
            {"width": Range(1, 5)},
            'searched names "width", which must be an option with a default; did you mean "widht"',
        ),
        ({"widht": (1, 5)}, 'must give a Range or Choices of metarec.bases for "widht" but gives'),
        ({"widht": Range(1, 2)}, 'must hold the default of "widht", 3, but is Range'),
        ({"widht": Choices(("a",))}, 'must hold the default of "widht", 3, but is Choices'),
    ],
)
def test_what_a_plug_in_may_not_search(searched, problem, monkeypatch):
    class Plugged:
        def __init__(self, must, widht=3):
            pass

    Plugged.searched = searched
    monkeypatch.setattr(BASES, "get", lambda name: Plugged)
    with pytest.raises(InputError) as caught:
        searched_settings(BASES, "plugged", {})
    assert problem in str(caught.value)
    assert 'base recommender "plugged"' in str(caught.value)


def test_a_plug_in_without_searched_is_left_as_it_is(monkeypatch):
    monkeypatch.setattr(BASES, "get", lambda name: partial(pd.DataFrame))
    assert searched_settings(BASES, "plugged", {}) == {}


@pytest.mark.parametrize("registry", [BASES, RANKING_BASES], ids=["rating", "ranking"])
def test_a_search_may_vary_settings_of_every_built_in_base(registry):
    for name in registry.builtins():
        settings = searched_settings(registry, name, {})
        assert settings
        kind = registry.get(name)
        for setting, own in settings.items():
            values = own.limits.values if isinstance(own.limits, Choices) else own.limits[:2]
            for value in values:
                kind(**{setting: value})


def test_a_study_of_a_base_stands_beside_the_others(given, tmp_path):
    search = search_of(given, tmp_path, trials=1)
    tune_bases(search)
    names = optuna.get_all_study_names(open_storage(search.storage))
    assert sorted(names) == sorted(f"study.bases.{name}" for name in given[2])
    assert _tuning.study_of("study", "bias") == "study.bases.bias"
    for name in names:
        assert len(join_study(name, search.storage).trials) == 1
