"""A server of one model, which speaks as MLflow's scoring server does.

MLflow's own server answers from whatever files it is given, and runs what these name. This one serves a recommender
that :func:`metarec.load` has checked, and limits what it is asked.
"""

from __future__ import annotations

import asyncio
import csv
import io
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

import metarec
from metarec.errors import InputError, shown
from metarec.files import Limit
from metarec.model.ranking_recommender import RankingRecommender
from metarec.model.recommender import FusedRecommender
from metarec.model.requests import Requests, requests_of
from metarec.plain import unique_keys

__all__ = ["BODY", "application"]

logger = logging.getLogger(__name__)

BODY = Limit("METAREC_MAX_REQUEST_BYTES", 8 << 20)
"""Of the body of a request."""

BODY_S = 30.0
"""How long a client may take to send a body."""

WAITING = 256
"""The most requests that wait for an answer; further ones are refused with 503."""

_FORMS = ("dataframe_records", "dataframe_split", "instances", "inputs")


def application(recommender: FusedRecommender | RankingRecommender, threads: int) -> Starlette:
    """The server as an ASGI application: ``POST /invocations``, and ``GET`` of ``/ping``, ``/health``, ``/version``.

    Args:
        threads: how many requests are answered at once.
    """
    requests = requests_of(recommender)
    executor = ThreadPoolExecutor(threads, thread_name_prefix="metarec-answer")
    waiting = 0

    async def invocations(request: Request) -> Response:
        nonlocal waiting
        if waiting >= WAITING:
            return _refusal(503, f"{WAITING} requests wait already; try again later")
        waiting += 1
        try:
            kind = request.headers.get("content-type", "")
            content = await asyncio.wait_for(_body(request), BODY_S)
            return await asyncio.get_running_loop().run_in_executor(executor, _answer, requests, kind, content)
        except TimeoutError:
            return _refusal(408, f"the body must arrive within {BODY_S:g} seconds")
        except ClientDisconnect:
            return _refusal(400, "the client is gone")
        except _TooLarge as error:
            return _refusal(413, str(error))
        finally:
            waiting -= 1

    async def ping(_: Request) -> Response:
        return Response("\n", media_type="application/json")

    async def version(_: Request) -> Response:
        return Response(metarec.__version__, media_type="application/json")

    return Starlette(
        routes=[
            Route("/invocations", invocations, methods=["POST"]),
            Route("/ping", ping),
            Route("/health", ping),
            Route("/version", version),
        ]
    )


class _TooLarge(InputError):
    pass


async def _body(request: Request) -> bytes:
    content = bytearray()
    async for chunk in request.stream():
        content += chunk
        try:
            BODY.check(len(content), "the request")
        except InputError as error:
            raise _TooLarge(str(error)) from None
    return bytes(content)


def _answer(requests: Requests, kind: str, content: bytes) -> Response:
    try:
        media, _, options = kind.partition(";")
        charset = options.strip().lower().replace('"', "")
        if charset not in ("", "charset=utf-8"):
            return _refusal(415, f"the content must be UTF-8 but is {shown(charset)}")
        reader = _READERS.get(media.strip().lower())
        if reader is None:
            return _refusal(415, f"the content type must be {' or '.join(_READERS)} but is {shown(kind)}")
        answers = requests.answer(reader(requests, content))
        # The model's numbers are finite, so that this is JSON.
        return JSONResponse({"predictions": answers.to_dict("records")})
    except InputError as error:
        return _refusal(400, str(error))
    except Exception:
        # What happened is for the operator, and not for the client.
        logger.exception("a request could not be answered")
        return _refusal(500, "the request could not be answered; the server's log has the reason")


def _refusal(status: int, message: str) -> JSONResponse:
    code = {400: "INVALID_PARAMETER_VALUE", 500: "INTERNAL_ERROR"}.get(status, "BAD_REQUEST")
    return JSONResponse({"error_code": code, "message": message}, status_code=status)


