"""The stackers: one contract for all, cases computed by hand, and worlds where one must beat another."""

from __future__ import annotations

import copy
import io
import math
import pickle
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import Ridge

from metarec.episodes import EpisodeBatch, Episodes, FusionInputs
from metarec.errors import InputError
from metarec.fusion.stackers import STACKERS, Stacker
from metarec.fusion.stackers._base import (
    Rows,
    TrainingRows,
    query_rows,
    shrunk_corrections,
    support_rows,
    true_ratings,
)
from metarec.fusion.stackers.fwls import FeatureWeightedStacker
from metarec.fusion.stackers.greedy import GreedyStacker, select
from metarec.fusion.stackers.ridge import STRENGTHS, RidgeStacker, everything, predictions_only, ridge_family
from metarec.fusion.stackers.simple import MeanStacker
from metarec.ratings import RatingScale

NAMES = STACKERS.names()
SHOTS, QUERY = 5, 12


def episodes_of(
    predictions: np.ndarray, targets: np.ndarray, *, shots: int = SHOTS, context: np.ndarray | None = None
) -> Episodes:
    """Episodes from [T, shots + N, A] predictions and [T, shots + N] targets; the first rows are the support.

    The last query row of every second task is padding. Algorithm features: whether the base has a prediction, and a
    constant. Context features: `context` [T, shots + N] (else zeros) and a constant.
    """
    tasks, rows, bases = predictions.shape
    available = np.isfinite(predictions)
    features = np.stack([available, np.ones_like(available)], -1).astype(float)
    varying = np.zeros((tasks, rows)) if context is None else context
    mask = np.ones((tasks, rows), bool)
    mask[::2, -1] = rows - shots < 2
    numbers = (predictions, features, np.stack([varying, np.ones((tasks, rows))], -1), targets)
    whole = FusionInputs(*(torch.from_numpy(array).float() for array in numbers), mask=torch.from_numpy(mask))
    support = FusionInputs(*(tensor[:, :shots] for tensor in whole))
    query = FusionInputs(*(tensor[:, shots:] for tensor in whole))
    return Episodes(
        domain="synthetic",
        scale=RatingScale(1, 5),
        base_names=tuple(f"base{base}" for base in range(bases)),
        feature_names=("says", "constant"),
        context_names=("varying", "constant"),
        batch=EpisodeBatch(support, query),
        users=np.array([f"u{task}" for task in range(tasks)]),
        support_items=np.full((tasks, shots), "i"),
        query_items=np.full((tasks, rows - shots), "i"),
        query_fallback=torch.full((tasks, rows - shots), 0.45),
        query_ratings=1 + 4 * targets[:, shots:] * mask[:, shots:],
    )


def world(
    seed: int,
    *,
    tasks: int = 120,
    noise: tuple[float, ...] = (0.08, 0.2, 0.3),
    offset: float = 0.0,
    missing: float = 0.0,
    switching: bool = False,
) -> Episodes:
    """Bases that predict the true rating with independent noise.

    offset: deviation of the users' offsets, which no base knows. missing: share of predictions that are NaN.
    switching: where the varying context feature is negative, the first two bases change roles.
    """
    rng = np.random.default_rng(seed)
    rows = SHOTS + QUERY
    training = rng.uniform(0.3, 0.7, (tasks, rows))
    spread = np.broadcast_to(noise, (tasks, rows, len(noise))).copy()
    context = rng.normal(size=(tasks, rows))
    if switching:
        turned = context < 0
        spread[turned, 0], spread[turned, 1] = noise[1], noise[0]
    predictions = np.clip(training[..., None] + spread * rng.normal(size=spread.shape), 0, 1)
    predictions[rng.random(predictions.shape) < missing] = np.nan
    users = offset * rng.normal(size=(tasks, 1))
    targets = np.clip(training + users + 0.05 * rng.normal(size=training.shape), 0, 1)
    return episodes_of(predictions, targets, context=context)


