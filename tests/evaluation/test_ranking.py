"""The metrics of ranking, against definitions written out, scikit-learn, and planted faults."""

import math

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import ndcg_score

from metarec.errors import InputError
from metarec.evaluation.measures import RANKING
from metarec.evaluation.metrics import base_unit_predictions
from metarec.evaluation.ranking import (
    NDCG,
    RANKING_METRICS,
    catalogue_coverage,
    paired_ndcg_gains,
    ranking_rows,
    top_lists,
)
from metarec.fusion.ranks import RankingJudge, RelevantRanks, hit, mrr, ndcg, recall, standard_scores
from tests.support.ranking import ranking_episodes


@pytest.fixture(scope="module")
def episodes():
    return ranking_episodes(tasks=40, candidates=30, seed=5, silent=0.3).test


def by_hand(scores, targets, mask, relevant):
    """Every metric of each user, from the list itself."""
    table = {name: [] for name in RANKING_METRICS}
    for own, is_relevant, inside, number in zip(scores, targets, mask, relevant, strict=True):
        columns = sorted(np.flatnonzero(inside), key=lambda column: (-own[column], column))
        hits = [bool(is_relevant[column]) for column in columns]
        for k in (5, 10, 20):
            gained = sum(1 / math.log2(place + 2) for place, one in enumerate(hits[:k]) if one)
            table[f"ndcg@{k}"].append(gained / sum(1 / math.log2(place + 2) for place in range(min(k, number))))
        table["recall@20"].append(sum(hits[:20]) / number)
        table["mrr"].append(1 / (hits.index(True) + 1) if True in hits else 0.0)
        table["hit@10"].append(float(any(hits[:10])))
    return table


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.booleans())
def test_metrics_are_their_definitions_also_with_ties_and_padding(seed, tied):
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, 4, (6, 25)).astype(float) if tied else rng.normal(size=(6, 25))
    mask = np.arange(25) < rng.integers(0, 26, 6)[:, None]
    targets = (rng.random((6, 25)) < 0.2) * 1.0
    relevant = (targets * mask).sum(1).astype(int) + rng.integers(1, 15, 6)
    scores[~mask] = np.nan
    ranks = RelevantRanks.of(scores, targets, mask, relevant)
    for name, expected in by_hand(scores, targets, mask, relevant).items():
        np.testing.assert_allclose(RANKING_METRICS[name].of(ranks), expected, atol=1e-12, err_msg=name)


def test_ndcg_is_that_of_scikit_learn_where_every_relevant_item_is_a_candidate():
    rng = np.random.default_rng(0)
    scores, targets = rng.normal(size=(30, 40)), (rng.random((30, 40)) < 0.1) * 1.0
    targets[:, 0] = 1
    ranks = RelevantRanks.of(scores, targets, np.ones_like(targets, dtype=bool), targets.sum(1).astype(int))
    for k in (5, 10, 20):
        expected = [ndcg_score([one], [own], k=k) for one, own in zip(targets, scores, strict=True)]
        np.testing.assert_allclose(ndcg(ranks, k), expected)


def test_a_relevant_item_that_no_base_proposed_counts_as_missed():
    """A metric over candidates only is the planted fault: for it the list below is perfect."""
    scores, targets, mask = np.array([[2.0, 1.0]]), np.array([[1.0, 0.0]]), np.ones((1, 2), bool)
    found = RelevantRanks.of(scores, targets, mask, np.array([4]))
    over_candidates = RelevantRanks.of(scores, targets, mask, targets.sum(1).astype(int))
    assert ndcg(over_candidates)[0] == recall(over_candidates, 20)[0] == 1
    assert ndcg(found)[0] == pytest.approx(1 / sum(1 / math.log2(place + 2) for place in range(4)))
    assert recall(found, 20)[0] == 0.25
    assert mrr(found)[0] == hit(found, 10)[0] == 1


def test_a_user_whose_relevant_items_were_all_missed_has_zero():
    ranks = RelevantRanks.of(np.ones((1, 3)), np.zeros((1, 3)), np.ones((1, 3), bool), np.array([2]))
    assert [metric.of(ranks)[0] for metric in RANKING_METRICS.values()] == [0] * 6


def test_what_cannot_be_ranked_is_refused():
    mask = np.ones((1, 2), bool)
    with pytest.raises(InputError, match=r"at least one relevant item, .* place 0 has 0 and 0"):
        RelevantRanks.of(np.ones((1, 2)), np.zeros((1, 2)), mask, np.array([0]))
    with pytest.raises(InputError, match="place 0 has 1 and 2"):
        RelevantRanks.of(np.ones((1, 2)), np.ones((1, 2)), mask, np.array([1]))
    with pytest.raises(FloatingPointError, match="1 scores of candidates are not finite"):
        RelevantRanks.of(np.array([[1.0, np.nan]]), np.ones((1, 2)), mask, np.array([2]))


