"""The candidates of a history, against brute force."""

import numpy as np
import pytest

from metarec.episodes.ranking._lists import make_list, standard_scores, top_items

BASES, ITEMS, MOST = 3, 40, 6


@pytest.fixture
def scores():
    drawn = np.random.default_rng(0).normal(size=(BASES, 2, ITEMS)).astype(np.float32)
    drawn[2, 1] = np.nan
    return drawn


def lists_of(scores, excluded, more=None):
    found = [top_items(own, excluded, MOST) for own in scores]
    tops, proposed = (np.stack(side) for side in zip(*found, strict=True))
    return [make_list(scores[:, row], tops[:, row], proposed[:, row], MOST, more=more) for row in range(len(excluded))]


def test_candidates_are_the_union_of_the_best_items_of_each_base(scores):
    excluded = [np.array([0, 1]), np.array([5])]
    for row, found in enumerate(lists_of(scores, excluded)):
        expected = set()
        for base in range(BASES):
            own = {item: score for item, score in enumerate(scores[base, row]) if item not in excluded[row]}
            if not np.isnan(scores[base, row]).any():
                best = sorted(own, key=lambda item: -own[item])[:MOST]
                expected |= set(best)
                for rank, item in enumerate(best):
                    assert found.ranks[found.items.tolist().index(item), base] == rank
        assert found.items.tolist() == sorted(expected)


def test_an_item_that_a_base_does_not_propose_has_its_last_rank(scores):
    found = lists_of(scores, [np.array([], dtype=int)] * 2)[0]
    assert ((found.ranks < MOST).sum(0) == MOST).all()
    assert found.ranks.max() == MOST


def test_a_base_without_scores_proposes_nothing_and_stays_without(scores):
    found = lists_of(scores, [np.array([], dtype=int)] * 2)[1]
    assert np.isnan(found.scores[:, 2]).all()
    assert (found.ranks[:, 2] == MOST).all()
    assert (found.percentiles[:, 2] == 0.5).all()
    assert np.isfinite(found.scores[:, :2]).all()


def test_scores_are_standard_scores_over_the_candidates(scores):
    found = lists_of(scores, [np.array([], dtype=int)] * 2)[0]
    own = scores[0, 0, found.items].astype(float)
    assert found.scores[:, 0] == pytest.approx(0.5 + (own - own.mean()) / own.std() / 12)


def test_equal_scores_are_in_the_middle():
    assert standard_scores(np.full((4, 1), 3.0)).tolist() == [[0.5]] * 4


def test_a_catalogue_that_is_smaller_than_the_lists():
    scores = np.arange(4, dtype=np.float32).reshape(1, 1, 4)
    (found,) = lists_of(scores, [np.array([3])])
    assert found.items.tolist() == [0, 1, 2]
    assert found.ranks[:, 0].tolist() == [2, 1, 0]
    assert found.percentiles[:, 0].tolist() == [0, 0.5, 1]


def test_more_candidates_are_added(scores):
    found = lists_of(scores, [np.array([], dtype=int)] * 2, more=np.array([39, 38]))[0]
    assert {38, 39} <= set(found.items.tolist())


def test_the_top_of_a_list_with_a_long_tail_is_not_tied():
    scores = np.concatenate([np.zeros(200), [900.0, 1000.0]])[:, None]
    first, second = standard_scores(scores)[-2:, 0]
    assert 1 < first < second
