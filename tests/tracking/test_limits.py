"""The limits of one call to an MLflow store are MLflow's own, and what is sent keeps them."""

from hypothesis import given, settings
from hypothesis import strategies as st
from mlflow.store.model_registry.dbmodels.models import SqlRegisteredModel
from mlflow.store.tracking.dbmodels.models import SqlRun
from mlflow.utils import validation

from metarec.errors import NAME_BYTES
from metarec.tracking import _limits, model_name
from metarec.tracking._mlflow_runs import final_name, trial_name


def test_limits_are_those_of_mlflow():
    # Copied, because importing metarec.tracking must not import MLflow.
    assert _limits.METRICS_PER_CALL == validation.MAX_METRICS_PER_BATCH
    assert _limits.PARAMS_PER_CALL == _limits.TAGS_PER_CALL == validation.MAX_PARAMS_TAGS_PER_BATCH
    assert _limits.ENTITIES_PER_CALL == validation.MAX_ENTITIES_PER_BATCH
    assert _limits.KEY_LENGTH == validation.MAX_ENTITY_KEY_LENGTH
    assert _limits.PARAM_LENGTH == validation.MAX_PARAM_VAL_LENGTH
    assert _limits.TAG_LENGTH == validation.MAX_TAG_VAL_LENGTH
    assert _limits.DIGEST_LENGTH == validation.MAX_DATASET_DIGEST_SIZE
    assert _limits.DATASET_NAME_LENGTH == validation.MAX_DATASET_NAME_SIZE
    assert _limits.DATASET_SOURCE_LENGTH == validation.MAX_DATASET_SOURCE_SIZE
    # SQLite takes more, PostgreSQL and MySQL do not.
    assert SqlRun.__table__.c.name.type.length == _limits.RUN_NAME_LENGTH
    assert SqlRegisteredModel.__table__.c.name.type.length == _limits.MODEL_NAME_LENGTH


def test_the_names_of_runs_and_models_fit():
    study = "x" * NAME_BYTES
    assert len(model_name(study)) <= _limits.MODEL_NAME_LENGTH
    assert len(study) <= _limits.RUN_NAME_LENGTH
    name = final_name(trial_name(10**6, "y" * 1000), "interrupted", -12345.6789)
    assert len(name) <= _limits.RUN_NAME_LENGTH
    assert name.startswith("-12345.6789 · trial-1000000 y")
    assert name.endswith("(1014 characters) · interrupted")


NAMES = st.text(min_size=1, max_size=60)


@settings(deadline=None)
@given(one=NAMES, other=NAMES, model=NAMES)
def test_keys_are_accepted_and_stay_different(one, other, model):
    keys = [_limits.clean_key(f"test/{name}/{model}/rmse") for name in (one, other)]
    assert (keys[0] == keys[1]) == (one == other)
    for key in keys:
        assert len(key) <= _limits.KEY_LENGTH
        assert _limits.clean_key(key) == key
        validation._validate_metric_name(key)


@settings(deadline=None)
@given(text=st.text(alphabet=st.characters(), max_size=100), length=st.integers(40, 60))
def test_a_text_is_cut_to_what_a_store_keeps(text, length):
    kept = _limits.cut(text, length)
    assert len(kept) <= length
    assert kept.replace("\n", "").replace("\t", "").isprintable()
    kept.encode()