def test_many_candidates_are_compared_in_parts(monkeypatch):
    rng = np.random.default_rng(1)
    arguments = rng.normal(size=(20, 9)), np.ones((20, 9)), np.ones((20, 9), bool), np.full(20, 9)
    whole = RelevantRanks.of(*arguments).rank
    monkeypatch.setattr("metarec.fusion.ranks._COMPARED", 20)
    np.testing.assert_array_equal(RelevantRanks.of(*arguments).rank, whole)


def judged(episodes):
    best = {"metarec": episodes.batch.query.targets.numpy()}
    return RANKING.judge(episodes, best | base_unit_predictions(episodes))


def test_the_table_has_the_means_over_users(episodes):
    table = judged(episodes).scores
    assert list(table) == ["metarec", *episodes.base_names]
    query, own = episodes.batch.query, base_unit_predictions(episodes)["base1"]
    expected = by_hand(own, query.targets.numpy(), query.mask.numpy(), episodes.relevant)
    assert table["base1"].values == {name: pytest.approx(np.mean(expected[name])) for name in RANKING_METRICS}
    assert table["base1"].to_json()["n_users"] == len(episodes)
    # Even an order by relevance misses what no base proposed.
    assert table["base0"].values[NDCG] < table["metarec"].values[NDCG] < 1


def test_scores_that_are_not_finite_name_their_model(episodes):
    with pytest.raises(FloatingPointError, match=r"broken: .* not finite"):
        ranking_rows(episodes, {"broken": np.full(episodes.batch.query.mask.shape, np.inf)})


def test_a_gain_is_in_percent_of_the_opponent_and_paired_over_users(episodes):
    found = judged(episodes)
    gains, means = RANKING.gains(found.by_user), {name: own.values[NDCG] for name, own in found.scores.items()}
    for name in episodes.base_names:
        assert gains[name].percent == pytest.approx(100 * (means["metarec"] / means[name] - 1))
        assert gains[name].low < gains[name].percent < gains[name].high
    rng = np.random.default_rng(3)
    ours = rng.random(200)
    paired = paired_ndcg_gains(ours, pd.DataFrame({"same": ours, "a tenth less": ours / 1.1, "zero": 0 * ours}))
    assert paired["same"] == (0, 0, 0)
    np.testing.assert_allclose(paired["a tenth less"], (10, 10, 10))
    assert "zero" not in paired


def test_a_gain_over_a_model_that_helps_one_user_is_finite():
    gain = paired_ndcg_gains(np.array([1.0, 1.0, 1.0]), pd.DataFrame({"other": [1.0, 0.0, 0.0]}))["other"]
    assert np.isfinite(gain).all()
    assert gain.percent == pytest.approx(200)


def test_coverage_is_over_the_lists_of_all_users(episodes):
    scores = base_unit_predictions(episodes)["base0"]
    lists = top_lists(episodes, scores, 10)
    order = np.argsort(-scores[3, : episodes.batch.query.mask[3].sum()])
    np.testing.assert_array_equal(lists[3], episodes.query_items[3][order[:10]])
    assert "" not in set(np.concatenate(top_lists(episodes, scores, 1000)))
    assert catalogue_coverage(lists, 60) == len(set(np.concatenate(lists))) / 60


def test_the_judge_is_one_minus_the_mean_over_users_of_all_domains(episodes):
    others = ranking_episodes(tasks=20, candidates=12, seed=8).validation
    both = [episodes, others]
    predictions = [one.batch.query.predictions[..., 0].nan_to_num(0.5) for one in both]
    found = RankingJudge([one.relevant for one in both])(predictions, [one.batch.query for one in both])
    values = np.concatenate(
        [ranking_rows(one, {"own": own.numpy()})[NDCG].to_numpy() for one, own in zip(both, predictions, strict=True)]
    )
    assert found == pytest.approx(1 - values.mean())
    assert RankingJudge.name == "ndcg"


def test_standard_scores_are_over_the_candidates_alone():
    scores = np.array([[1.0, 3.0, 99.0], [0.1, 0.1, 0.1]])
    mask = np.array([[True, True, False], [True, True, True]])
    np.testing.assert_allclose(standard_scores(scores, mask), [[-1, 1, 0], [0, 0, 0]])
    several = torch.randn(4, 6, 2).numpy()
    found = standard_scores(several, np.ones((4, 6), bool))
    np.testing.assert_allclose(found[..., 1], standard_scores(several[..., 1], np.ones((4, 6), bool)))
    np.testing.assert_allclose(found.std(1), 1)
