"""A study of ranking: its spec, its measure, and the numbers that it shows."""

import json
import re

import numpy as np
import pandas as pd
import pytest
import torch

from metarec.episodes import EpisodeBatch, Episodes, FusionInputs
from metarec.errors import InputError
from metarec.evaluation.measures import LISTED, RANKING, RATING, ByUser
from metarec.ratings import RatingScale, simulate_implicit_domains
from metarec.study.data import domains_of, identity_of, settled
from metarec.study.job import run_study
from metarec.study.spec import StudySpec, load_spec
from tests.support.studies import reported, runs_of, tiny_spec

RANKED = {"name": "ranked", "bases": ["popularity", "ease"], "baselines": ["best-single", "combsum"]}


def lists(scores, targets, relevant):
    """Ranking episodes of users with these candidates; a target of NaN is padding."""
    targets = torch.tensor(targets)
    mask = targets.isfinite()
    tasks, width = targets.shape
    rows = FusionInputs(
        torch.tensor(scores),
        torch.zeros(tasks, width, torch.tensor(scores).shape[-1], 1),
        torch.zeros(tasks, width, 1),
        targets.nan_to_num(),
        mask,
    )
    items = np.where(mask.numpy(), np.array([f"i{place:03d}" for place in range(width)]), "")
    return Episodes(
        domain="shop",
        scale=RatingScale(0, 1),
        base_names=("a",),
        feature_names=("score",),
        context_names=("c",),
        batch=EpisodeBatch(support=rows, query=rows),
        users=np.array([f"u{task}" for task in range(tasks)], dtype=object),
        support_items=items,
        query_items=items,
        query_fallback=torch.zeros(tasks, width),
        query_ratings=rows.targets.numpy(),
        relevant=np.array(relevant),
    )


def test_the_task_is_that_of_the_targets_feedback(movies):
    shop = simulate_implicit_domains(0, num_users=40, num_items=150)
    assert settled(tiny_spec(), movies).task == "rating"
    spec = settled(StudySpec(), shop)
    assert (spec.task, spec.target) == ("ranking", "shop")
    assert {"popularity", "ease", "next-item"} <= set(spec.bases)
    assert {"rrf", "lambdamart"} <= set(spec.baselines)
    assert "temperature" in spec.space
    assert "temperature" not in tiny_spec().space
    # What the user has named stays.
    assert list(settled(StudySpec.model_validate(RANKED), shop).bases) == ["popularity", "ease"]


def test_ratings_can_be_ranked_and_events_cannot_be_rated(movies):
    spec = settled(StudySpec(task="ranking", ranking={"positive": 4}), movies)
    (events,) = domains_of(spec, movies).values()
    assert events.feedback == "implicit"
    assert len(events.ratings) == (movies["movies"].ratings["rating"] >= 4).sum()
    shop = simulate_implicit_domains(0, num_users=40, num_items=150)
    with pytest.raises(InputError, match="use --task ranking"):
        domains_of(settled(StudySpec(task="rating"), shop), shop)


def test_a_study_of_ratings_has_the_identity_that_it_had_before_tasks(movies):
    spec = settled(tiny_spec(), movies)
    assert identity_of(spec, movies) == identity_of(tiny_spec(target="movies"), movies)
    assert identity_of(spec, movies) != identity_of(spec.model_copy(update={"task": "ranking"}), movies)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"task": "order"}, "task: "),
        ({"task": "ranking", "bases": ["bias"]}, 'ranking base "bias"'),
        ({"task": "rating", "bases": ["ease"]}, 'base recommender "ease"'),
        ({"task": "ranking", "pruner": "wilcoxon"}, "choose median, hyperband or none"),
        ({"task": "ranking", "episodes": {"draws": 2}}, "draws must be 1"),
    ],
)
def test_what_does_not_fit_the_task_is_one_line(changes, problem):
    with pytest.raises(InputError) as caught:
        load_spec("quickstart", changes)
    assert problem in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_measure_by_hand():
    # The second user has a relevant item that no base proposed.
    targets = [[1.0, 0.0, 0.0], [0.0, 1.0, np.nan]]
    episodes = lists(np.zeros((2, 3, 1), dtype=np.float32), targets, [1, 2])
    ours, theirs = np.array([[3.0, 2, 1], [1, 2, 9]]), np.array([[1.0, 2, 1], [2, 2, 9]])
    judged = RANKING.judge(episodes, {"metarec": ours, "other": theirs})
    second = 1 / np.log2(3)
    users = {"metarec": [1, 1 / (1 + second)], "other": [second, second / (1 + second)]}
    for model, ndcg in users.items():
        assert judged.by_user.sums[model].tolist() == pytest.approx(ndcg)
        assert judged.scores[model].values["ndcg@10"] == pytest.approx(np.mean(ndcg))
    same = dict.fromkeys(["ndcg@5", "ndcg@10", "ndcg@20"], np.mean(users["metarec"]))
    assert judged.scores["metarec"].to_json() == pytest.approx(
        {**same, "recall@20": 0.75, "mrr": 1, "hit@10": 1, "n_users": 2}
    )
    # A terminal is narrow.
    assert list(RANKING.metrics) == ["ndcg@10", "recall@20", "mrr", "hit@10"]
    assert set(RANKING.reported) == set(judged.scores["metarec"].values)
    assert [model for model, _ in RANKING.best_first(judged.scores)] == ["metarec", "other"]
    gain = RANKING.gains(judged.by_user)["other"].percent
    assert gain == pytest.approx(100 * (sum(users["metarec"]) / sum(users["other"]) - 1))


