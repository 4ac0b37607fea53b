"""Rounds of ranking: what reaches a prediction of lists, and what must not."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from metarec.episodes import EpisodeSettings
from metarec.episodes.ranking import RankingSettings, _small_worlds
from metarec.errors import InputError
from metarec.evaluation.measures import RANKING
from metarec.ratings import Domain, RatingScale
from metarec.transfer import STRATEGIES, RankingRounds, TransferSettings, competitors, predict_round
from metarec.transfer.rounds import REGIMES
from metarec.transfer.strategies.parts.mixing import mixing_of

SETTINGS = EpisodeSettings(min_query=2, folds=2)
LISTS = RankingSettings(candidates=10, negatives=2)
BASES = {"popularity": {}, "item-knn": {}, "ease": {}}
SHORT = TransferSettings(
    task="ranking",
    epochs=2,
    patience=1,
    folds=2,
    options={"hidden_dim": 8, "prediction_loss": "softmax"},
    stackers=("combsum",),
)


def events(name, num_users=50, num_items=40, seed=0):
    """Two groups of users, each with its own half of the items, in the order of time; early items are popular."""
    rng = np.random.default_rng(seed)
    rows = []
    for user in range(num_users):
        half = np.arange(num_items // 2) + (user % 2) * (num_items // 2)
        chances = 1 / (np.arange(len(half)) + 2.0)
        chosen = rng.choice(half, rng.integers(8, 13), replace=False, p=chances / chances.sum())
        rows += [(f"{name}{user:02d}", f"i{item:02d}", 1.0, 1000.0 * time + user) for time, item in enumerate(chosen)]
    return Domain(name, pd.DataFrame(rows, columns=["user", "item", "weight", "timestamp"]), feedback="implicit")


def rated(name, seed):
    """The same kind of table with a rating in place of the weight."""
    table = events(name, seed=seed).ratings.drop(columns="weight")
    rating = np.random.default_rng(seed).integers(1, 6, len(table)).astype(float)
    return Domain(name, table.assign(rating=rating), RatingScale(1, 5))


@pytest.fixture(scope="module")
def domains():
    return {"shop": events("shop", seed=0), "films": rated("films", 1), "songs": events("songs", seed=2)}


def rounds_of(domains):
    return RankingRounds(domains, (3,), SETTINGS, ranking=LISTS, bases=BASES)


def given(domains, regime="everything", **options):
    return rounds_of(domains).round("shop", **{"shots": 3, "target_users": 10, "regime": regime, **options})


def with_other_items(domain, chosen, seed=0):
    """The domain with other items of the catalogue in the rows that `chosen` accepts by user and item."""
    rng = np.random.default_rng(seed)
    table = domain.ratings.copy()
    for user, own in table.groupby("user"):
        rows = [row for row, item in own["item"].items() if chosen(user, item)]
        kept = set(own["item"]) - set(own.loc[rows, "item"])
        free = [item for item in domain.item_index if item not in kept]
        table.loc[rows, "item"] = rng.choice(free, len(rows), replace=False)
    return replace(domain, ratings=table)


def inputs(episodes):
    """All inputs of a model, without the query's targets."""
    support, query = episodes.batch
    return [*support, *(tensor for name, tensor in query._asdict().items() if name != "targets")]


@pytest.fixture(scope="module")
def made(domains):
    return given(domains)


def test_roles_of_users_do_not_overlap(made, domains):
    for one in (made, given(domains, "labels")):
        tested = set(one.test.users)
        assert len(tested) >= 8
        assert 5 <= len(one.few) <= 10
        groups = [set(side.users) for side in (one.few, one.validation, one.test, one.more_users.train)]
        assert not groups[0] & groups[1]
        assert not groups[2] & (groups[0] | groups[1] | groups[3])
        for source in one.sources.values():
            assert source.train.task == "ranking"
            assert len(source.train) > 10
            assert not set(source.train.users) & set(source.validation.users)
            assert not len(source.test)


QUICK = ["scratch", "model_agnostic", "oracle", "combsum"]


