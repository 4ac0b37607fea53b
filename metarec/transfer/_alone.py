"""What the few users of a target say by themselves."""

from __future__ import annotations

import numpy as np

from metarec.episodes import Episodes
from metarec.transfer._domain_step import DomainStep
from metarec.transfer._few import CrossFitted, deal_places
from metarec.transfer._out_of_fold import squared_errors, stepped_out_of_fold

__all__ = ["Alone", "alone_out_of_fold"]


class Alone:
    """What a few users say without any source: the mean of the bases, or what is clearly better.

    That may be one base, or a step from the mean to the few users, as it is taken from what sources teach: so what
    stands against the sources differs from them by what they teach and by nothing else. Clearly: by more than one
    standard error over the users. Of a handful of them the best of six bases is often luck.
    """

    def __init__(self, few: Episodes, folds: int, seed: int) -> None:
        said = {name: CrossFitted(name, few, 1, seed) for name in ("mean", "best-single")}
        errors = {name: squared_errors(few, model.predict(few)) for name, model in said.items()}
        start = said["mean"]
        if len(few) > 1:
            errors["stepped-mean"] = squared_errors(few, stepped_out_of_fold(few, _mean(start, few), folds, seed))
        self.name = "mean"
        for name, own in errors.items():
            ahead = errors[self.name] - own
            if float(ahead.sum()) > float(ahead.std()) * len(ahead) ** 0.5:
                self.name = name
        self._model = said.get(self.name)
        self._start = start
        self._step = DomainStep(few, _mean(start, few)) if self._model is None else None

    def predict(self, episodes: Episodes) -> np.ndarray:
        if self._model is not None:
            return self._model.predict(episodes)
        assert self._step is not None
        return self._step.predict(episodes, _mean(self._start, episodes))


def _mean(start: CrossFitted, episodes: Episodes) -> np.ndarray:
    return start.predict(episodes)[..., None]


def alone_out_of_fold(few: Episodes, folds: int, seed: int) -> np.ndarray:
    """[U, N] predictions for a few users, each by what the others of them say; a single one has no others."""
    predictions = np.full(tuple(few.batch.query.mask.shape), 0.5)
    for others, part in deal_places(len(few), folds, seed):
        known = few.select(others) if len(others) else few
        predictions[part.numpy()] = Alone(known, folds, seed).predict(few.select(part))
    return predictions
