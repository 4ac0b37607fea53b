"""The histories of requests, without a model."""

import numpy as np
import pytest

from metarec.errors import InputError
from metarec.model.requests._base import Requests


class Plain(Requests):
    columns, needed, flat, limit = ("user", "history"), (), ("user",), None
    entry, needed_in_entry, noun = ("item", "rating", "timestamp"), ("item", "rating"), "ratings"
    answer = signature = example = _nothing = None

    def _given(self, items, values, times):
        return times


def times_of(*times):
    entries = [{"item": str(place), "rating": 3, "timestamp": time} for place, time in enumerate(times)]
    ((found,), _) = Plain(None)._grouped([(None, entries)])
    return found


def test_times_are_in_seconds_whatever_their_unit():
    assert times_of(1_400_000_000_500, 1_400_000_001_000).tolist() == [1_400_000_000.5, 1_400_000_001]
    assert times_of(1_400_000_000, 7.5).tolist() == [1_400_000_000, 7.5]
    assert times_of(1_400_000_000_500, None) is None
    assert times_of(1_400_000_000_500, np.nan) is None
    with pytest.raises(InputError, match=r"row 0: timestamp of the history 1 must be seconds .* in one unit"):
        times_of(1_400_000_000_500, 1_400_000_000)
