"""The limits of one call to an MLflow store are MLflow's own."""

from mlflow.utils import validation

from metarec.tracking import _limits


def test_limits_are_those_of_mlflow():
    # Copied, because importing metarec.tracking must not import MLflow.
    assert _limits.METRICS_PER_CALL == validation.MAX_METRICS_PER_BATCH
    assert _limits.PARAMS_PER_CALL == _limits.TAGS_PER_CALL == validation.MAX_PARAMS_TAGS_PER_BATCH
    assert _limits.ENTITIES_PER_CALL == validation.MAX_ENTITIES_PER_BATCH
    assert _limits.KEY_LENGTH == validation.MAX_ENTITY_KEY_LENGTH
    assert _limits.PARAM_LENGTH == validation.MAX_PARAM_VAL_LENGTH
    assert _limits.TAG_LENGTH == validation.MAX_TAG_VAL_LENGTH
    assert _limits.DIGEST_LENGTH == validation.MAX_DATASET_DIGEST_SIZE
