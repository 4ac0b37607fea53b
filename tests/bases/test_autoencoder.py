"""The autoencoder's draw of histories."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from metarec.bases.autoencoder import draw_histories


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(2, 30), min_size=1, max_size=8), st.integers(0, 99))
def test_every_user_has_input_and_target(lengths, seed):
    lengths = np.array(lengths)
    is_input, counts = draw_histories(lengths, np.random.default_rng(seed))
    owner = np.repeat(np.arange(len(lengths)), lengths)
    drawn = np.bincount(owner, weights=is_input, minlength=len(lengths))
    np.testing.assert_array_equal(drawn, counts)
    assert ((counts >= 1) & (counts < lengths)).all()


def test_short_histories_are_as_likely_as_long_ones():
    _, counts = draw_histories(np.full(4000, 101), np.random.default_rng(0))
    assert 0.4 < np.mean(counts < 10) < 0.6
