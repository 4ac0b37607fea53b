"""The contract of a base recommender, and the small class that the built-in ones share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple, Protocol, Self, runtime_checkable

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict, ValidationError
from scipy import sparse

from metarec.errors import InputError
from metarec.ratings import Domain
from metarec.registry import suggest

__all__ = ["Answer", "BaseConfig", "BaseRecommender", "HistoryQuery", "Learned", "Recommender", "predict_queries"]

Learned = np.ndarray | sparse.csr_array | float
"""What a base may keep of what it has learned: arrays of numbers or of text, sparse ones, numbers."""


@runtime_checkable
class BaseRecommender(Protocol):
    """Anything that predicts ratings of items from a user's history. This is all that a plug-in has to offer.

    A base never learns who the user is: it sees the history and nothing else (fold-in), so it serves users that were
    not there when it was fitted.

    It may also offer ``evidence(history, items)``, which is no part of the protocol: [n] finite numbers >= 0, how much
    each prediction rests on, in a unit of its own. Without it every prediction counts 1.

    And it may offer ``state()``, a mapping of names to :data:`Learned`, and ``restore(state)``, which makes the same
    recommender of it. So its models are loaded without a pickle and without a fit. Without these it is fitted again
    on the ratings that the model keeps, whenever the model is loaded.
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
            [n] predictions; NaN where the recommender cannot say.
        """
        ...


class HistoryQuery(NamedTuple):
    """One call of a base: items to predict from a history. Plain arrays, because there are tens of thousands."""

    history_items: np.ndarray
    history_ratings: np.ndarray
    items: np.ndarray


class Answer(NamedTuple):
    """What a base says to one query of n items.

    Attributes:
        predictions: [n] in the domain's own units, NaN where it cannot say.
        evidence: [n] how much each rests on: >= 0, the larger the more, and 0 where it cannot say. The unit is the
            base's own; the built-in ones count what they know of this user, so an empty history gives 0.
    """

    predictions: np.ndarray
    evidence: np.ndarray


class BaseConfig(BaseModel):
    """What all settings of base recommenders share: they are frozen and know no extra keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Recommender(ABC):
    """A built-in base recommender: its settings, and predictions for many queries at once.

    A subclass names itself, names its `Config`, and writes `fit` and `predict_queries`; `predict` comes from these.

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

    @abstractmethod
    def fit(self, domain: Domain) -> Self: ...

    @abstractmethod
    def predict_queries(self, queries: Sequence[HistoryQuery]) -> list[np.ndarray]:
        """One array of predictions for each query, in the domain's own units, NaN where it cannot say."""

    def predict(self, history: pd.DataFrame, items: np.ndarray) -> np.ndarray:
        query = HistoryQuery(
            history["item"].astype(str).to_numpy(dtype=object),
            history["rating"].to_numpy(dtype=np.float64),
            np.asarray(items).astype(str).astype(object),
        )
        return self.predict_queries([query])[0]

    def __repr__(self) -> str:
        options = ", ".join(f"{key}={value!r}" for key, value in self.config.model_dump().items())
        return f"{type(self).__name__}({options})"


def predict_queries(base: BaseRecommender, queries: Sequence[HistoryQuery]) -> list[np.ndarray]:
    """Ask any base for many predictions: batched where the base can, one by one where it is a plain plug-in.

    Raises:
        ValueError: the base answered with another number of predictions than it was asked for.
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