def rmse(predictions: np.ndarray, episodes: Episodes) -> float:
    mask = episodes.batch.query.mask.numpy()
    return float(np.sqrt(np.mean((predictions - episodes.batch.query.targets.numpy())[mask] ** 2)))


def with_query(episodes: Episodes, **changes: torch.Tensor) -> Episodes:
    return replace(episodes, batch=episodes.batch._replace(query=episodes.batch.query._replace(**changes)))


def uncorrected(kind: type[Stacker]) -> Stacker:
    """The stacker without its correction."""
    return type(kind.__name__, (kind,), {"shrinkages": (math.inf,)})()


@pytest.fixture(scope="module")
def train() -> Episodes:
    return world(0, missing=0.1, offset=0.05)


@pytest.fixture(scope="module")
def validation() -> Episodes:
    return world(1, tasks=40, missing=0.1, offset=0.05)


@pytest.fixture(scope="module")
def test_set() -> Episodes:
    return world(2, tasks=40, missing=0.1, offset=0.05)


@pytest.fixture(scope="module", params=NAMES)
def fitted(request: pytest.FixtureRequest, train: Episodes, validation: Episodes) -> Stacker:
    return STACKERS.get(request.param)().fit(train, validation, seed=3)


class TestContract:
    """What every stacker keeps. A new one passes by being listed in STACKERS."""

    def test_predicts_finite_clipped_ratings_of_the_query_shape(self, fitted, test_set):
        wild = with_query(test_set, context=test_set.batch.query.context * 100)
        for episodes in (test_set, wild):
            predictions = fitted.predict(episodes)
            assert predictions.shape == tuple(episodes.batch.query.mask.shape)
            assert np.isfinite(predictions).all()
            assert predictions.min() >= 0
            assert predictions.max() <= 1

    def test_the_same_seed_gives_the_same_numbers(self, fitted, train, validation, test_set):
        again = STACKERS.get(fitted.name)().fit(train, validation, seed=3)
        np.testing.assert_array_equal(again.predict(test_set), fitted.predict(test_set))
        assert again.settings == fitted.settings

    def test_is_listed_under_its_own_name(self, fitted):
        assert type(fitted) is STACKERS.get(fitted.name)

    def test_query_targets_never_reach_a_prediction(self, fitted, test_set):
        turned = with_query(test_set, targets=1 - test_set.batch.query.targets)
        np.testing.assert_array_equal(fitted.predict(turned), fitted.predict(test_set))

    def test_padding_never_reaches_a_prediction(self, fitted, train, validation, test_set):
        def spoil(episodes: Episodes) -> Episodes:
            query = episodes.batch.query
            hidden = ~query.mask
            return with_query(
                episodes,
                predictions=query.predictions.masked_fill(hidden[..., None], 9.0),
                context=query.context.masked_fill(hidden[..., None], 99.0),
                targets=query.targets.masked_fill(hidden, -7.0),
            )

        mask = test_set.batch.query.mask.numpy()
        spoiled = STACKERS.get(fitted.name)().fit(spoil(train), spoil(validation), seed=3)
        np.testing.assert_array_equal(spoiled.predict(spoil(test_set))[mask], fitted.predict(test_set)[mask])

    def test_an_episode_is_predicted_alone_as_among_others(self, fitted, test_set):
        alone = replace(
            test_set,
            batch=test_set.batch.select(torch.tensor([7])),
            users=test_set.users[7:8],
            query_fallback=test_set.query_fallback[7:8],
        )
        np.testing.assert_allclose(fitted.predict(alone)[0], fitted.predict(test_set)[7], atol=1e-12)

    def test_predictions_of_nan_are_handled(self, fitted, test_set):
        silent = torch.full_like(test_set.batch.query.predictions, torch.nan)
        predictions = fitted.predict(with_query(test_set, predictions=silent))
        assert np.isfinite(predictions).all()

    def test_inputs_are_not_changed(self, fitted, train, validation, test_set):
        before = copy.deepcopy((train, validation, test_set))
        STACKERS.get(fitted.name)().fit(train, validation).predict(test_set)
        for old, new in zip(before, (train, validation, test_set), strict=True):
            tensors = zip((*old.batch.support, *old.batch.query), (*new.batch.support, *new.batch.query), strict=True)
            assert all(torch.equal(one.nan_to_num(-1), other.nan_to_num(-1)) for one, other in tensors)

    def test_other_bases_or_features_are_refused(self, fitted, train, validation, test_set):
        others = {
            "base_names": "bases",
            "feature_names": "algorithm features",
            "context_names": "context features",
        }
        for field, word in others.items():
            odd = replace(test_set, **{field: getattr(test_set, field)[::-1]})
            with pytest.raises(InputError, match=f"fitted on the {word} .* but these episodes have"):
                fitted.predict(odd)
            with pytest.raises(InputError, match=f"{word} .* but validation episodes have"):
                STACKERS.get(fitted.name)().fit(train, odd)

    def test_unfitted_or_misused_is_refused(self, fitted, train, validation, test_set):
        fresh = STACKERS.get(fitted.name)()
        for ask in (lambda: fresh.predict(test_set), lambda: fresh.settings, lambda: fresh.validation_rmse):
            with pytest.raises(RuntimeError, match="is not fitted"):
                ask()
        with pytest.raises(InputError, match="seed must be >= 0 but got -1"):
            fresh.fit(train, validation, seed=-1)
        empty = with_query(train, mask=torch.zeros_like(train.batch.query.mask))
        with pytest.raises(InputError, match="at least one query row in the train episodes"):
            fresh.fit(empty, validation)

    def test_validation_rmse_is_what_predict_gets_there(self, fitted, validation):
        assert fitted.validation_rmse == pytest.approx(rmse(fitted.predict(validation), validation), abs=1e-9)

    def test_survives_pickling(self, fitted, test_set):
        copied = pickle.loads(pickle.dumps(fitted))
        np.testing.assert_array_equal(copied.predict(test_set), fitted.predict(test_set))

    def test_no_support_is_no_obstacle(self, fitted, train, validation, test_set):
        def cold(episodes: Episodes) -> Episodes:
            support = episodes.batch.support
            hidden = support._replace(mask=torch.zeros_like(support.mask))
            return replace(episodes, batch=episodes.batch._replace(support=hidden))

        stacker = STACKERS.get(fitted.name)().fit(cold(train), cold(validation))
        assert np.isfinite(stacker.predict(cold(test_set))).all()
        assert stacker.settings["correction_shrinkage"] is None

    def test_tiny_data_fits(self, fitted):
        tiny = world(5, tasks=2, noise=(0.1,))
        assert np.isfinite(STACKERS.get(fitted.name)().fit(tiny, tiny).predict(tiny)).all()


