"""The paired statistics against cases by hand, against scipy, and on planted truths."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy.stats import wilcoxon

from benchmarks.common.statistics import SetPredictions, compare, gather, holm, signed_rank
from metarec.evaluation.measures import RATING, ByUser
from metarec.evaluation.metrics import squared_errors

OURS = ["metarec 0", "metarec 1"]


def outcome(errors, *, users=200, rows=10, seed=0, ndcg=None):
    """Rows with truth 3; `errors(rng, user, n)` -> model: [n] errors."""
    rng = np.random.default_rng(seed)
    drawn = [errors(rng, user, rows) for user in range(users)]
    models = list(drawn[0])
    names = [f"u{user}" for user in range(users)]
    keys = {"domain": "d", "user": np.repeat(names, rows), "item": np.tile([f"i{i}" for i in range(rows)], users)}
    values = {model: 3.0 + np.concatenate([own[model] for own in drawn]) for model in models}
    whole = pd.DataFrame({**keys, "rating": 3.0, **values})
    table = pd.DataFrame(0.9, index=pd.Index(names, name="user"), columns=models) if ndcg is None else ndcg
    ours = [model for model in models if model.startswith("metarec")]
    return SetPredictions(whole, table, 4.0, ours, [model for model in models if model not in ours])


def test_holm_by_hand():
    # Sorted: 0.01 * 4, 0.02 * 3, 0.03 * 2 (no less than the one before), 0.5 * 1.
    assert holm([0.5, 0.01, 0.03, 0.02]) == pytest.approx([0.5, 0.04, 0.06, 0.06])
    assert holm([0.9, 0.8]) == pytest.approx([1.0, 1.0])
    assert len(holm([])) == 0


def test_the_signed_rank_by_hand():
    # Ranks of 1, -2, 3, 4: positive 1 + 3 + 4, negative 2.
    p, effect = signed_rank(np.array([1.0, -2.0, 3.0, 4.0]))
    assert effect == pytest.approx((8 - 2) / 10)
    assert p == pytest.approx(wilcoxon([1.0, -2.0, 3.0, 4.0]).pvalue)


def test_differences_of_zero_are_dropped():
    assert signed_rank(np.zeros(5)) == (1.0, 0.0)
    # The rounding error of a mean of equal numbers is not a difference.
    noise = np.full(300, (0.7 + 0.7 + 0.7) / 3 - 0.7) + 1e-16
    assert noise.any()
    assert signed_rank(noise) == (1.0, 0.0)


def test_scores_are_means_over_the_seeds_and_pairs_are_means_of_squared_errors():
    def errors(rng, user, n):
        return {"metarec 0": np.full(n, 1.0), "metarec 1": np.full(n, 2.0), "other": np.full(n, 2.0)}

    section = compare({"only": outcome(errors, users=12)})["only"]
    ours = section.scores["metarec"]
    assert ours.values == pytest.approx({"rmse": 1.5, "mae": 1.5, "unit_rmse": 1.5 / 4})
    assert section.spread["rmse"] == pytest.approx(math.sqrt(0.5))
    assert [row["rmse"] for row in section.by_seed] == pytest.approx([1.0, 2.0])
    # Squared errors of 1 and 4 are 2.5 on average, against 4.
    against = section.rmse["other"]
    assert against.difference == pytest.approx(100 * (1 - math.sqrt(2.5 / 4)))
    assert against.interval == pytest.approx((against.difference, against.difference))
    assert (ours.n_users, ours.n_ratings) == (12, 120)


def test_pairs_are_of_each_users_mean_not_sum():
    rows = pd.DataFrame(
        {
            "domain": "d",
            "user": ["a"] * 4 + ["b"],
            "item": list("vwxyz"),
            "rating": 0.0,
            # a: sums 4 and 8, means 1 and 2; b: 4 and 2. By means the differences are +1 and -2, by sums +4 and -2.
            "metarec 0": [1.0] * 4 + [2.0],
            "other": [math.sqrt(2.0)] * 4 + [math.sqrt(2.0)],
        }
    )
    ndcg = pd.DataFrame(0.5, index=pd.Index(["a", "b"], name="user"), columns=["metarec 0", "other"])
    section = compare({0: SetPredictions(rows, ndcg, 4.0, ["metarec 0"], ["other"])})[0]
    assert section.rmse["other"].effect == pytest.approx((1 - 2) / 3)


def test_study_and_benchmark_compute_the_same_gain():
    def errors(rng, user, n):
        return {"metarec 0": rng.normal(0, 1.0, n), "other": rng.normal(0, 1.1, n)}

    made = outcome(errors)
    rows = made.rows.rename(columns={"metarec 0": "metarec"})
    ours = RATING.gains(ByUser.squared_errors(rows), seed=3)["other"]
    section = compare({0: made}, seed=3)[0].rmse["other"]
    assert (section.difference, *section.interval) == pytest.approx(tuple(ours))


def test_squared_errors_by_hand():
    rows = pd.DataFrame(
        {"domain": "d", "user": ["b", "a", "b"], "item": list("xyz"), "rating": [1.0, 2.0, 3.0], "m": [2.0, 2.0, 5.0]}
    )
    table = squared_errors(rows)
    assert list(table.index) == ["b", "a"]
    assert list(table["m"]) == [5.0, 0.0]


def test_a_planted_better_model_is_found_and_a_worse_one_too():
    def errors(rng, user, n):
        own = rng.normal(0, 1, n)
        return {"metarec 0": own, "metarec 1": own, "beaten": own * 1.05, "equal": own[::-1], "better": own * 0.95}

    section = compare({0: outcome(errors)})[0]
    found = section.rmse
    assert found["beaten"].verdict == "better"
    assert 0 < found["beaten"].interval[0] < found["beaten"].difference < found["beaten"].interval[1]
    assert found["better"].verdict == "worse"
    assert found["better"].interval[1] < 0 > found["better"].effect
    assert found["equal"].verdict == "no difference"
    assert section.best_baseline == "better"


def test_two_equal_models_show_no_difference():
    def errors(rng, user, n):
        return {"metarec 0": rng.normal(0, 1, n), "equal": rng.normal(0, 1, n)}

    verdicts = [compare({0: outcome(errors, seed=seed)})[0].rmse["equal"].verdict for seed in range(20)]
    # At the level of 5 % a loss may be seen once or twice in 20 (it is not corrected).
    assert verdicts.count("no difference") >= 17


def test_the_family_is_the_whole_report():
    def errors(rng, user, n):
        own = rng.normal(0, 1, n)
        return {"metarec 0": own, **{f"other {place}": own + rng.normal(0, 0.05, n) for place in range(3)}}

    outcomes = {(name, shots): outcome(errors, seed=shots) for name in "ab" for shots in (1, 5)}
    sections = compare(outcomes)
    every = [against for section in sections.values() for against in section.rmse.values()]
    assert len(every) == 12
    assert [against.p_holm for against in every] == pytest.approx(holm([against.p for against in every]))
    alone = compare({("a", 1): outcomes["a", 1]})["a", 1].rmse
    assert alone["other 0"].p == sections["a", 1].rmse["other 0"].p
    assert alone["other 0"].p_holm < sections["a", 1].rmse["other 0"].p_holm


def test_a_loss_is_not_corrected_away_but_a_gain_is():
    def errors(rng, user, n):
        own, sign = rng.normal(0, 1, n), 1 if user % 20 < 12 else -1
        return {"metarec 0": own, "a little worse": own * (1 + 0.01 * sign), "a little better": own * (1 - 0.01 * sign)}

    made = outcome(errors, users=200, seed=4)
    alone = compare({0: made})[0].rmse
    assert (alone["a little worse"].verdict, alone["a little better"].verdict) == ("better", "worse")
    many = compare(dict.fromkeys(range(40), made))[0].rmse
    assert many["a little worse"].p < 0.05 < many["a little worse"].p_holm
    assert many["a little worse"].verdict == "no difference"
    assert many["a little better"].verdict == "worse"


def test_most_users_better_but_the_sum_worse_is_mixed():
    def errors(rng, user, n):
        # Nine users in ten gain a little, the tenth loses a lot.
        return {"metarec 0": np.full(n, 0.9 if user % 10 else 3.0), "other": np.full(n, 1.0)}

    against = compare({0: outcome(errors)})[0].rmse["other"]
    assert against.difference < 0 < against.effect
    assert against.verdict == "mixed"


def test_ndcg_is_compared_by_user_and_users_without_one_are_left_out():
    def errors(rng, user, n):
        return {"metarec 0": np.zeros(n), "metarec 1": np.zeros(n), "other": np.zeros(n)}

    made = outcome(errors, users=30)
    table = made.ndcg.copy()
    table["metarec 0"], table["metarec 1"], table["other"] = 0.6, 0.8, 0.65
    table.iloc[0] = np.nan
    section = compare({0: SetPredictions(made.rows, table, 4.0, OURS, ["other"])})[0]
    assert section.n_ranked == 29
    assert section.ndcg == pytest.approx({"metarec": 0.7, "other": 0.65})
    assert section.by_ndcg["other"].difference == pytest.approx(0.05)
    assert section.by_ndcg["other"].p == pytest.approx(wilcoxon(np.full(29, 0.05)).pvalue)
    assert section.by_ndcg["other"].verdict == "better"
    assert section.rmse["other"].verdict == "no difference"


def test_frames_with_other_rows_are_refused():
    base = pd.DataFrame({"user": ["a", "b"], "mean": [1.0, 2.0]})
    ours = pd.DataFrame({"user": ["a", "b"], "metarec": [3.0, 4.0]})
    whole, names = gather([base], {0: [ours]}, ["user"])
    assert names == {"metarec": ["metarec 0"]}
    assert list(whole["metarec 0"]) == [3.0, 4.0]
    with pytest.raises(ValueError, match="seed 1"):
        gather([base], {0: [ours], 1: [ours.iloc[::-1]]}, ["user"])
