"""Every strategy by name, on rows: it learns, is reproducible, and does not change its inputs."""

import copy
import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from metarec.errors import InputError
from metarec.transfer import CrossDomainMetaLearner, PrototypeBasedModel, TransferSettings
from metarec.transfer.rows._row_strategies import ROW_STRATEGIES

TRANSFER = [name for name in ROW_STRATEGIES if name != "scratch"]
NAMES = [*ROW_STRATEGIES, "auto"]
named = pytest.mark.parametrize("name", NAMES)


def drawn(rows, seed, *, mix=None, bend=0.0, shift=0.0):
    """Ratings follow two tastes, and a third weighted by `bend`; features are mixtures of the three."""
    generator = torch.Generator().manual_seed(seed)
    tastes = torch.randn(rows, 3, generator=generator) * torch.tensor([1.5, 1.0, 0.6])
    noise = 0.03 * torch.randn(rows, generator=generator)
    ratings = 0.5 + 0.12 * tastes[:, 0] + 0.06 * torch.tanh(2 * tastes[:, 1]) + bend * tastes[:, 2] + noise
    mixed = tastes @ (torch.eye(3) if mix is None else mix)
    return mixed + 0.1 * torch.randn(mixed.shape, generator=generator) + shift, ratings


def as_dicts(features, ratings):
    return [{"features": row.tolist(), "rating": float(rating)} for row, rating in zip(features, ratings, strict=True)]


def trained(features, ratings):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(features.shape[1], 16), nn.ReLU(), nn.Dropout(0.1), nn.Linear(16, 1)).eval()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(150):
        optimizer.zero_grad()
        (model(features).squeeze(-1) - ratings).square().mean().backward()
        optimizer.step()
    optimizer.zero_grad()
    return model


@pytest.fixture(scope="module")
def sources():
    found = {}
    for place, (name, bend) in enumerate({"movies": 0.0, "books": 0.05}.items()):
        rows = drawn(200, place, bend=bend)
        found[name] = trained(*rows), as_dicts(*rows)
    return found


def learner_of(sources, seed=0):
    learner = CrossDomainMetaLearner(list(sources), "music", seed=seed)
    for name, (model, rows) in sources.items():
        learner.add_source_domain(name, model, rows)
    return learner


def rmse(model, features, ratings):
    with torch.no_grad():
        predicted = model(features)
    assert predicted.shape == (len(features), 1)
    return float((predicted.squeeze(-1) - ratings).square().mean().sqrt())


@named
def test_every_strategy_learns(name, sources):
    rows = drawn(30, 100, bend=0.02)
    model = learner_of(sources).transfer_to_target(as_dicts(*rows), name, 10)
    test = drawn(300, 101, bend=0.02)
    mean = float((test[1] - rows[1].mean()).square().mean().sqrt())
    assert rmse(model, *test) < 0.5 * mean
    assert not model.training


@pytest.mark.parametrize("name", TRANSFER)
def test_three_ratings_are_enough_with_sources(name, sources):
    rows = drawn(30, 102)
    learner = learner_of(sources)
    test = drawn(300, 103)
    model = learner.transfer_to_target(as_dicts(*rows), name, 3)
    assert rmse(model, *test) < 0.6 * rmse(learner.transfer_to_target(as_dicts(*rows), "scratch", 3), *test)


@pytest.mark.parametrize("name", TRANSFER)
def test_shifted_features_are_aligned(name, sources):
    rows, test = drawn(60, 104, shift=4.0), drawn(300, 105, shift=4.0)
    model = learner_of(sources).transfer_to_target(as_dicts(*rows), name, 10)
    assert rmse(model, *test) < 0.5 * float(test[1].std())
    assert rmse(model, *test) < 0.5 * rmse(sources["movies"][0], *test)


