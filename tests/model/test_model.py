"""The model equals what the study has scored, and it is loaded without executing files."""

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient

import metarec
from metarec.bases import make_base
from metarec.episodes import History
from metarec.errors import InputError
from metarec.model import FusedRecommender, load_model, save_model
from metarec.model._arrays import read_arrays, write_arrays
from metarec.ratings import Domain


def files_of(kept):
    """The folder of the registered model's files."""
    client = MlflowClient(tracking_uri=kept.uri, registry_uri=kept.uri)
    version = client.get_model_version_by_alias("metarec-kept", "champion")
    return Path(version.source.removeprefix("file://"))


@pytest.fixture
def copy(kept, tmp_path):
    return Path(shutil.copytree(files_of(kept), tmp_path / "model"))


# --- what is kept is what was scored ---------------------------------------------------------------------------------


def test_the_model_predicts_what_the_study_has_scored(kept, recommender):
    scored = pd.read_parquet(kept.result.predictions).set_index(["user", "item"])["metarec"]
    users = kept.test_users()
    histories, items, times = map(list, zip(*users.values(), strict=True))
    # The study has the times of the queries; the model predicts at a fixed time.
    new = recommender.maker.users(histories)
    episodes = new.episodes(items, times)
    predictions = episodes.scale.to_ratings(recommender.fusion.adapt(new.support).predict(episodes).clip(0, 1))
    assert sum(map(len, items)) == len(scored)
    for user, own, row in zip(users, items, predictions, strict=True):
        np.testing.assert_allclose(row[: len(own)], scored.loc[user].loc[own], rtol=0, atol=1e-4)


def test_bases_are_fitted_without_validation_and_test_users(kept, recommender):
    users = set(kept.test_users())
    assert users
    assert not users & recommender.fitted_on
    assert users <= set(recommender.users)
    assert recommender.fitted_on < set(recommender.users)


def test_every_member_has_a_weight_and_their_sum_is_one(recommender):
    fusion = recommender.fusion
    assert set(fusion.weights) == set(fusion.networks) | set(fusion.stackers)
    assert sum(fusion.weights.values()) == pytest.approx(1.0)
    assert min(fusion.weights.values()) > 0
    assert fusion.networks, "without a network these tests would say nothing of one"


# --- use -------------------------------------------------------------------------------------------------------------


def test_adapt_predict_recommend(recommender, kept):
    history = pd.DataFrame({"item": recommender.items[:5], "rating": [5.0, 1.0, 4.5, 2.0, 3.0]})
    user = recommender.adapt(history)
    predicted = user.predict(recommender.items)
    assert predicted.index.tolist() == recommender.items.tolist()
    scale = kept.domain.scale
    assert predicted.between(scale.low, scale.high).all()
    best = user.recommend(7)
    assert len(best) == 7
    assert not set(best["item"]) & set(history["item"])
    left = predicted.drop(history["item"]).sort_values(ascending=False)
    np.testing.assert_allclose(best["prediction"], left.iloc[:7])
    assert len(user.recommend(10**6)) == len(recommender.items) - 5


def test_a_history_changes_the_predictions(recommender):
    items = recommender.items
    low, high = (recommender.adapt(pd.DataFrame({"item": items[:6], "rating": [r] * 6})) for r in (1.0, 5.0))
    assert low.predict(items[6:]).mean() < high.predict(items[6:]).mean()


def test_a_user_of_the_model_is_served_from_the_kept_ratings(recommender, kept):
    name = recommender.users[3]
    rated = kept.domain.ratings[kept.domain.ratings["user"] == name]
    by_hand = recommender.adapt(rated.drop(columns="user")).predict(recommender.items)
    pd.testing.assert_series_equal(recommender.user(name).predict(recommender.items), by_hand)
    with pytest.raises(InputError, match='unknown user "nobody"; the model has 80 users'):
        recommender.user("nobody")


def test_an_empty_history_and_unknown_items_have_predictions(recommender, empty_history):
    empty = recommender.adapt(empty_history)
    assert len(empty.recommend(3)) == 3
    assert empty.predict(["never seen"]).between(1, 5).all()
    assert empty.predict([]).empty


def test_many_users_together_have_the_predictions_of_each_user(recommender):
    histories = [recommender.history_of(user) for user in recommender.users[:4]] + [
        History(np.array([], object), np.zeros(0))
    ]
    items = [recommender.items[row : 2 * row + 1] for row in range(5)]
    for history, own, answer in zip(histories, items, recommender.predict(histories, items), strict=True):
        np.testing.assert_allclose(recommender.adapt(history).predict(own), answer, rtol=0, atol=1e-5)
    assert recommender.predict([], []) == []