def test_a_stacker_of_the_same_state_predicts_the_same(fitted, test_set):
    """Through plain arrays, as a model keeps them."""
    file = io.BytesIO()
    np.savez(file, **fitted.state())
    file.seek(0)
    restored = type(fitted)().restore(dict(np.load(file, allow_pickle=False)))
    # A product with one column is added up in another order than with many.
    close = {"rtol": 0, "atol": 1e-12}
    np.testing.assert_allclose(restored.predict(test_set), fitted.predict(test_set), **close)
    again = type(fitted)().restore(restored.state())
    np.testing.assert_allclose(again.predict(test_set), fitted.predict(test_set), **close)
    assert restored.settings == fitted.settings
    assert restored.validation_rmse == fitted.validation_rmse
    with pytest.raises(InputError, match="was fitted on the bases"):
        restored.predict(replace(test_set, base_names=("other", "names", "here")))


@pytest.mark.parametrize("name", NAMES)
def test_at_least_as_good_as_the_mean_where_one_base_is_better(name):
    train, validation, test = world(10), world(11, tasks=40), world(12, tasks=60)
    plain = rmse(MeanStacker().fit(train, validation).predict(test), test)
    found = rmse(STACKERS.get(name)().fit(train, validation).predict(test), test)
    assert found <= plain + 1e-12 if name == "mean" else found < 0.8 * plain


