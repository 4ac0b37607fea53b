"""The scorer for LensKit, for datasets with and without ratings."""

from __future__ import annotations

from typing import Any

import numpy as np
from lenskit.data import Dataset, ItemList, QueryInput, RecQuery, Vocabulary
from lenskit.pipeline import Component
from lenskit.training import Trainable, TrainingOptions

from metarec.bases import BASES, applicable_bases
from metarec.bases.ranking import RANKING_BASES, applicable_ranking_bases
from metarec.errors import InputError
from metarec.fusion import NETWORKS
from metarec.fusion.rankers import RANKERS
from metarec.integrations.lenskit._config import FusionScorerConfig
from metarec.integrations.lenskit._data import domain_of
from metarec.integrations.lenskit._lists import ListServer
from metarec.integrations.lenskit._ratings import RatingServer
from metarec.model import FusedRecommender, RankingRecommender
from metarec.ratings import Domain, ids_of
from metarec.threads import one_thread

__all__ = ["FusionScorer"]


class FusionScorer(Component[ItemList], Trainable):
    """Scores items by a meta-learned fusion of base recommenders, as a component of LensKit's pipelines.

    Training makes episodes of the dataset's users, with early stopping on held-out users. Base predictions in an
    episode come from bases that were fitted without its user. The bases that serve new users are fitted on all users,
    held-out ones included. A user of the dataset is served by bases that were fitted without the user's fold, as in the
    episodes. A base that remembers users would otherwise repeat their data, and get too large a weight.

    A dataset with ratings trains one fusion network on episodes with few and with many support ratings, because a
    network that was trained on short histories alone gets worse with long ones. Scores are ratings within the scale. An
    item that is not in the training data has no score (NaN). An unrated item of the training data has the score of
    unknown items, or one from its attributes.

    A dataset without ratings trains a network on lists, and fuses it with the rankers by weights that are chosen on the
    held-out users. Scores order the items of one user. Items of the history, and those that no base proposes, have no
    score (NaN).

    Args:
        config: a :class:`FusionScorerConfig`, or its fields by name.

    Attributes:
        validation_rmse_: on held-out users, in the ratings' own units, after adaptation; with ratings only.
        validation_ndcg_: the mean nDCG@10 of held-out users; without ratings only. The weights were chosen on the same
            users.

    Raises:
        InputError: an unknown base, ranker or network.

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
    validation_ndcg_: float

    def __init__(self, config: object | None = None, **kwargs: Any) -> None:
        super().__init__(config, **kwargs)
        if self.config.bases is not None:
            if not self.config.bases:
                raise InputError("bases must name at least one base recommender but is empty")
            # The dataset decides which of the two must have the names.
            for name in set(self.config.bases) - set(RANKING_BASES.names()):
                BASES.check(name)
        for name in self.config.rankers or ():
            RANKERS.check(name)
        NETWORKS.check(self.config.network)

    def train(self, data: Dataset, options: TrainingOptions = TrainingOptions()) -> None:  # noqa: B008  # LensKit's
        """Learn from a dataset's ratings, or from its events where it has no ratings.

        Args:
            data: users, items, and optionally their ``rating``, or the ``count`` of their events; a ``timestamp`` and
                items' attributes.
            options: `retrain` and `rng` are used; the network is trained on the CPU.

        Raises:
            InputError: the dataset is empty, has too few users with enough items, ratings outside the scale, or
                several ratings of one user for one item; or an option of a base or of the network is wrong.
        """
        if hasattr(self, "_server") and not options.retrain:
            return
        config = self.config
        seed = config.seed if options.rng is None else int(options.random_generator().integers(2**31))
        domain = domain_of(data, config.scale)
        bases = self._bases_for(domain)
        ids = ids_of(data.items.ids())
        self._server: RatingServer | ListServer
        with one_thread():
            if domain.feedback == "implicit":
                self._server = lists = ListServer.fit(domain, bases, config, ids, seed=seed)
                self.validation_ndcg_ = lists.ndcg
            else:
                self._server = ratings = RatingServer.fit(domain, bases, config, ids, seed=seed)
                self.validation_rmse_ = ratings.error
        self._items: Vocabulary = data.items

    def _bases_for(self, domain: Domain) -> dict[str, dict[str, Any]]:
        registry = RANKING_BASES if domain.feedback == "implicit" else BASES
        applicable = applicable_ranking_bases if domain.feedback == "implicit" else applicable_bases
        given = {name: {} for name in registry.names()} if self.config.bases is None else self.config.bases
        for name in given:
            registry.check(name)
        names = applicable(list(given), [domain])
        if not names:
            raise InputError("the base content learns from items' attributes, but the dataset has none; name another")
        return {name: given[name] for name in names}

    @property
    def model_(self) -> FusedRecommender | RankingRecommender:
        """The recommender for new users with long histories."""
        return self._server.model

    def __call__(self, query: QueryInput, items: ItemList) -> ItemList:
        """Score items.

        With ratings, the history is that of the query if it has ratings, else that of the training data, else empty.
        An item's score never depends on the user's own rating of it. Without ratings, the history is that of the query,
        else that of the training data, else empty. Entries of items that are not in the training data are ignored, and
        so are entries without a rating where the training data have ratings.

        Args:
            query: a user, a history, or both.
            items: the items to score.

        Returns:
            the items with scores; NaN for an item that is not in the training data.

        Raises:
            InputError: a history of ratings has an item twice, or a rating outside the scale.
        """
        query = RecQuery.create(query)
        numbers = self._numbers_of(items)
        trained = numbers >= 0
        scores = np.full(len(items), np.nan)
        user = None if query.user_id is None else ids_of([query.user_id], "user")[0]
        given = query.history_items if query.user_items is None else query.user_items
        history = None if given is None else (given, self._numbers_of(given))
        scores[trained] = self._server.scores(user, history, numbers[trained])
        return ItemList(items, scores=scores)

    def _numbers_of(self, items: ItemList) -> np.ndarray:
        """[n] places in the vocabulary of the training data; negative for an item that is not in them."""
        return np.asarray(items.numbers(vocabulary=self._items, missing="negative"))
