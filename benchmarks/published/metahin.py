"""The cold users of MetaHIN's published lists on MovieLens-1M (Lu, Fang, Shi, KDD 2020).

By the convention of these lists, which is MeLU's (Lee et al., KDD 2019), the users with 13 to 100 ratings are
predicted: the last ten ratings by position are the query, and the others are the support. All users of MovieLens-1M
that are not in the lists are there to learn from.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from benchmarks.common.study import study_predictions
from metarec.bases import applicable_bases
from metarec.episodes import History, TaskMaker, assign_roles, build_episodes
from metarec.errors import InputError
from metarec.ratings import Domain, read_domain
from metarec.study.spec import StudySpec

__all__ = ["PUBLISHED", "QUERY", "Lists", "predict_lists", "read_lists"]

FEWEST, MOST = 13, 100
"""Ratings of a user who is predicted."""

QUERY = 10
"""The last ratings of a user, which are predicted."""

PUBLISHED = {"MeLU": 0.79}
"""Model -> the MAE in its paper."""


class Lists(NamedTuple):
    """The users to learn from; and of each cold user the support and the query: user, item, rating, in order."""

    domain: Domain
    support: pd.DataFrame
    query: pd.DataFrame


def read_lists(folder: Path) -> Lists:
    """Read `ratings.csv.gz` and `metahin_user_cold.csv.gz`.

    Raises:
        InputError: a file is missing or has other columns, or no user has as many ratings as the convention asks for.
    """
    domain = read_domain(folder / "ratings.csv.gz", "ml1m")
    path = folder / "metahin_user_cold.csv.gz"
    try:
        table = pd.read_csv(path, dtype={"user": str, "item": str})
        table = table[["user", "item", "rating", "position"]].sort_values(["user", "position"], kind="stable")
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{path}: must be a table of user, item, rating and position: {error}") from None
    listed = set(table["user"])
    sizes = table["user"].map(table["user"].value_counts())
    # One pair of the lists is there twice.
    table = table[sizes.between(FEWEST, MOST)].drop_duplicates(["user", "item"])
    if table.empty:
        raise InputError(f"{path}: some users must have {FEWEST} to {MOST} ratings but none has")
    behind = table.groupby("user").cumcount(ascending=False)
    columns = ["user", "item", "rating"]
    support, query = (table.loc[rows, columns].reset_index(drop=True) for rows in (behind >= QUERY, behind < QUERY))
    return Lists(domain.without(listed), support, query)


def predict_lists(
    lists: Lists, spec: StudySpec, cache: Path, jobs: int
) -> tuple[pd.DataFrame, Mapping[str, Mapping[str, Any]]]:
    """Learn as a study of this spec does, and predict the query of each cold user from the whole support.

    The bases read the whole support, and the networks adapt to its latest ratings, as in a model that is served.

    Returns:
        user, item, rating, and each model's predictions in the domain's units; and the settings that were chosen.
    """
    domain = lists.domain
    domains = {domain.name: domain}
    bases = {name: spec.bases[name] for name in applicable_bases(list(spec.bases), [domain])}
    spec = spec.model_copy(update={"target": domain.name})
    episodes = build_episodes(domains, domain.name, spec.episodes, bases=bases, seed=spec.seed, cache=cache, jobs=jobs)[
        domain.name
    ]
    assert episodes.standards is not None, "these episodes were made from ratings"
    roles = assign_roles(domains, domain.name, spec.episodes, spec.seed)
    train, shots = domain.without(roles.held_out(None)), spec.episodes.shots
    # As a model that a study keeps.
    maker = TaskMaker.fit(train, bases, episodes.standards, shots=shots, seed=spec.seed)
    supports, queries = (dict(iter(table.groupby("user"))) for table in (lists.support, lists.query))
    asked = [own["item"].to_numpy(dtype=object) for own in queries.values()]
    cold = maker.users([History.of(supports[user]) for user in queries]).episodes(asked)
    unit, chosen = study_predictions(episodes, spec, cold)
    mask = cold.batch.query.mask.numpy()
    rows = pd.concat(queries.values(), ignore_index=True)
    predictions = {name: domain.scale.to_ratings(np.clip(own[mask], 0.0, 1.0)) for name, own in unit.items()}
    return rows.assign(**predictions), chosen
