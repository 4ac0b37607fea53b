"""Episodes of three simulated domains."""

import pytest

from metarec.episodes import EpisodeSettings, build_episodes
from metarec.ratings import simulate_domains

BASES = {"bias": {}, "item-knn": {"neighbours": 10}, "content": {}}


@pytest.fixture(scope="session")
def worlds():
    domains = simulate_domains(seed=0, num_users=60, num_items=60, ratings_per_user=30)
    made = EpisodeSettings(shots=5, min_query=3, max_query=8, folds=2)
    return {name: build_episodes({name: own}, name, made, BASES)[name] for name, own in domains.items()}
