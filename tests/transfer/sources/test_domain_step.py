"""The step from source models to one domain."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from metarec.transfer import few_users
from metarec.transfer.sources import DomainStep


def models(episodes, shift=0.0):
    """[T, N, 2] two poor models: the middle of the scale, and the first base."""
    first = episodes.batch.query.predictions[..., 0].nan_to_num(0.5).double().numpy()
    return np.stack([np.full_like(first, 0.5), first], axis=-1) + shift


def error(episodes, predictions):
    mask = episodes.batch.query.mask.numpy()
    return float(np.square(predictions - episodes.batch.query.targets.numpy())[mask].mean())


def test_users_of_the_domain_make_it_better_and_more_of_them_more_so(worlds):
    train, test = worlds["movies"].train, worlds["movies"].test
    alone = error(test, models(test).mean(-1))
    errors = []
    for count in (3, len(train)):
        few = few_users(train, count, 0)
        errors.append(error(test, DomainStep(few, models(few)).predict(test, models(test))))
    assert errors[1] < errors[0] < alone


def test_a_domain_that_agrees_is_left_alone(worlds):
    """Where the models are right about the few, nothing is changed for others."""
    few, test = worlds["movies"].train, worlds["movies"].test
    right = few.batch.query.targets.double().numpy()[..., None].repeat(2, -1)
    step = DomainStep(few, right)
    np.testing.assert_allclose(step.coefficients, 0, atol=1e-6)
    mask = test.batch.query.mask.numpy()
    np.testing.assert_allclose(step.predict(test, models(test))[mask], models(test).mean(-1)[mask], atol=1e-6)


def test_padding_and_order_of_users_do_not_matter(worlds):
    few = worlds["movies"].train
    order = torch.arange(len(few)).flip(0)
    one, other = DomainStep(few, models(few)), DomainStep(few.select(order), models(few)[order.numpy()])
    np.testing.assert_allclose(one.coefficients, other.coefficients, atol=1e-10)
    query = few.batch.query
    junk = torch.where(query.mask, query.targets, 7.0)
    hidden = replace(few, batch=few.batch._replace(query=query._replace(targets=junk)))
    np.testing.assert_array_equal(DomainStep(hidden, models(few)).coefficients, one.coefficients)


@pytest.mark.parametrize("shift", [-2.0, 2.0])
def test_predictions_stay_on_the_scale(worlds, shift):
    few, test = few_users(worlds["movies"].train, 2, 0), worlds["movies"].test
    predicted = DomainStep(few, models(few)).predict(test, models(test, shift))
    assert ((predicted >= 0) & (predicted <= 1)).all()