@pytest.mark.parametrize("name", TRANSFER)
def test_domains_may_have_other_features(name, sources):
    mix = torch.tensor([[1.0, 1, 1, 0, 0], [0, 0, 0, 1, 1], [0, 0, 0, 0, 0]])
    rows, test = drawn(60, 106, mix=mix), drawn(300, 107, mix=mix)
    wide = drawn(200, 9, mix=mix)
    both = {**sources, "wide": (trained(*wide), as_dicts(*wide))}
    for given_sources in (sources, both):
        model = learner_of(given_sources).transfer_to_target(as_dicts(*rows), name, 10)
        assert rmse(model, *test) < 0.7 * float(test[1].std())


@pytest.mark.slow
@named
def test_it_is_reproducible_and_does_not_change_its_inputs(name, sources):
    rows = as_dicts(*drawn(20, 108))
    features = drawn(50, 109)[0]
    before = copy.deepcopy(rows), copy.deepcopy(sources["movies"][1])
    weights = copy.deepcopy(sources["movies"][0].state_dict())
    state = torch.random.get_rng_state()
    learner = learner_of(sources)
    predictions = learner.transfer_to_target(rows, name, 8)(features)
    assert torch.equal(learner.transfer_to_target(rows, name, 8)(features), predictions)
    assert torch.equal(learner_of(sources).transfer_to_target(rows, name, 8)(features), predictions)
    assert not torch.equal(learner_of(sources, seed=1).transfer_to_target(rows, name, 8)(features), predictions)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert (rows, sources["movies"][1]) == before
    torch.testing.assert_close(sources["movies"][0].state_dict(), weights, rtol=0, atol=0)
    assert all(parameter.grad is None for parameter in sources["movies"][0].parameters())
    assert json.loads(json.dumps(learner.reasons)) == learner.reasons


def test_only_the_few_ratings_are_used(sources):
    """Ratings of other rows do not change predictions."""
    sources = {"movies": sources["movies"]}
    features, ratings = drawn(30, 110)
    few = torch.randperm(30, generator=torch.Generator().manual_seed(0))[:6]
    other = torch.full_like(ratings, 0.1)
    other[few] = ratings[few]
    for name in ("auto", "prototype_based"):
        predictions = [
            learner_of(sources).transfer_to_target(as_dicts(features, own), name, 6)(features)
            for own in (ratings, other)
        ]
        assert torch.equal(*predictions)


def test_predictions_depend_on_prototypes(sources):
    features, ratings = drawn(30, 111)
    model = learner_of(sources).transfer_to_target(as_dicts(features, ratings), "prototype_based", 10)
    (prototypes,) = (part for part in model.modules() if isinstance(part, PrototypeBasedModel))
    before = rmse(model, features, ratings)
    with torch.no_grad():
        prototypes.ratings.copy_(prototypes.ratings.flip(0))
    assert rmse(model, features, ratings) > 1.2 * before


def test_auto_keeps_scratch_unless_another_is_clearly_better(sources):
    """Where the target is the opposite of its sources scratch is chosen, with reasons."""
    features, ratings = drawn(40, 112)
    learner = learner_of(sources)
    learner.transfer_to_target(as_dicts(-features, ratings), "auto", 20)
    assert learner.reasons["strategy"] == "scratch"
    assert set(learner.reasons["rmse"]) == set(ROW_STRATEGIES)
    learner.transfer_to_target(as_dicts(features, ratings), "auto", 4)
    assert learner.reasons["strategy"] != "scratch"
    alone = CrossDomainMetaLearner([], "music")
    assert alone.transfer_to_target(as_dicts(features, ratings), "auto", 4)(features).shape == (40, 1)
    assert alone.reasons == {"strategy": "scratch", "rmse": {}, "why": "there is no source, or a single row"}


@settings(max_examples=15, deadline=None)
@given(
    name=st.sampled_from(["scratch", "feature_alignment", "prototype_based", "gradient_based"]),
    widths=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    few=st.integers(1, 6),
    seed=st.integers(0, 99),
)
def test_any_widths_and_numbers(name, widths, few, seed):
    """Predictions are finite for a single row and a constant feature."""
    generator = torch.Generator().manual_seed(seed)
    source, target = (torch.randn(8, width, generator=generator) for width in widths)
    target[:, 0] = 1.0
    ratings = torch.rand(8, generator=generator)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = nn.Linear(widths[0], 1)
    learner = learner_of({"a": (model, as_dicts(source, ratings))}, seed)
    predictions = learner.transfer_to_target(as_dicts(target, ratings), name, few)(target)
    assert predictions.shape == (8, 1)
    assert predictions.isfinite().all()


