"""A fusion scorer for LensKit: it is trained on a LensKit dataset and used in LensKit's pipelines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any

import numpy as np
import pandas as pd
from lenskit.data import Dataset, ItemList, QueryInput, RecQuery, Vocabulary
from lenskit.pipeline import Component
from lenskit.training import Trainable, TrainingOptions
from pydantic import BaseModel, ConfigDict, Field, field_validator

from metarec.bases import BASES, BaseRecommender, applicable_bases, make_base
from metarec.episodes import DomainEpisodes, EpisodeSettings, History, TaskMaker, assign_roles, build_episodes
from metarec.errors import InputError
from metarec.fusion import NETWORKS
from metarec.meta import NetworkConfig
from metarec.model import FusedRecommender, Fusion, FusionConfig
from metarec.model.recommender import NO_HISTORY
from metarec.ratings import Domain, RatingScale, infer_scale
from metarec.threads import one_thread

__all__ = ["FusionScorer", "FusionScorerConfig"]

PARTS = 10
"""The number of parts of a history whose own items are scored: see :meth:`FusionScorer.__call__`."""

FEWEST = 1e-9
"""The share of test users. It must be above 0, and this share makes a single test user."""


def _without_options(names: Sequence[str]) -> dict[str, dict[str, Any]]:
    return {name: {} for name in names}


class FusionScorerConfig(BaseModel):
    """Settings of :class:`FusionScorer`. All other settings are those of a study's first trial."""

    model_config = ConfigDict(extra="forbid")

    bases: dict[str, dict[str, Any]] = Field(default_factory=lambda: _without_options(BASES.names()))
    "Base recommenders: a list of names, or name: options. `content` is used only if items have attributes."
    network: str = "gated"
    "Name of a fusion network."
    options: dict[str, Any] = Field(default_factory=dict)
    "Arguments of its constructor."
    shots: tuple[Annotated[int, Field(ge=0, le=200)], ...] = Field((5, 20, 80), min_length=1)
    "Numbers of support ratings in training. A user with at least five more ratings makes an episode of each."
    max_history: int = Field(200, ge=1)
    "A longer history is cut to so many of its latest ratings. The time of a user grows with their square."
    inner_lr: float = Field(0.02, gt=0)
    "Rate of the steps on a user's own ratings."
    inner_steps: int = Field(1, ge=0)
    "Number of these steps; 0 does not adapt."
    learning_rate: float = Field(3e-3, gt=0)
    "Rate of Adam over users."
    epochs: int = Field(60, ge=1)
    "The most passes over the users."
    patience: int = Field(12, ge=1)
    "Epochs without progress on held-out users before it stops."
    validation_fraction: float = Field(0.2, gt=0, lt=0.9)
    "Share of users that are held out for early stopping."
    folds: int = Field(5, ge=2, le=50)
    "Folds over users: bases predict for a user only if they were fitted without the user's fold."
    scale: tuple[float, float] | None = None
    "The lowest and the highest possible rating; by default inferred from the ratings."
    seed: int = Field(0, ge=0)
    "Of every random draw, unless the training options have an `rng`."

    @field_validator("bases", mode="before")
    @classmethod
    def _names_are_bases(cls, value: Any) -> Any:
        return _without_options(value) if isinstance(value, list | tuple) else value