def test_the_predictions_file_has_the_first_of_each_list_and_no_padding():
    width = LISTED + 5
    targets = np.zeros((2, width), dtype=np.float32)
    targets[1, 3:] = np.nan
    episodes = lists(np.zeros((2, width, 1), dtype=np.float32), targets, [1, 1])
    scores = np.tile(np.arange(width, dtype=float) // 2, (2, 1))
    rows = RANKING.rows(episodes, {"metarec": scores})
    assert list(rows.columns) == ["domain", "user", "model", "rank", "item", "score"]
    first, second = (own for _, own in rows.groupby("user"))
    assert first["rank"].tolist() == list(range(1, LISTED + 1))
    # Of equal scores, the earlier column is first.
    assert first["item"].tolist()[:3] == ["i104", "i102", "i103"]
    assert second["item"].tolist() == ["i002", "i000", "i001"]


def test_more_is_better_and_the_search_minimises():
    assert (RANKING.shown(0.25), RATING.shown(0.25)) == (0.75, 0.25)
    assert RANKING.validation_text(0.5) == "validation nDCG@10 0.50000"
    assert (RANKING.best([0.1, 0.3]), RATING.best([0.1, 0.3])) == (0.3, 0.1)
    sums = pd.DataFrame({"metarec": [0.5, 0.1], "never": [0.0, 0.0]})
    assert RANKING.gains(ByUser(sums, pd.Series([1, 1]))) == {}


@pytest.mark.slow
def test_a_study_shows_ndcg_everywhere(new_folder, caplog):
    shop = simulate_implicit_domains(0, num_users=60, num_items=150)
    spec = tiny_spec(**RANKED, task="ranking", trials=2, episodes={"shots": 5, "folds": 2}, ranking={"candidates": 10})
    folder = new_folder()
    caplog.set_level("INFO", "metarec")
    result = run_study(spec, shop, reported(folder, "ranked"))
    # MLflow has other letters in the keys, and each trial is recorded nevertheless.
    assert "ended as" not in caplog.text
    shown = result.to_json()
    assert (shown["metric"], shown["direction"]) == ("ndcg@10", "maximize")
    table = shown["test"]["shop"]
    assert all(set(row) == {*RANKING.reported, "n_users"} for row in table.values())
    assert set(table) >= {"metarec", "network", "stack", "popularity", "ease", "best-single", "combsum"}
    values = [trial["value"] for trial in shown["trials"]]
    assert shown["best"]["value"] == max(values)
    assert "raises the nDCG@10 of stack" in shown["adds"]["shop"]["text"]
    client, (parent,), children = runs_of(folder)
    assert parent.data.metrics["best_validation_ndcg_at_10"] == max(values)
    for run, value in zip(children, values, strict=True):
        assert run.data.metrics["validation_ndcg_at_10"] == value
        curve = [point.value for point in client.get_metric_history(run.info.run_id, "val_ndcg")]
        assert max(curve) == pytest.approx(value)
    findings = json.loads((folder / "artifacts/ranked/report/findings.json").read_text())
    assert findings["best"]["value"] == max(values)
    models = [row["ndcg@10"] for row in findings["tables"][0]["models"]]
    assert models == sorted(models, reverse=True)
    page = (folder / "artifacts/ranked/report.html").read_text()
    assert "metarec's gain in nDCG@10" in page
    text = re.sub('base64,[^"]+', "", page)
    assert "RMSE" not in text
    assert "nDCG@5" in text
    spec_of_page = re.search("<pre>.*?</pre>", text, re.S)[0]
    assert "ratings" not in text.replace(spec_of_page, "")
    assert parent.data.metrics["test/shop/metarec/ndcg_at_20"] == table["metarec"]["ndcg@20"]
    rows = pd.read_parquet(result.predictions)
    assert set(rows["model"]) == set(table)
    assert rows["rank"].max() <= LISTED