def test_of_a_longer_history_the_networks_see_the_latest_ratings_and_the_bases_all(recommender, kept):
    shots = kept.spec.episodes.shots
    assert recommender.maker.shots == shots
    items = recommender.items
    long = pd.DataFrame({"item": items[:36], "rating": 3.0, "timestamp": np.arange(36.0)}).sample(
        frac=1, random_state=1
    )
    whole = recommender.maker.users([History.of(long)])
    asked = whole.episodes([items[36:40]])
    assert set(asked.support_items[0]) == set(items[36 - shots : 36])
    assert int(whole.support.mask.sum()) == shots
    latest = recommender.maker.users([History.of(long[long["timestamp"] >= 36 - shots])])
    few = latest.episodes([items[36:40]])
    assert not np.allclose(asked.batch.query.predictions, few.batch.query.predictions, equal_nan=True)
    assert not set(recommender.adapt(long).recommend(100)["item"]) & set(long["item"])
    with pytest.raises(InputError, match="the history holds 99"):
        recommender.adapt(long.assign(rating=np.where(long["timestamp"] == 0, 99.0, 3.0)))


@pytest.mark.parametrize(
    ("history", "rule"),
    [
        ({"item": ["m000"]}, 'needs the columns item and rating, but "rating" is missing'),
        ({"item": [{}], "rating": [3.0]}, r"item id 0 must be text or a number but is \{\}"),
        ({"item": ["a", "a"], "rating": [3.0, 4.0]}, 'holds item "a" again'),
        ({"item": ["a"], "rating": [99.0]}, "the history holds 99"),
        ({"item": ["a"], "rating": [float("nan")]}, "the history holds nan"),
    ],
)
def test_a_history_that_breaks_a_rule_is_refused(recommender, history, rule):
    with pytest.raises(InputError, match=rule):
        recommender.adapt(pd.DataFrame(history))


def test_recommending_nothing_is_refused(recommender, empty_history):
    with pytest.raises(InputError, match="n must be at least 1 but got 0"):
        recommender.adapt(empty_history).recommend(0)


# --- files -----------------------------------------------------------------------------------------------------------


def test_the_registry_has_the_champion(kept):
    client = MlflowClient(tracking_uri=kept.uri, registry_uri=kept.uri)
    version = client.get_model_version_by_alias("metarec-kept", "champion")
    assert version.run_id == kept.result.run_id
    assert version.tags["study"] == "kept"


def test_nothing_in_a_model_is_a_pickle(copy):
    for path in copy.rglob("*"):
        if path.is_file():
            assert path.suffix in (".json", ".npz", ".parquet", ".yaml", ".txt", "")
            if path.suffix == ".npz":
                with np.load(path, allow_pickle=False) as stored:
                    assert all(not stored[name].dtype.hasobject for name in stored)
            else:
                # What every pickle since Python 3 begins with.
                assert not path.read_bytes().startswith(b"\x80")


def test_a_folder_is_loaded_as_well_as_the_registry(copy, recommender):
    for folder in (copy, copy / "data" / "metarec"):
        loaded = metarec.load(str(folder))
        history = recommender.history_of(recommender.users[0])
        one, other = (model.adapt(history).predict(recommender.items) for model in (loaded, recommender))
        pd.testing.assert_series_equal(one, other)


def data_files(folder):
    return sorted(path.name for path in (folder / "data" / "metarec").iterdir())


def test_a_changed_file_is_refused(copy):
    """The model is refused after a change of any byte of any file."""
    inner = copy / "data" / "metarec"
    for name in data_files(copy):
        whole = (inner / name).read_bytes()
        turned = bytearray(whole)
        turned[len(turned) // 2] ^= 1
        (inner / name).write_bytes(bytes(turned))
        with pytest.raises(InputError, match=r"digest differs|damaged"):
            metarec.load(str(copy))
        (inner / name).write_bytes(whole)
    metarec.load(str(copy))


def test_an_additional_or_missing_file_is_refused(copy):
    inner = copy / "data" / "metarec"
    (inner / "more.npz").write_bytes(b"")
    with pytest.raises(InputError, match=r"more\.npz: not the file that was written"):
        metarec.load(str(copy))
    (inner / "more.npz").unlink()
    (inner / "facts.npz").unlink()
    with pytest.raises(InputError, match=r"facts\.npz: not the file that was written"):
        metarec.load(str(copy))


def with_digests(inner):
    """Rewrite the list of digests, as after a deliberate change of a file."""
    names = [path for path in sorted(inner.iterdir()) if path.name != "digests.json"]
    digests = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in names}
    (inner / "digests.json").write_text(json.dumps(digests))