class FusionScorer(Component[ItemList], Trainable):
    """Predicts ratings by a meta-learned fusion of base recommenders, as a component of LensKit's pipelines.

    Training makes episodes of the dataset's users (:func:`metarec.episodes.build_episodes`) with few and with many
    support ratings, and meta-learns one fusion network on them with early stopping on held-out users. A network that
    was trained on short histories alone gets worse with long ones. Base predictions in an episode come from bases that
    were fitted without its user. The bases that serve new users are fitted on all users, held-out ones included.

    A user of the dataset is served by bases that were fitted without the user's fold, as in the episodes. A base that
    remembers users would otherwise repeat their ratings, and get too large a weight.

    Its scores are ratings within the scale. An item that is not in the training data has no score (NaN). An unrated
    item of the training data has the score of unknown items, or one from its attributes.

    Args:
        config: a :class:`FusionScorerConfig`, or its fields by name.

    Attributes:
        validation_rmse_: on held-out users, in the ratings' own units, after adaptation.

    Raises:
        InputError: an unknown base or network.

    >>> from lenskit.data import from_interactions_df
    >>> from metarec.ratings import simulate_domains
    >>> ratings = simulate_domains(num_users=40, num_items=40, ratings_per_user=20)["movies"].ratings
    >>> data = from_interactions_df(ratings.rename(columns={"user": "user_id", "item": "item_id"}))
    >>> scorer = FusionScorer(bases=["bias", "item-knn"], folds=2, epochs=2)
    >>> scorer.train(data)
    >>> len(scorer(data.users.id(0), ItemList(data.items.ids()[:5])).scores())
    5
    """

    config: FusionScorerConfig

    validation_rmse_: float

    def __init__(self, config: object | None = None, **kwargs: Any) -> None:
        super().__init__(config, **kwargs)
        if not self.config.bases:
            raise InputError("bases must name at least one base recommender but is empty")
        for name in self.config.bases:
            BASES.check(name)
        NETWORKS.check(self.config.network)

    def train(self, data: Dataset, options: TrainingOptions = TrainingOptions()) -> None:  # noqa: B008  # LensKit's
        """Learn from a dataset's ratings.

        Args:
            data: users, items and their ``rating``; optionally a ``timestamp`` and items' attributes.
            options: `retrain` and `rng` are used; the network is trained on the CPU.

        Raises:
            InputError: the dataset has no ratings, too few users with enough ratings, ratings outside the scale, or
                several ratings of one user for one item; or an option of a base or of the network is wrong.
        """
        if hasattr(self, "validation_rmse_") and not options.retrain:
            return
        config = self.config
        seed = config.seed if options.rng is None else int(options.random_generator().integers(2**31))
        domain = _domain_of(data, config.scale)
        names = applicable_bases(list(config.bases), [domain])
        if not names:
            raise InputError("the base content learns from items' attributes, but the dataset has none; name another")
        bases = {name: config.bases[name] for name in names}
        with one_thread():
            views = self._episodes(domain, bases, seed)
            shared = {name: value for name, value in config if name in NetworkConfig.model_fields}
            config_of_network = NetworkConfig(**shared, outer_lr=config.learning_rate)
            trained = config_of_network.fit(
                [view.train.batch for view in views.values()],
                [view.validation.batch for view in views.values()],
                seed=seed,
            )
            fusion = Fusion(FusionConfig(networks={"fusion": config_of_network}, stackers=()), seed=seed)
            fusion.fit(list(views.values()), networks={"fusion": trained.learner})
            self._serve(domain, bases, views, fusion, seed)
        self.validation_rmse_ = trained.error * domain.scale.span
        self._items: Vocabulary = data.items
        self._ids = np.array([str(item) for item in data.items.ids()], dtype=object)
        self._dated = domain.has_timestamps

    def _episodes(self, domain: Domain, bases: Mapping[str, Mapping[str, Any]], seed: int) -> dict[int, DomainEpisodes]:
        """shots -> episodes with so many support ratings, all with the same train and held-out users."""
        config = self.config
        first, *more = (
            EpisodeSettings(
                shots=shots, validation_fraction=config.validation_fraction, test_fraction=FEWEST, folds=config.folds
            )
            for shots in sorted(set(config.shots))
        )
        domains = {domain.name: domain}
        roles = assign_roles(domains, domain.name, first, seed)
        counts = domain.ratings["user"].value_counts()
        views = {}
        for settings in (first, *more):
            able = {roles.roles.get(user) for user in counts.index[counts >= settings.needed_ratings]}
            # There may be no train user or no held-out user with so many ratings.
            if {"train", "validation"} <= able:
                built = build_episodes(domains, domain.name, settings, bases, seed=seed, roles=roles)
                views[settings.shots] = built[domain.name]
        return views

    def _serve(
        self,
        domain: Domain,
        bases: Mapping[str, Mapping[str, Any]],
        views: Mapping[int, DomainEpisodes],
        fusion: Fusion,
        seed: int,
    ) -> None:
        """Fit the bases on all users, and for each fold on the users outside it."""
        standards = {shots: view.standards for shots, view in views.items() if view.standards is not None}
        self._shots = np.array(list(standards))

        def fitted(on: Domain) -> list[FusedRecommender]:
            maker = TaskMaker.fit(on, bases, next(iter(standards.values())), seed=seed)
            lean = {name: _lean(base, bases[name], seed) for name, base in maker.bases.items()}
            users = frozenset(on.ratings["user"].unique())
            return [
                FusedRecommender(
                    replace(maker, bases=lean, standards=own),
                    fusion,
                    domain.name,
                    domain.ratings,
                    users,
                    self.config.max_history,
                )
                for own in standards.values()
            ]

        users = np.sort(domain.ratings["user"].unique())
        dealt = np.random.default_rng([seed, 2]).permutation(len(users)) % self.config.folds
        self._of_all = fitted(domain)
        self._without = [fitted(domain.without(users[dealt == fold])) for fold in range(self.config.folds)]
        self._fold_of: dict[str, int] = dict(zip(users.tolist(), dealt.tolist(), strict=True))

    @property
    def model_(self) -> FusedRecommender:
        """The recommender for new users with long histories."""
        return self._of_all[-1]

    def __call__(self, query: QueryInput, items: ItemList) -> ItemList:
        """Predict ratings.

        The user's history is that of the query if it has ratings, else that of the training data, else empty. Entries
        without a rating, or of items that are not in the training data, are ignored.

        An item's score never depends on the user's own rating of it. To score items of the history, each tenth of the
        history is left out in turn and predicted from the rest; up to ten ratings are left out one by one.

        Args:
            query: a user, a history, or both.
            items: the items to score.

        Returns:
            the items with scores; NaN for an item that is not in the training data.

        Raises:
            InputError: the history has an item twice, or a rating outside the scale.
        """
        query = RecQuery.create(query)
        numbers = items.numbers(vocabulary=self._items, missing="negative")
        trained = numbers >= 0
        scores = np.full(len(items), np.nan)
        user = None if query.user_id is None else str(query.user_id)
        fold = None if user is None else self._fold_of.get(user)
        recommenders = self._of_all if fold is None else self._without[fold]
        history = self._history_of(query)
        if history is None:
            history = self.model_.history_of(user) if user is not None and fold is not None else NO_HISTORY
        scores[trained] = self._scores(recommenders, history, self._ids[numbers[trained]])
        return ItemList(items, scores=scores)

    def _history_of(self, query: RecQuery) -> History | None:
        """The history in the query; None if it has no ratings."""
        items = query.history_items if query.user_items is None else query.user_items
        ratings = None if items is None else items.field("rating")
        if items is None or ratings is None:
            return None
        numbers = items.numbers(vocabulary=self._items, missing="negative")
        ratings = np.asarray(ratings, dtype=np.float64)
        rows = np.flatnonzero((numbers >= 0) & np.isfinite(ratings))
        # The order of a history has no meaning, so it must not affect the division into parts.
        rows = rows[np.argsort(numbers[rows], kind="stable")]
        when = items.field("timestamp") if self._dated else None
        times = None if when is None else _seconds(np.asarray(when))[rows]
        return History(self._ids[numbers[rows]], ratings[rows], times)

    def _scores(self, recommenders: Sequence[FusedRecommender], history: History, items: np.ndarray) -> np.ndarray:
        """[n] predictions, each from a history without the item."""
        # The recommender whose shots have the ratio to the length that is nearest to 1: 50 is nearer to 80 than to 20.
        length = min(len(history.items), self.config.max_history)
        recommender = recommenders[np.abs(np.log1p(self._shots) - np.log1p(length)).argmin()]
        recommender.maker.check(history)
        place = pd.Index(history.items).get_indexer(items)
        own = np.flatnonzero(place >= 0)
        scores = np.empty(len(items))
        latest = history.latest(self.config.max_history)
        scores[place < 0] = recommender.adapt(latest).predict(items[place < 0]).to_numpy()
        parts = [own[place[own] % PARTS == part] for part in np.unique(place[own] % PARTS)]
        rests = [np.flatnonzero(np.arange(len(history.items)) % PARTS != place[part[0]] % PARTS) for part in parts]
        histories = [history.rows(rest).latest(self.config.max_history) for rest in rests]
        predicted = recommender.predict(histories, [items[part] for part in parts])
        for part, values in zip(parts, predicted, strict=True):
            scores[part] = values
        return scores


