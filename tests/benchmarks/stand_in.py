"""Models that take no time, behind the functions that the benchmark calls; run as a program it is the whole command.

Users with ten ratings or more count. Two bases (the items' mean over the train users, the mean of the user's support),
two baselines (their mean, the first of them), and as metarec the mean with a little noise of its own seed.
"""

import os
import time
from pathlib import Path

import numpy as np
import torch

from benchmarks.cold import run as cold_users
from benchmarks.cold.cells import Models
from metarec.episodes import DomainEpisodes, EpisodeBatch, Episodes, FusionInputs

# Named by the tests: a file to which each computed cell adds a line, and the seconds that a cell takes.
LOG = "STAND_IN_LOG"
PAUSE = "STAND_IN_PAUSE"


class Folds:
    def __init__(self, domain, settings, folds):
        self.domain, self.settings, self.num_folds = domain, settings, folds
        counts = domain.ratings["user"].value_counts()
        self.users = sorted(counts.index[counts >= 10])

    def episodes(self, fold, shots):
        roles = {
            user: "test" if place % self.num_folds == fold else "validation" if place % self.num_folds == 0 else "train"
            for place, user in enumerate(self.users)
        }
        ratings = self.domain.ratings
        seen = ratings[ratings["user"].map(roles) == "train"]
        means = seen.groupby("item")["rating"].mean()
        return DomainEpisodes(
            *(
                self._cut([user for user in self.users if roles[user] == role], shots, means)
                for role in ("train", "validation", "test")
            )
        )

    def _cut(self, users, shots, means):
        scale, width = self.domain.scale, self.settings.max_query
        count = len(users)
        items, truth = np.full((count, width), "", dtype=object), np.zeros((count, width))
        predictions, mask = np.full((count, width, 2), 0.5), np.zeros((count, width), dtype=bool)
        support_items, support = np.full((count, shots), "", dtype=object), np.zeros((count, shots))
        for row, user in enumerate(users):
            own = self.domain.ratings[self.domain.ratings["user"] == user].sort_values("timestamp")
            first, rest = own.iloc[:shots], own.iloc[shots : shots + width]
            support_items[row], support[row] = first["item"], scale.to_unit(first["rating"])
            items[row, : len(rest)], truth[row, : len(rest)] = rest["item"], rest["rating"]
            mask[row, : len(rest)] = True
            by_item = rest["item"].map(means).fillna(means.mean()).to_numpy()
            predictions[row, : len(rest), 0] = scale.to_unit(by_item)
            predictions[row, : len(rest), 1] = support[row].mean()
        sides = [
            FusionInputs(
                torch.from_numpy(values).float(),
                torch.zeros(*values.shape, 1),
                torch.zeros(*values.shape[:2], 1),
                torch.from_numpy(targets).float(),
                torch.from_numpy(rows),
            )
            for values, targets, rows in (
                (np.full((count, shots, 2), 0.5), support, np.ones((count, shots), dtype=bool)),
                (predictions, np.where(mask, scale.to_unit(truth), 0.0), mask),
            )
        ]
        fallback = torch.full((count, width), 0.5)
        names = ("items", "support")
        return Episodes(
            self.domain.name,
            scale,
            names,
            ("none",),
            ("none",),
            EpisodeBatch(*sides),
            np.array(users, dtype=object),
            support_items,
            items,
            fallback,
            truth,
        )


def cross_validate(domain, settings, bases, *, shots, folds, seed, cache, jobs, on_progress=None):
    if on_progress:
        on_progress(1, 1, f"{domain.name}: items")
    return Folds(domain, settings, folds)


def baseline_predictions(episodes, seed):
    _computed("baselines", episodes)
    predictions = episodes.test.batch.query.predictions[episodes.test.batch.query.mask].numpy()
    own = {"mean": predictions.mean(-1), "best-single": predictions[..., 0]}
    return own, {"mean": {"chosen": np.float64(0.5)}}


def metarec_predictions(episodes, seed):
    _computed(f"metarec {seed}", episodes)
    mean = episodes.test.batch.query.predictions[episodes.test.batch.query.mask].numpy().mean(-1)
    noise = np.random.default_rng(seed).normal(0, 0.02, mean.shape)
    models = {"metarec": mean + noise, "network": mean + 10 * noise}
    return {name: np.clip(own, 0, 1) for name, own in models.items()}, {"seed": seed}


def models():
    return Models(cross_validate, baseline_predictions, metarec_predictions)


def _computed(what, episodes):
    time.sleep(float(os.environ.get(PAUSE, 0)))
    if LOG in os.environ:
        with Path(os.environ[LOG]).open("a") as file:
            file.write(f"{what} {episodes.test.domain} {episodes.test.users[0]}\n")
    if torch.get_num_threads() != 1:
        raise AssertionError(f"a cell runs on {torch.get_num_threads()} threads")


if __name__ == "__main__":
    # Workers do not import the main module, so that the functions must come from another one.
    from importlib import import_module

    cold_users.main(import_module("stand_in").models)