@pytest.mark.parametrize("name", ["fwls", "gbm"])
def test_finds_that_the_best_base_depends_on_the_context(name):
    train, validation, test = (
        world(seed, tasks=tasks, switching=True, noise=(0.02, 0.3)) for seed, tasks in ((20, 250), (21, 60), (22, 60))
    )
    linear = rmse(RidgeStacker().fit(train, validation).predict(test), test)
    assert rmse(STACKERS.get(name)().fit(train, validation).predict(test), test) < 0.95 * linear


@pytest.mark.parametrize("name", NAMES)
def test_the_correction_helps_when_users_have_offsets_and_does_not_hurt_when_they_have_none(name):
    kind = STACKERS.get(name)
    for offset, most in ((0.15, 0.85), (0.0, 1.01)):
        train, validation, test = (
            world(seed, tasks=tasks, offset=offset) for seed, tasks in ((30, 100), (31, 60), (32, 60))
        )
        without = rmse(uncorrected(kind).fit(train, validation).predict(test), test)
        assert rmse(kind().fit(train, validation).predict(test), test) < most * without + 1e-12


@pytest.mark.parametrize("name", [name for name in NAMES if name != "gbm"])  # its trees stop on validation users
def test_validation_targets_choose_but_are_not_learned_from(name, train, validation):
    training = TrainingRows(query_rows(train), true_ratings(train.batch.query), train.base_names)
    held_out = TrainingRows(query_rows(validation), true_ratings(validation.batch.query), validation.base_names)
    right = STACKERS.get(name)()._families(training, held_out, 3)
    wrong = STACKERS.get(name)()._families(training, held_out._replace(targets=1 - held_out.targets), 3)
    for one, other in zip(right, wrong, strict=True):
        np.testing.assert_array_equal(one.combine(held_out.rows), other.combine(held_out.rows))


def test_a_correction_must_gain_more_than_noise():
    """With no offsets a few validation users favour some shrinkage in about every other world, by luck."""
    lucky = corrected = 0
    for seed in range(20):
        episodes = world(seed + 50, tasks=25)
        stacker = MeanStacker().fit(episodes, episodes)
        held_out = TrainingRows(query_rows(episodes), true_ratings(episodes.batch.query), episodes.base_names)
        scores = stacker._scores(stacker._checked().combine, episodes, held_out)[:, 0]
        lucky += int(np.argmin(scores) > 0)
        corrected += stacker.settings["correction_shrinkage"] is not None
    assert lucky >= 6
    assert corrected <= lucky / 2


