"""A study of transfer on lists: strategies are trials, compared by nDCG@10 on validation users."""

import json

import numpy as np
import pytest

from metarec.evaluation.measures import RANKING
from metarec.evaluation.metrics import METAREC
from metarec.study.job import run_study
from metarec.study.spec import StudySpec
from metarec.transfer import RankingRounds
from tests.study.test_transfer_study import SMALL
from tests.support.studies import reported
from tests.transfer.rounds.test_ranking_rounds import BASES, LISTS, events, rated

pytestmark = pytest.mark.slow

RANKED = {
    **SMALL,
    "task": "ranking",
    "target": "shop",
    "trials": 2,
    "episodes": {"shots": 3, "min_query": 2, "folds": 2},
    "ranking": LISTS.model_dump(),
    "bases": list(BASES),
    "baselines": ["best-single", "combsum"],
    "transfer": {"target_users": 10, "strategies": ["scratch", "zero_shot"]},
}


@pytest.fixture(scope="module")
def domains():
    return {"shop": events("shop"), "films": rated("films", 1), "songs": events("songs", seed=2)}


@pytest.fixture(scope="module")
def done(domains, new_folder):
    return run_study(StudySpec.model_validate(RANKED), domains, reported(new_folder(), "s"))


def test_trials_are_strategies_with_an_ndcg_on_validation_users(done):
    found = json.loads(json.dumps(done.to_json()))
    assert (found["metric"], found["direction"]) == ("ndcg@10", "maximize")
    assert [trial["params"]["strategy"] for trial in found["trials"]] == ["scratch", "zero_shot"]
    assert all(0 < trial["value"] <= 1 for trial in found["trials"])
    assert found["best"]["value"] == max(trial["value"] for trial in found["trials"])


def test_test_users_are_scored_by_the_best_trial_and_the_rankers(done, domains):
    proposed = done.to_json()["best"]["params"]["strategy"]
    (other,) = {"scratch", "zero_shot"} - {proposed}
    models = {METAREC, "stack", "stack-mean", "best-single", "combsum", *BASES, f"strategy {other}"}
    assert set(done.test["shop"].scores) == models
    spec = StudySpec.model_validate(RANKED)
    rounds = RankingRounds(domains, [3], spec.episodes, ranking=LISTS, bases=BASES)
    given = rounds.round("shop", shots=3, target_users=10)
    popularity = np.nan_to_num(given.test.batch.query.predictions.numpy()[..., 0], nan=0.5)
    expected = RANKING.unit_value(given.test, popularity)
    assert done.test["shop"].scores["popularity"].values["ndcg@10"] == pytest.approx(expected)
    assert "Transfer raises the nDCG@10 of stack" in done.test["shop"].adds
