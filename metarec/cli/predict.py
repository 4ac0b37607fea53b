"""``python -m metarec.predict``: batch scoring of a table by a registered model.

Only typer is imported at the top, so that ``--help`` answers at once.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from metarec.cli.command import run_command
from metarec.errors import InputError, shown

if TYPE_CHECKING:
    import pandas as pd

    from metarec.model import FusedRecommender

__all__ = ["main", "predict_table"]

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


@app.command()
def predict(
    model: Annotated[str, typer.Argument(help="A folder with a model, or models:/metarec-STUDY@champion.")],
    table: Annotated[Path, typer.Argument(help="A parquet file with the columns user and item.")],
    out: Annotated[Path, typer.Argument(help="The parquet file to write: the same rows, and a column prediction.")],
    histories: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Ratings of new users: a parquet file with user, item and rating."),
    ] = None,
    tracking_uri: Annotated[
        str | None,
        typer.Option(metavar="URI", envvar="METAREC_TRACKING_URI", help="MLflow's store; by default mlruns/mlflow.db."),
    ] = None,
) -> None:
    """Predict the rating of each row's item by each row's user.

    A user's history is taken from --histories, else from the ratings in the model, else it is empty. The last line
    counts these users.

    Exit codes: 0 done; 2 bad input.
    """
    if not out.absolute().parent.is_dir():
        raise InputError(f"{out}: cannot be written there; name a file in a folder that exists")
    from metarec.files import keep_private
    from metarec.model.mlflow_model import load_from
    from metarec.tracking import check_uri, leave_waiting_to_us

    leave_waiting_to_us()
    keep_private(out.parent)
    if tracking_uri is not None:
        check_uri(tracking_uri)
    rows = _read(table, ("user", "item"))
    given = _read(histories, ("user", "item", "rating")) if histories is not None else None
    recommender = load_from(model, tracking_uri=tracking_uri)
    predicted, counts = predict_table(recommender, rows, given)
    predicted.to_parquet(out, index=False)
    numbers = ", ".join(f"{count:,} {what}" for what, count in counts.items())
    typer.echo(f"{len(predicted):,} predictions in {out}: {numbers}", err=True)


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

    given = {} if histories is None else {user: own for user, own in histories.groupby("user", sort=False)}
    counts = {"users with a history given": 0, "users with ratings in the model": 0, "users without ratings": 0}
    items = rows["item"].to_numpy(dtype=object)
    predictions = np.empty(len(rows))
    rows_of = rows.groupby("user", sort=False).indices
    found = []
    for user in rows_of:
        kind = 0 if user in given else 1 if recommender.knows(str(user)) else 2
        counts[list(counts)[kind]] += 1
        if kind == 0:
            found.append(History.of(given[user]))
            try:
                recommender.maker.check(found[-1])
            except InputError as error:
                raise InputError(f'user "{shown(user)}": {error}') from None
        else:
            found.append(recommender.history_of(str(user)) if kind == 1 else NO_HISTORY)
    predicted = recommender.predict(found, [items[own] for own in rows_of.values()])
    for own, values in zip(rows_of.values(), predicted, strict=True):
        predictions[own] = values
    unrated = int((~np.isin(items.astype(str), recommender.items.astype(str))).sum())
    return rows.assign(prediction=predictions), {**counts, "rows with an unrated item": unrated}


def _read(path: Path, needed: tuple[str, ...]) -> pd.DataFrame:
    """A parquet file with at least these columns; users and items as text, a rating and a time as finite numbers."""
    import numpy as np
    import pandas as pd

    from metarec.ratings import read_rows

    table = read_rows(path, ("user", "item"), needed[2:])
    for column in ("rating", "timestamp") if "rating" in needed else ():
        if column in table.columns:
            kind = table[column].dtype
            if not pd.api.types.is_numeric_dtype(kind) or pd.api.types.is_bool_dtype(kind):
                raise InputError(f"{path}: {column} must be numbers but has type {shown(kind)}")
            wrong = ~np.isfinite(table[column].to_numpy(dtype=np.float64, na_value=np.nan))
            if wrong.any():
                row = int(wrong.argmax())
                value = table[column].iloc[row]
                raise InputError(f"{path}, row {row + 1}: the {column} is {value}; give a finite number")
    return table


def main() -> None:
    """Run the command; an error that the user can correct becomes one line and an exit code."""
    run_command(app)