def test_importing_the_package_imports_no_heavy_engine():
    code = (
        "import sys, metarec.fusion.stackers as s; s.STACKERS.names(); "
        "print([name for name in ('lightgbm', 'sklearn') if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


# By hand


def test_mean_is_of_the_available_bases_and_the_fallback_where_there_is_none():
    nan = np.nan
    predictions = np.array([[[0.2, 0.6], [0.4, nan], [nan, nan]]])
    episodes = episodes_of(predictions, np.full((1, 3), 0.5), shots=0)
    episodes = with_query(episodes, mask=torch.ones(1, 3, dtype=torch.bool))
    stacker = MeanStacker().fit(episodes, episodes)
    np.testing.assert_allclose(stacker.predict(episodes), [[0.4, 0.4, 0.45]], atol=1e-7)


def test_best_single_is_the_best_on_validation_and_names_it():
    train = world(40, noise=(0.05, 0.2))
    validation = world(41, noise=(0.2, 0.05))
    stacker = uncorrected(STACKERS.get("best-single")).fit(train, validation)
    assert stacker.settings == {"base": "base1", "correction_shrinkage": None}
    mask = validation.batch.query.mask
    np.testing.assert_allclose(
        stacker.predict(validation)[mask.numpy()], validation.batch.query.predictions[..., 1][mask], atol=1e-6
    )


def test_query_rows_take_the_fallback_and_support_rows_the_mean_of_the_others():
    predictions = np.array([[[0.2, np.nan, 0.6], [0.1, np.nan, 0.3]]])
    episodes = episodes_of(predictions, np.zeros((1, 2)), shots=1)
    np.testing.assert_allclose(support_rows(episodes).predictions, [[0.2, 0.4, 0.6]], atol=1e-7)
    np.testing.assert_allclose(query_rows(episodes).predictions, [[0.1, 0.45, 0.3]], atol=1e-7)


def test_a_correction_is_the_sum_of_residuals_over_their_number_plus_the_shrinkage():
    residuals = np.array([[0.3], [0.1], [-0.2]])
    corrections = shrunk_corrections(residuals, np.array([0, 0, 2]), 3, 2.0)
    np.testing.assert_allclose(corrections, [[0.1], [0.0], [-0.2 / 3]])
    np.testing.assert_array_equal(shrunk_corrections(residuals, np.array([0, 0, 2]), 3, math.inf), np.zeros((3, 1)))


def test_greedy_selects_as_by_hand():
    # Errors: base 0 (1, 1), base 1 (-1, 2), base 2 (3, 3). Squared, summed: 2, 5, 18. Starting from base 0, adding 0
    # again gives (1, 1): 2; adding 1 gives (0, 1.5): 2.25; so 0 is added; then 1: (1/3, 4/3), 17/9 < 2; then
    # from sums (1, 4): 0 gives (2, 5)/4: 29/16 = 1.8125; 1 gives (0, 6)/4: 2.25.
    errors = np.array([[1.0, -1.0, 3.0], [1.0, 2.0, 3.0]])
    path = select(errors.T @ errors / 2, [np.arange(3)], initial=1, steps=3)[0]
    np.testing.assert_allclose(path.T, [[1, 0, 0], [1, 0, 0], [2 / 3, 1 / 3, 0], [3 / 4, 1 / 4, 0]])
    two = select(errors.T @ errors / 2, [np.arange(3)], initial=2, steps=0)[0]
    np.testing.assert_allclose(two.T, [[1 / 2, 1 / 2, 0]])
    only = select(errors.T @ errors / 2, [np.array([1, 2])], initial=1, steps=2)[0]
    assert only[0].sum() == 0


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 6))
def test_greedy_adds_the_base_that_a_plain_search_would_add(seed, bases):
    rng = np.random.default_rng(seed)
    predictions, targets = rng.random((30, bases)), rng.random(30)
    errors = predictions - targets[:, None]
    path = select(errors.T @ errors / 30, [np.arange(bases)], initial=1, steps=4)[0]
    counts = np.zeros(bases)
    counts[np.argmin((errors**2).mean(0))] = 1
    for step in range(1, 5):
        tried = [(((predictions @ (counts + one)) / (counts.sum() + 1) - targets) ** 2).mean() for one in np.eye(bases)]
        counts[np.argmin(tried)] += 1
        np.testing.assert_allclose(path[:, step], counts / counts.sum())


def test_greedy_weights_sum_to_one_for_every_setting(train, validation):
    training = TrainingRows(query_rows(train), true_ratings(train.batch.query), train.base_names)
    families = list(GreedyStacker()._families(training, training, 0))
    for family in families:
        np.testing.assert_allclose(family.combine.weights.sum(0), 1.0)
    assert {setting["bagged"] for family in families for setting in family.settings} == {True, False}


