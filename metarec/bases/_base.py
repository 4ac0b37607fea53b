"""The interface of base recommenders, and the base class of the built-in ones."""

from __future__ import annotations

import traceback
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Protocol, Self, runtime_checkable

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict, ValidationError

from metarec.errors import InputError
from metarec.ratings import Domain
from metarec.registry import suggest

__all__ = [
    "Answer",
    "BaseConfig",
    "BaseRecommender",
    "Configured",
    "HistoryQuery",
    "Recommender",
    "base_errors",
    "predict_queries",
]


@runtime_checkable
class BaseRecommender(Protocol):
    """Predicts ratings of items from a user's history. A plug-in needs no more than this.

    A base sees the history only, never the user's id (fold-in), so it predicts for users outside of its fit.

    Optional: ``evidence(history, items)``, [n] finite numbers >= 0, the evidence of each prediction in the base's own
    unit; without it the evidence is 1.

    Optional: ``searched``, a mapping of options with a default to :class:`~metarec.bases.Range` or
    :class:`~metarec.bases.Choices`, which a study with `tune_bases` tunes; without it the options stay as they are.

    Optional: ``state()``, a mapping of names to :data:`~metarec.bases.Learned`, and ``restore(state)``, which makes the
    same recommender of it and checks what it takes. With them a model is loaded without a pickle and without a fit;
    without them the base is fitted again on the model's ratings at every load.
    """

    name: str

    def fit(self, domain: Domain) -> Self:
        """Learn from the ratings (and item features) of `domain`."""
        ...

    def predict(self, history: pd.DataFrame, items: np.ndarray) -> np.ndarray:
        """Predict ratings in the domain's own units.

        Args:
            history: the user's ratings so far, columns ``item`` and ``rating``; may be empty.
            items: [n] item ids.

        Returns:
            [n] predictions; NaN for none.
        """
        ...


class HistoryQuery(NamedTuple):
    """Items to predict from a history. Plain arrays, because there are tens of thousands of queries."""

    history_items: np.ndarray
    history_ratings: np.ndarray
    items: np.ndarray


class Answer(NamedTuple):
    """A base's predictions for one query of n items.

    Attributes:
        predictions: [n] in the domain's own units, NaN for none.
        evidence: [n] the evidence of each: >= 0, larger for more, and 0 for NaN. The unit is the base's own; for the
            built-in ones it grows with the history, and an empty history gives 0.
    """

    predictions: np.ndarray
    evidence: np.ndarray


class BaseConfig(BaseModel):
    """The base class of base recommenders' settings: frozen, without extra keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Configured:
    """Has settings, which are checked when it is made.

    Args:
        options: settings by name, as in the subclass' `Config`.

    Raises:
        InputError: an option that is unknown or out of its range.
    """

    name: ClassVar[str]
    Config: ClassVar[type[BaseConfig]] = BaseConfig

    def __init__(self, **options: Any) -> None:
        try:
            self.config = self.Config(**options)
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(map(str, first["loc"]))
            problem = f"{first['msg']}, but got {first['input']!r}"
            if first["type"] == "extra_forbidden":
                problem = f"there is no such setting; {suggest(key, self.Config.model_fields)}"
            raise InputError(f"bases.{self.name}.{key}: {problem}") from None

    def __repr__(self) -> str:
        options = ", ".join(f"{key}={value!r}" for key, value in self.config.model_dump().items())
        return f"{type(self).__name__}({options})"


class Recommender(Configured, ABC):
    """A built-in base recommender: its settings, and predictions for many queries at once.

    A subclass defines `name`, `Config`, `fit` and `predict_queries`; `predict` is derived.
    """

    @abstractmethod
    def fit(self, domain: Domain) -> Self: ...

    @abstractmethod
    def predict_queries(self, queries: Sequence[HistoryQuery]) -> list[np.ndarray]:
        """One array of predictions for each query, in the domain's own units, NaN for none."""

    def predict(self, history: pd.DataFrame, items: np.ndarray) -> np.ndarray:
        query = HistoryQuery(
            history["item"].astype(str).to_numpy(dtype=object),
            history["rating"].to_numpy(dtype=np.float64),
            np.asarray(items).astype(str).astype(object),
        )
        return self.predict_queries([query])[0]


@contextmanager
def base_errors(name: str, where: str) -> Iterator[None]:
    """Turn any error of the base `name` into an InputError, which names it, `where` it failed, and the line of code."""
    try:
        yield
    except InputError:
        raise
    # A plug-in may also raise SystemExit, which would end the process without a word.
    except (Exception, SystemExit) as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        problem = f"{type(error).__name__}: {error}".rstrip(": ")
        raise InputError(
            f'base recommender "{name}" fails on {where}: {problem} '
            f"({Path(last.filename).name}, line {last.lineno}); correct it, or leave it out of bases"
        ) from error


def predict_queries(base: BaseRecommender, queries: Sequence[HistoryQuery]) -> list[np.ndarray]:
    """Predictions of any base for many queries: batched for built-in bases, one by one for plug-ins.

    Raises:
        ValueError: the base returned a wrong number of predictions.
    """
    if isinstance(base, Recommender):
        return base.predict_queries(queries)
    answers = []
    for query in queries:
        history = pd.DataFrame({"item": query.history_items, "rating": query.history_ratings})
        answer = np.asarray(base.predict(history, query.items), dtype=np.float64)
        if answer.shape != (len(query.items),):
            raise ValueError(
                f"base recommender {base.name} must return {len(query.items)} predictions "
                f"but returned an array of shape {answer.shape}"
            )
        answers.append(answer)
    return answers