def test_episodes_go_to_the_episode_strategies(worlds):
    short = TransferSettings(epochs=3, patience=2, outer_lr=0.01, options={"hidden_dim": 8}, stackers=("ridge",))
    learner = CrossDomainMetaLearner({name: worlds[name] for name in ("books", "music")}, "movies", settings=short)
    test = worlds["movies"].test
    predictions = learner.transfer_to_target(worlds["movies"], "prototype_based", few_shot_size=5).predict(test)
    assert predictions.shape == tuple(test.batch.query.mask.shape)
    assert learner.reasons["prototypes"] >= 2
    added = CrossDomainMetaLearner(["books", "music"], "movies", settings=short)
    for name in ("books", "music"):
        added.add_source_domain(name, None, worlds[name])
    again = added.transfer_to_target(worlds["movies"].train, "prototype_based", few_shot_size=5).predict(test)
    assert np.array_equal(again, predictions)


ROW = {"features": [0.1, 0.2], "rating": 0.5}


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "target_data must have at least one row but has none"),
        (3, "target_data must be episodes, or a list of dicts, but got int"),
        ([ROW, 4], r"target_data\[1\] must be a dict with features and rating but is int"),
        ([ROW, {"features": [1, 2]}], r'target_data\[1\] has no "rating"'),
        ([ROW, {"features": [1], "rating": 1}], r"target_data\[1\]: features must be \[F\] as the first row's, \[2\]"),
        ([ROW, {"features": [1, 2], "rating": [1, 2]}], r"rating must be one number but has the shape \[2\]"),
        ([{"features": [1, float("nan")], "rating": 1}], r"target_data\[0\]: features and rating must be finite"),
    ],
)
def test_rows_are_checked(rows, message):
    with pytest.raises(InputError, match=message):
        CrossDomainMetaLearner([], "music").transfer_to_target(rows, "scratch")


def test_names_and_models_are_checked():
    with pytest.raises(InputError, match='target_domain must not be one of the sources but "music" is'):
        CrossDomainMetaLearner(["music"], "music")
    with pytest.raises(InputError, match="seed must be an integer >= 0 but got -1"):
        CrossDomainMetaLearner([], "music", seed=-1)
    learner = CrossDomainMetaLearner(["movies"], "music")
    with pytest.raises(InputError, match='unknown source domain "movie"; did you mean "movies"'):
        learner.add_source_domain("movie", nn.Linear(2, 1), [ROW])
    with pytest.raises(InputError, match=r'model of "movies" must map features \[B, 2\] to \[B, 1\]'):
        learner.add_source_domain("movies", nn.Linear(3, 1), [ROW])
    with pytest.raises(InputError, match=r"to \[B, 1\] but made \[1, 2\]"):
        learner.add_source_domain("movies", nn.Linear(2, 2), [ROW])
    with pytest.raises(InputError, match=r'model of "movies" must be a torch.nn.Module but got function'):
        learner.add_source_domain("movies", lambda x: x, [ROW])
    with pytest.raises(InputError, match='strategy "prototype_based" needs at least one source domain but got none'):
        learner.transfer_to_target([ROW], "prototype_based")
    with pytest.raises(InputError, match='unknown strategy "prototypes"; did you mean "prototype_based"'):
        learner.transfer_to_target([ROW], "prototypes")
    with pytest.raises(InputError, match="few_shot_size must be an integer >= 1 but got 0"):
        learner.transfer_to_target([ROW], "scratch", few_shot_size=0)
    learner.add_source_domain("movies", nn.Flatten(), [{"features": [0.1], "rating": 0.5}])
    with pytest.raises(InputError, match="must have parameters that require a gradient"):
        learner.transfer_to_target([{"features": [0.1], "rating": 0.5}], "gradient_based")