def _from_json(requests: Requests, content: bytes) -> list[list[Any]]:
    """The rows of a request in one of MLflow's forms."""
    try:
        body = json.loads(content, object_pairs_hook=unique_keys)
    except RecursionError:
        raise InputError("the request is nested too deeply; a history is a list of flat objects") from None
    except ValueError as error:
        raise InputError(f"the request must be JSON: {shown(error, 200)}") from None
    forms = [form for form in _FORMS if isinstance(body, Mapping) and form in body]
    if len(forms) != 1:
        raise InputError(f"the request must be an object with one of {', '.join(_FORMS)} but is {shown(body)}")
    rows = body[forms[0]]
    if forms[0] == "dataframe_split":
        return _from_split(requests, rows)
    if isinstance(rows, Mapping):
        return _from_columns(requests, rows)
    if not isinstance(rows, list):
        raise InputError(f"{forms[0]} must be a list of rows but is {shown(rows)}")
    requests.limit.check(len(rows), "the request")
    return [_row(requests, place, row) for place, row in enumerate(rows)]


def _row(requests: Requests, place: int, row: Any) -> list[Any]:
    if not isinstance(row, Mapping):
        raise InputError(f"row {place} must be an object with {', '.join(requests.columns)} but is {shown(row)}")
    _check_columns(requests, row)
    return [row.get(column) for column in requests.columns]


def _check_columns(requests: Requests, given: Any) -> None:
    for column in given:
        if column not in requests.columns:
            raise InputError(f"the columns must be among {', '.join(requests.columns)} but one is {shown(column)}")
    for column in requests.needed:
        if column not in given:
            raise InputError(f"the column {column} is missing")


def _from_split(requests: Requests, table: Any) -> list[list[Any]]:
    columns, rows = (table.get(key) if isinstance(table, Mapping) else None for key in ("columns", "data"))
    if not isinstance(columns, list) or not isinstance(rows, list):
        raise InputError("dataframe_split must be an object with the lists columns and data")
    requests.limit.check(len(rows), "the request")
    _check_columns(requests, columns)
    if len(set(columns)) < len(columns):
        raise InputError(f"dataframe_split must name each column once but has {shown(columns)}")
    for place, row in enumerate(rows):
        if not isinstance(row, list) or len(row) != len(columns):
            raise InputError(f"row {place} must have {len(columns)} values but is {shown(row)}")
    return [[dict(zip(columns, row, strict=True)).get(column) for column in requests.columns] for row in rows]


def _from_columns(requests: Requests, columns: Mapping[str, Any]) -> list[list[Any]]:
    _check_columns(requests, columns)
    lengths = {name: len(columns[name]) for name in columns if isinstance(columns[name], list)}
    count = lengths.get(next(iter([*requests.needed, *columns]), ""), 0)
    for name, values in columns.items():
        if lengths.get(name) != count:
            raise InputError(f"{name} must be a list with a value for each row but is {shown(values)}")
    requests.limit.check(count, "the request")
    return [list(row) for row in zip(*(columns.get(name, [None] * count) for name in requests.columns), strict=True)]


def _from_csv(requests: Requests, content: bytes) -> list[list[Any]]:
    """Rows of the columns with text; an empty cell has no value."""
    try:
        lines = csv.reader(io.StringIO(content.decode("utf-8-sig"), newline=""), strict=True)
        header = next(lines, [])
        rows = list(lines)
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"the request must be a table in UTF-8: {shown(error, 200)}") from None
    for name in header:
        if name in requests.columns and name not in requests.flat:
            raise InputError(f"{name} cannot be given in csv; use JSON")
    return _from_split(requests, {"columns": header, "data": [[cell or None for cell in row] for row in rows if row]})


_READERS: Mapping[str, Callable[[Requests, bytes], Sequence[Sequence[Any]]]] = {
    "application/json": _from_json,
    "text/csv": _from_csv,
}
