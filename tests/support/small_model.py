"""``python tests/support/small_model.py``: makes the model of `tests/fuzz/corpus/model` anew, after a new format."""

import shutil
import tempfile
from functools import partial
from pathlib import Path

from metarec.episodes import EpisodeSettings, TaskMaker, build_episodes
from metarec.meta import NetworkConfig
from metarec.model import FusedRecommender, Fusion, FusionConfig, save_model
from metarec.model.mlflow_model import write_mlflow_model
from metarec.ratings import simulate_domains

FOLDER = Path(__file__).parents[1] / "fuzz" / "corpus" / "model"

BASES = {
    **{name: {} for name in ("bias", "item-knn", "user-knn", "content")},
    "biased-mf": {"features": 2, "epochs": 2},
    "autoencoder": {"hidden": 2, "epochs": 1},
}


def write(folder):
    """Write an MLflow model with each kind of base, a network, and each kind of stacker."""
    domain = simulate_domains(3, num_users=24, num_items=20, ratings_per_user=15)["movies"]
    settings = EpisodeSettings(shots=3, folds=2, min_query=3)
    episodes = build_episodes({"movies": domain}, "movies", settings, BASES)["movies"]
    networks = {"network": NetworkConfig(options={"hidden_dim": 3}, epochs=1)}
    config = FusionConfig(
        networks=networks, stackers=("best-single", "ridge", "fwls", "greedy", "gbm"), weights="equal"
    )
    fusion = Fusion(config).fit(episodes)
    maker = TaskMaker.fit(domain, BASES, episodes.standards)
    users = frozenset(domain.ratings["user"])
    recommender = FusedRecommender(maker, fusion, domain.name, domain.ratings, users, max_history=12)
    save = partial(save_model, recommender, bases=BASES, seed=0, items=domain.items)
    with tempfile.TemporaryDirectory() as scratch:
        whole = Path(scratch) / "model"
        write_mlflow_model(whole, recommender, save)
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(whole, folder)


if __name__ == "__main__":
    write(FOLDER)
