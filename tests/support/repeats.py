"""Events that repeat."""

import numpy as np
import pandas as pd

DAY = 86_400


def events(num_users=30, num_items=40, seed=0):
    """A shop in which a user takes a new item each day, and every third day takes an earlier one as well."""
    rng = np.random.default_rng(seed)
    rows = []
    for user in range(num_users):
        half = np.arange(num_items // 2) + (user % 2) * (num_items // 2)
        own = rng.permutation(half)[: rng.integers(6, 10)]
        for day, item in enumerate(own):
            rows.append((f"u{user:02d}", f"i{item:02d}", 1.0 + day % 2, DAY * day))
            if day % 2 == 1:
                again = own[rng.integers(day)]
                rows.append((f"u{user:02d}", f"i{again:02d}", 2.0, DAY * day + 60))
    return pd.DataFrame(rows, columns=["user", "item", "weight", "timestamp"])