def test_rewritten_digests_are_refused_by_the_registry(kept):
    folder = files_of(kept)
    inner = folder / "data" / "metarec"
    before = {path: path.read_bytes() for path in [*inner.iterdir(), folder / "MLmodel"]}
    try:
        model = json.loads((inner / "model.json").read_text())
        weights = model["fusion"]["weights"]
        model["fusion"]["weights"] = {name: -weight for name, weight in weights.items()}
        (inner / "model.json").write_text(json.dumps(model))
        with_digests(inner)
        with pytest.raises(InputError, match="not the model that was registered"):
            kept.load()
        with pytest.raises(InputError, match="not the model that was registered"):
            metarec.load(str(folder))
    finally:
        for path, content in before.items():
            path.write_bytes(content)
    kept.load()


@pytest.mark.parametrize(
    ("uri", "rule"),
    [
        ("models:/metarec-none@champion", "models:/metarec-none@champion: cannot be loaded: .*not found"),
        ("models:/metarec-kept", "models:/NAME@ALIAS or models:/NAME/VERSION but got models:/metarec-kept"),
        ("runs:/0123/model", "runs:/0123/model: cannot be loaded"),
    ],
)
def test_a_missing_model_is_one_line(kept, uri, rule):
    with pytest.raises(InputError, match=rule) as raised:
        metarec.load(uri, tracking_uri=kept.uri)
    assert "\n" not in str(raised.value)


def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"not a model of metarec, which has a file digests\.json"):
        metarec.load(str(tmp_path))


def test_a_version_and_a_run_are_loaded_too(kept, recommender):
    for uri in ("models:/metarec-kept/1", f"runs:/{kept.result.run_id}/{files_of(kept).name}"):
        assert metarec.load(uri, tracking_uri=kept.uri).items.tolist() == recommender.items.tolist()


def test_an_array_of_objects_is_never_written_or_read(tmp_path):
    with pytest.raises(TypeError, match='"bad" must be an array of numbers or of text'):
        write_arrays(tmp_path / "a.npz", {"bad": np.array([print], dtype=object)})
    np.savez(tmp_path / "b.npz", bad=np.array([print], dtype=object))
    with pytest.raises(InputError, match=r'b: "bad" must be an array of numbers or of text but has the type \|O'):
        read_arrays((tmp_path / "b.npz").read_bytes(), "b")


# --- bases of plug-ins -----------------------------------------------------------------------------------------------


class Plugged:
    """A base that predicts the item's mean plus a constant; it has no state."""

    name = "plugged"
    more = 0.0

    def fit(self, domain):
        self._means = domain.ratings.groupby("item")["rating"].mean()
        return self

    def predict(self, history, items):
        return self._means.reindex(items).to_numpy() + self.more


def test_two_members_are_not_kept_in_one_file(recommender, tmp_path):
    base = recommender.maker.bases["bias"]
    maker = type(recommender.maker)(**{**recommender.maker.__dict__, "bases": {"a b": base, "a_b": base}})
    model = FusedRecommender(
        maker, recommender.fusion, "movies", recommender.ratings, recommender.fitted_on, recommender.max_history
    )
    with pytest.raises(InputError, match='"a b" and "a_b" would both be kept'):
        save_model(model, tmp_path / "m", {"a b": {}, "a_b": {}}, seed=0)
    assert not (tmp_path / "m").exists()


def test_a_base_without_a_state_is_fitted_again_and_compared(recommender, tmp_path, monkeypatch):
    fitted_on = recommender.ratings[recommender.ratings["user"].isin(recommender.fitted_on)]
    domain = Domain("movies", fitted_on, recommender.maker.scale)
    bases = {**recommender.maker.bases, "bias": Plugged().fit(domain)}
    maker = type(recommender.maker)(**{**recommender.maker.__dict__, "bases": bases})
    model = FusedRecommender(
        maker, recommender.fusion, "movies", recommender.ratings, recommender.fitted_on, recommender.max_history
    )
    options = {name: {"epochs": 2} if name == "autoencoder" else {} for name in bases}
    digest = save_model(model, tmp_path / "m", options, seed=0)
    for place in ("metarec.bases._catalogue.make_base", "metarec.model.files.make_base"):
        monkeypatch.setattr(place, lambda name, **given: Plugged() if name == "bias" else make_base(name, **given))
    loaded = load_model(tmp_path / "m", digest)
    history = recommender.history_of(recommender.users[0])
    one, other = (made.adapt(history).predict(recommender.items) for made in (loaded, model))
    pd.testing.assert_series_equal(one, other)
    monkeypatch.setattr(Plugged, "more", 0.5)
    with pytest.raises(InputError, match="the base bias was fitted again and predicts otherwise"):
        load_model(tmp_path / "m", digest)