def training_rows(seed: int) -> TrainingRows:
    rng = np.random.default_rng(seed)
    rows = Rows(
        predictions=rng.random((200, 3)),
        mean=np.zeros(200),
        algorithm_features=rng.normal(size=(200, 3, 2)),
        context=np.concatenate([rng.normal(size=(200, 1)), np.ones((200, 1))], 1),
        task=np.arange(200),
    )
    rows = rows._replace(mean=rows.predictions.mean(1))
    targets = rows.predictions @ [0.6, 0.3, -0.2] + 0.1 * rng.normal(size=200)
    return TrainingRows(rows, targets, ("a", "b", "c"))


def test_ridge_is_the_closed_form_for_every_penalty_and_both_targets():
    training, others = training_rows(0), training_rows(1)
    family = ridge_family(everything, {}, training)
    found = family.combine(others.rows)
    columns, new = everything(training.rows)[:, :-1], everything(others.rows)[:, :-1]  # the last one is constant
    mean, spread = columns.mean(0), columns.std(0)
    x, new = (columns - mean) / spread, (new - mean) / spread
    assert len(family.settings) == 2 * len(STRENGTHS)
    for column, setting in enumerate(family.settings):
        start = 0.0 if setting["predicts"] == "rating" else 1.0
        y = training.targets - start * training.rows.mean
        inverse = np.linalg.inv(x.T @ x + setting["alpha"] * np.eye(x.shape[1]))
        by_hand = new @ inverse @ x.T @ (y - y.mean()) + y.mean() + start * others.rows.mean
        np.testing.assert_allclose(found[:, column], by_hand, atol=1e-9)
        sklearn = Ridge(alpha=setting["alpha"]).fit(x, y).predict(new) + start * others.rows.mean
        np.testing.assert_allclose(found[:, column], sklearn, atol=1e-9)


def test_ridge_shrinks_to_the_mean_of_the_bases_and_loosens_to_least_squares():
    training, others = training_rows(0), training_rows(1)
    family = ridge_family(predictions_only, {}, training)
    found = family.combine(others.rows)
    tightest, loosest = 0, len(STRENGTHS) - 1
    shift = (training.targets - training.rows.mean).mean()
    np.testing.assert_allclose(found[:, tightest], others.rows.mean + shift, atol=2e-3)
    design = np.column_stack([training.rows.predictions, np.ones(200)])
    weights = np.linalg.lstsq(design, training.targets, rcond=None)[0]
    free = np.column_stack([others.rows.predictions, np.ones(200)]) @ weights
    np.testing.assert_allclose(found[:, loosest], free, atol=1e-5)


def test_fwls_with_no_meta_feature_but_the_constant_is_ridge_on_predictions():
    """Both with the setting and with a constant context."""
    training, others = training_rows(0), training_rows(1)
    bare = training._replace(rows=training.rows._replace(context=training.rows.context[:, 1:]))
    new = others.rows._replace(context=others.rows.context[:, 1:])
    expected = next(RidgeStacker()._families(bare, bare, 0)).combine(new)
    constant, by_context, _ = FeatureWeightedStacker()._families(bare, bare, 0)
    np.testing.assert_array_equal(constant.combine(new), expected)
    free = [column for column, setting in enumerate(by_context.settings) if setting["alpha"] < 1e-2]
    np.testing.assert_allclose(by_context.combine(new)[:, free], expected[:, free], atol=1e-4)


def test_every_booster_adds_up_to_the_rating(train, validation):
    """Whether it predicts the rating or the residual; choosing would hide one that forgets the mean."""
    training, held_out = (
        TrainingRows(query_rows(episodes), true_ratings(episodes.batch.query), episodes.base_names)
        for episodes in (train, validation)
    )
    families = list(STACKERS.get("gbm")()._families(training, held_out, 0))
    assert len(families) >= 10
    plain = np.mean((held_out.rows.mean - held_out.targets) ** 2)
    for family in families:
        assert np.mean((family.combine(held_out.rows)[:, 0] - held_out.targets) ** 2) < plain
