"""Titles of items in recommendations, and short reprs of recommenders and users."""

import shutil
from dataclasses import replace

import pandas as pd
import pytest

from metarec.errors import InputError
from metarec.model import load_model, save_model
from metarec.ratings import Domain, titles_of
from metarec.study.job import run_study
from tests.model.conftest import BASES
from tests.model.test_model import with_digests
from tests.support.ranking_model import BASES as RANKING_BASES
from tests.support.studies import reported, tiny_spec


@pytest.mark.parametrize(
    ("items", "titles"),
    [
        (None, {}),
        (pd.DataFrame({"item": ["a"], "year": [1.0]}), {}),
        (pd.DataFrame({"item": ["a"], "name": [1.0]}), {}),
        (pd.DataFrame({"item": ["a", "b", "c"], "Movie_Title": ["A (1990)", "", None]}), {"a": "A (1990)"}),
        (pd.DataFrame({"item": ["a"], "title": ["A"], "name": ["B"]}), {"a": "A"}),
    ],
)
def test_titles_are_found_by_their_usual_names(items, titles):
    assert titles_of(items) == titles


def test_a_list_has_the_titles_of_its_items(recommender):
    plain = recommender.adapt({"m001": 5}).recommend(5)
    assert list(plain.columns) == ["item", "prediction"]
    first, second = plain["item"].head(2)
    titled = replace(recommender, titles={first: "One", second: "Two"}).adapt({"m001": 5}).recommend(5)
    assert list(titled.columns) == ["item", "title", "prediction"]
    assert titled["title"].tolist() == ["One", "Two", None, None, None]
    pd.testing.assert_frame_equal(titled.drop(columns="title"), plain)


def test_a_list_of_a_ranking_has_them_too(lists):
    titles = {item: f"the {item}" for item in lists.items}
    best = replace(lists, titles=titles).adapt(lists.items[:2].tolist()).recommend(4)
    assert list(best.columns) == ["item", "title", "score"]
    assert best["title"].tolist() == [f"the {item}" for item in best["item"]]


def test_titles_are_kept_with_the_model(recommender, lists, tmp_path):
    for number, (model, bases) in enumerate(((recommender, BASES), (lists, RANKING_BASES))):
        folder = tmp_path / str(number)
        save_model(replace(model, titles={"m001": "Ü", "m002": "2"}), folder, bases, seed=0)
        assert load_model(folder).titles == {"m001": "Ü", "m002": "2"}


@pytest.mark.parametrize(
    "table", [{"item": ["m001"], "name": ["A"]}, {"item": ["m001"], "title": [3]}, {"item": [None], "title": ["A"]}]
)
def test_damaged_titles_are_refused(recommender, tmp_path, table):
    whole = tmp_path / "model"
    save_model(replace(recommender, titles={"m001": "A"}), whole, BASES, seed=0)
    pd.DataFrame(table).to_parquet(whole / "titles.parquet", index=False)
    with_digests(whole)
    with pytest.raises(InputError, match=r"titles\.parquet: the columns must be item and title, with texts"):
        load_model(whole)
    shutil.rmtree(whole)


@pytest.mark.slow
def test_a_study_keeps_the_titles_of_its_items(movies, new_folder):
    (domain,) = movies.values()
    items = pd.DataFrame({"item": domain.ratings["item"].unique()}).assign(title=lambda own: "film " + own["item"])
    titled = Domain(domain.name, domain.ratings, domain.scale, items)
    result = run_study(tiny_spec(target="movies", trials=1), {"movies": titled}, reported(new_folder(), "titled"))
    best = result.model.adapt({"m001": 5}).recommend(2)
    assert best["title"].tolist() == [f"film {item}" for item in best["item"]]


def test_reprs_are_short(recommender, lists, kept):
    assert repr(recommender).startswith("FusedRecommender(domain='movies', users=80, items=40, members=['")
    assert repr(recommender.adapt({"m001": 5})) == "UserModel(domain='movies', ratings=1)"
    assert repr(lists).startswith("RankingRecommender(domain='shop', users=")
    assert repr(lists.adapt([lists.items[0]])) == "RankingUserModel(domain='shop', items=1)"
    error = kept.result.leaderboard().set_index("model").loc["metarec", "rmse"]
    assert repr(kept.result) == f"StudyResult(name='kept', target='movies', trials=3, rmse={error:.4f})"
    assert all(len(repr(one)) < 200 for one in (recommender, lists, kept.result))