@pytest.mark.parametrize(
    ("regime", "names"),
    [*((regime, QUICK) for regime in REGIMES), pytest.param("everything", None, marks=pytest.mark.slow)],
)
def test_test_users_query_events_move_no_prediction(domains, regime, names):
    one = given(domains, regime)
    query = {}
    table = domains["shop"].ratings.sort_values("timestamp")
    for user in one.test.users:
        query[user] = set(table[table["user"] == user]["item"].iloc[3:])
    other = with_other_items(domains["shop"], lambda user, item: item in query.get(user, ()))
    again = given({**domains, "shop": other}, regime)
    users = [user for user in one.test.users if user in set(again.test.users)]
    assert len(users) >= 6
    before, after = (
        torch.tensor([list(side.test.users).index(user) for user in users]).numpy() for side in (one, again)
    )
    targets = [side.test.batch.query.targets.numpy()[rows] for side, rows in ((one, before), (again, after))]
    assert not np.array_equal(*targets)
    for name in names or competitors("ranking"):
        found = [
            predict_round(name, side, SHORT, 0).predictions[rows] for side, rows in ((one, before), (again, after))
        ]
        np.testing.assert_array_equal(*found, err_msg=name)


def moved_by_others(domains):
    """Whether the inputs of few or test users move when the target's other users have other events."""
    one = given(domains)
    kept = {*rounds_of(domains)._draw_few("shop", 0, 10), *one.test.users}
    other = with_other_items(domains["shop"], lambda user, _: user not in kept)
    again = given({**domains, "shop": other})
    for side in ("few", "test"):
        own, new = getattr(one, side), getattr(again, side)
        if list(own.users) != list(new.users):
            return True
        for before, after in zip(inputs(own), inputs(new), strict=True):
            if before.shape != after.shape or not torch.equal(before.nan_to_num(9.0), after.nan_to_num(9.0)):
                return True
    return False


def test_events_of_the_targets_other_users_reach_no_base_and_no_statistic(domains, monkeypatch):
    assert not moved_by_others(domains)
    made_roles = _small_worlds.UserRoles

    def leaking(roles, folds, num_folds):
        """Validation users and other train users without a role, so that bases are fitted on them."""
        return made_roles({user: role for user, role in roles.items() if role != "validation"}, folds, num_folds)

    source = rounds_of(domains)._worlds("songs", 0, 10).source(3, 1)
    monkeypatch.setattr(_small_worlds.SmallRankingWorlds, "source", lambda self, shots, worlds: source)
    monkeypatch.setattr(_small_worlds, "UserRoles", leaking)
    assert moved_by_others(domains)


def test_a_source_with_reversed_lists_is_declined(made):
    def reversed_lists(episodes):
        query = episodes.batch.query
        scores = query.predictions.nan_to_num(0.5).mean(-1).masked_fill(~query.mask, torch.inf)
        last = torch.zeros_like(query.targets).scatter(1, scores.argsort(1)[:, :3], 1.0) * query.mask
        batch = episodes.batch._replace(query=query._replace(targets=last))
        relevant = np.maximum(last.sum(1).numpy().astype(int), 1)
        return replace(episodes, batch=batch, relevant=relevant)

    hostile = {
        name: replace(source, train=reversed_lists(source.train), validation=reversed_lists(source.validation))
        for name, source in list(made.sources.items())[:1]
    }
    patient = SHORT.model_copy(update={"epochs": 15, "patience": 15, "stackers": ("logistic",)})
    model = STRATEGIES.get("auto")(patient, seed=0).fit(hostile, made.few)
    reasons = model.reasons()
    assert reasons["untouched_gain"] < -mixing_of("ranking").hostile
    assert (reasons["transfers"], reasons["shares"]) == (False, reasons["instead"])
    plain = RANKING.unit_value(made.test, predict_round("combsum", made, SHORT, 0).predictions)
    assert RANKING.unit_value(made.test, model.predict(made.test)) > 0.9 * plain


def test_auto_gives_reasons_and_stack_is_auto_without_the_sources(made):
    auto, stack = (STRATEGIES.get(name)(SHORT, seed=0).fit(made.sources, made.few) for name in ("auto", "stack"))
    assert sum(auto.reasons()["shares"].values()) == pytest.approx(1)
    assert stack.reasons()["shares"] == auto.reasons()["instead"]
    assert set(auto.reasons()["instead"]) <= {"combsum", "best-single", "greedy", "rrf", "logistic"}
    assert len(auto.reasons()["sources"]["songs"]["gains_from_the_others"]) == 3


def test_a_few_users_without_a_relevant_candidate_are_an_error(domains):
    """Everyone has items of their own, so that bases propose nothing that others choose later."""
    table = domains["shop"].ratings
    alone = replace(domains["shop"], ratings=table.assign(item=table["user"] + table["item"]))
    with pytest.raises(InputError, match=r'domain "shop": the bases propose none .* give more target users'):
        given({**domains, "shop": alone})


def test_settings_of_another_task_are_an_error(made):
    with pytest.raises(InputError, match="settings must be of the round's task ranking but are of rating"):
        predict_round("scratch", made, TransferSettings(), 0)