def _lean(base: BaseRecommender, options: Mapping[str, Any], seed: int) -> BaseRecommender:
    """A copy of a base without the data of its fit, if it has a state."""
    if not (hasattr(base, "state") and hasattr(base, "restore")):
        return base
    restored: BaseRecommender = make_base(base.name, seed=seed, **options).restore(base.state())  # type: ignore[attr-defined]
    return restored


def _domain_of(data: Dataset, scale: tuple[float, float] | None) -> Domain:
    """The ratings of a dataset, with ids as text."""
    interactions = data.interactions()
    table = interactions.pandas(ids=True)
    if "rating" not in table.columns or not len(table):
        raise InputError("a fusion learns from ratings, but the dataset has none; give interactions a column rating")
    ratings = pd.DataFrame(
        {
            "user": table["user_id"].astype(str),
            "item": table["item_id"].astype(str),
            "rating": table["rating"].astype(np.float64),
        }
    )
    if "timestamp" in table.columns:
        ratings["timestamp"] = _seconds(table["timestamp"].to_numpy())
    bounds = infer_scale(ratings["rating"]) if scale is None else RatingScale(*scale)
    return Domain(data.name or "lenskit", ratings, bounds, _attributes_of(data))


def _attributes_of(data: Dataset) -> pd.DataFrame | None:
    """Items' attributes that are a number, a text, or several texts; None if there are none."""
    items = data.entities("item")
    table = pd.DataFrame(index=pd.Index(items.ids()))
    for name in items.attributes:
        attribute = items.attribute(name)
        if attribute.is_list:
            values = attribute.pandas(missing="omit")
            table[name] = values.map(lambda texts: "|".join(map(str, texts)))
        elif attribute.is_scalar:
            table[name] = attribute.pandas(missing="omit")
    if table.columns.empty:
        return None
    return table.assign(item=[str(item) for item in table.index])


def _seconds(times: np.ndarray) -> np.ndarray:
    """[n] seconds since 1970, from datetimes or seconds."""
    if np.issubdtype(times.dtype, np.datetime64):
        return np.asarray(times.astype("datetime64[ns]").astype(np.int64) / 1e9)
    return times.astype(np.float64)
