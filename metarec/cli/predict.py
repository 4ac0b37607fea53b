"""``python -m metarec.predict``: batch scoring of a table by a registered model.

Only typer is imported at the top, so that ``--help`` answers at once.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from metarec.cli.command import new_app, run_command
from metarec.errors import InputError, shown

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import TypeVar

    import pandas as pd

    from metarec.model import FusedRecommender, KeptRecommender, RankingRecommender

    HistoryT = TypeVar("HistoryT")

__all__ = ["main", "predict_table", "recommend_table"]

app = new_app()

TOP = 10
"""Items of a list, by default."""


@app.command()
def predict(
    model: Annotated[str, typer.Argument(help="A folder with a model, or models:/metarec-STUDY@champion.")],
    table: Annotated[
        Path, typer.Argument(help="A table (csv, parquet, ...) with the columns user and item; for lists, user.")
    ],
    out: Annotated[
        Path,
        typer.Argument(
            help="The file to write, .csv or .parquet: the same rows, and a column prediction; or lists of items."
        ),
    ],
    histories: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Histories of new users: a table with user, item, rating and perhaps timestamp; for lists, user, item "
            "and perhaps weight and timestamp.",
            show_default="those in the model",
        ),
    ] = None,
    top: Annotated[
        int | None, typer.Option(metavar="N", help="Items of a list; only for lists.", min=1, show_default=str(TOP))
    ] = None,
    tracking_uri: Annotated[
        str | None,
        typer.Option(
            metavar="URI", envvar="METAREC_TRACKING_URI", help="MLflow's store.", show_default="mlruns/mlflow.db"
        ),
    ] = None,
) -> None:
    """Predict the rating of each row's item by each row's user; a model of lists recommends items to each user.

    A user's history is taken from --histories, else from the ratings or events in the model, else it is empty. The last
    line counts these users. The lists have the columns user, item, rank and score.

    Exit codes: 0 done; 2 bad input.
    """
    if not out.absolute().parent.is_dir():
        raise InputError(f"{out}: cannot be written there; name a file in a folder that exists")
    from metarec.files import keep_private
    from metarec.model import RankingRecommender
    from metarec.model.mlflow_model import load_from
    from metarec.ratings import read_rows
    from metarec.tracking import check_uri, leave_waiting_to_us

    leave_waiting_to_us()
    keep_private(out.parent)
    if tracking_uri is not None:
        check_uri(tracking_uri)
    recommender = load_from(model, tracking_uri=tracking_uri)
    if isinstance(recommender, RankingRecommender):
        rows = read_rows(table, ("user",))
        given = None
        if histories is not None:
            given = read_rows(histories, ("user", "item"), numbers=("weight",), times=("timestamp",))
        made, counts = recommend_table(recommender, rows, given, top=top or TOP)
        what = f"{made['user'].nunique():,} lists with {len(made):,} items"
    else:
        if top is not None:
            raise InputError(f"--top {top}: {model} predicts ratings and makes no lists; leave out --top")
        rows = read_rows(table, ("user", "item"))
        given = None
        if histories is not None:
            given = read_rows(histories, ("user", "item"), ("rating",), ("rating",), ("timestamp",))
        made, counts = predict_table(recommender, rows, given)
        what = f"{len(made):,} predictions"
    _write(made, out)
    numbers = ", ".join(f"{count:,} {kind}" for kind, count in counts.items())
    typer.echo(f"{what} in {out}: {numbers}", err=True)


def predict_table(
    recommender: FusedRecommender, rows: pd.DataFrame, histories: pd.DataFrame | None = None
) -> tuple[pd.DataFrame, dict[str, int]]:
    """The rows with a column ``prediction`` in the domain's own units, and the number of users of each kind.

    Args:
        rows: columns ``user`` and ``item``, as text. histories: ``user``, ``item``, ``rating`` of users; they
            replace the ratings in the model.

    Raises:
        InputError: a history breaks a rule; the user is named.
    """
    import numpy as np

    from metarec.episodes import History
    from metarec.model.recommender import NO_HISTORY

    def history(table: pd.DataFrame) -> History:
        own = History.of(table)
        recommender.maker.check(own)
        return own

    items = rows["item"].to_numpy(dtype=object)
    predictions = np.empty(len(rows))
    rows_of = rows.groupby("user", sort=False).indices
    found, counts = _histories(recommender, map(str, rows_of), histories, history, NO_HISTORY, "ratings")
    predicted = recommender.predict(found, [items[own] for own in rows_of.values()])
    for own, values in zip(rows_of.values(), predicted, strict=True):
        predictions[own] = values
    unrated = int((~np.isin(items.astype(str), recommender.items.astype(str))).sum())
    return rows.assign(prediction=predictions), {**counts, "rows with an unrated item": unrated}


def recommend_table(
    recommender: RankingRecommender, rows: pd.DataFrame, histories: pd.DataFrame | None = None, *, top: int = TOP
) -> tuple[pd.DataFrame, dict[str, int]]:
    """The best `top` new items of each user, and the number of users of each kind.

    Args:
        rows: a column ``user``, as text; a user who is there twice has one list. histories: ``user``, ``item`` and
            optionally ``weight`` and ``timestamp`` of users; they replace the events in the model.

    Returns:
        Columns ``user``, ``item``, ``rank`` from 1, and ``score``, which has a meaning within a user's list only.

    Raises:
        InputError: a history breaks a rule; the user is named.
    """
    import numpy as np
    import pandas as pd

    from metarec.model.ranking_recommender import NO_EVENTS, Events

    users = rows["user"].unique()
    found, counts = _histories(recommender, map(str, users), histories, Events.of, NO_EVENTS, "events")
    lists = recommender.lists(found, top)
    lengths = np.array([len(one.items) for one in lists], dtype=int)
    made = {
        "user": np.repeat(users, lengths),
        "item": np.concatenate([np.array([], dtype=object), *(one.items for one in lists)]),
        "rank": np.concatenate([np.array([], dtype=int), *(1 + np.arange(length) for length in lengths)]),
        "score": np.concatenate([np.zeros(0), *(one.scores for one in lists)]),
    }
    return pd.DataFrame(made), counts


def _histories(
    recommender: KeptRecommender[Any, HistoryT],
    users: Iterable[str],
    histories: pd.DataFrame | None,
    history: Callable[[pd.DataFrame], HistoryT],
    nothing: HistoryT,
    noun: str,
) -> tuple[list[HistoryT], dict[str, int]]:
    """The history of each user, and the number of users of each kind.

    Args:
        history: makes one of the rows of a user.
    """
    given = {} if histories is None else {str(user): own for user, own in histories.groupby("user", sort=False)}
    counts = {"users with a history given": 0, f"users with {noun} in the model": 0, f"users without {noun}": 0}
    found = []
    for user in users:
        kind = 0 if user in given else 1 if recommender.knows(user) else 2
        counts[list(counts)[kind]] += 1
        if kind == 0:
            try:
                found.append(history(given[user]))
            except InputError as error:
                raise InputError(f'user "{shown(user)}": {error}') from None
        else:
            found.append(recommender.history_of(user) if kind == 1 else nothing)
    return found, counts


def _write(table: pd.DataFrame, path: Path) -> None:
    """Write a table by the suffix of its file: csv, or else parquet."""
    if path.name.lower().endswith((".csv", ".csv.gz")):
        table.to_csv(path, index=False)
    else:
        table.to_parquet(path, index=False)


def main() -> None:
    """Run the command; an error that the user can correct becomes one line and an exit code."""
    run_command(app)
