"""Whatever a client sends: predictions, or a refusal that names a rule; never 500, and nothing of the code."""

import asyncio
import json
import math
from functools import cache
from pathlib import Path

from hypothesis import strategies as st

from metarec.model import load_model
from metarec.model.server import application
from tests.support.fuzz import Case, fuzz, kept_cases, mutated
from tests.support.small_model import FOLDER as MODEL

CORPUS = Path(__file__).parent / "corpus" / "requests"

KINDS = {
    "json": "application/json",
    "csv": "text/csv; charset=utf-8",
    "parquet": "application/vnd.apache.parquet",
    "latin": "application/json; charset=latin-1",
    "none": "",
    "odd": "application/json;;=\xff",
}
"""The name of a case -> the type of its content."""

STATUS = {200, 400, 413, 415}

PIECES = [
    b"[",
    b"]",
    b"{",
    b"}",
    b":",
    b",",
    b'"',
    b"null",
    b"true",
    b"NaN",
    b"-Infinity",
    b"1e999",
    b"9" * 5000,
    b"\\ud800",
]
PIECES += [
    b"[" * 3000,
    b'"item"',
    b'"history"',
    b'"rating"',
    b'"m001"',
    b'"u0001"',
    b"\xff",
    b"\0",
    b"\xef\xbb\xbf",
    b"\r\n",
]


@cache
def server():
    return application(load_model(MODEL / "data" / "metarec"), 1)


def ask(kind, content):
    """The status and the body of an answer."""
    sent = []
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "path": "/invocations",
        "raw_path": b"/invocations",
        "root_path": "",
        "scheme": "http",
        "query_string": b"",
        "headers": [(b"content-type", kind.encode("latin-1"))],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 2),
    }

    async def receive():
        return {"type": "http.request", "body": content, "more_body": False}

    async def send(message):
        sent.append(message)

    asyncio.run(server()(scope, receive, send))
    return sent[0]["status"], b"".join(message.get("body", b"") for message in sent[1:])


def check(case, folder):
    status, content = ask(KINDS[case.name], case.content)
    answer = json.loads(content)
    assert status in STATUS, answer
    if status == 200:
        assert all(math.isfinite(row["prediction"]) for row in answer["predictions"])
    else:
        assert set(answer) == {"error_code", "message"}
        assert answer["message"].isprintable()
        assert len(answer["message"]) < 1000


values = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), st.sampled_from(["m001", "u0001"])
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=8), inner, max_size=3)),
    max_leaves=6,
)
entries = st.fixed_dictionaries({}, optional={"item": values, "rating": values, "timestamp": values})
near_entries = st.fixed_dictionaries(
    {"item": st.sampled_from(["m001", "m002", "m003", "x"]), "rating": st.floats(0, 6)},
    optional={"timestamp": st.one_of(st.none(), st.floats(), st.integers())},
)
rows = st.fixed_dictionaries(
    {"item": st.one_of(st.just("m001"), values)},
    optional={
        "user": st.one_of(st.just("u0001"), st.none(), values),
        "history": st.one_of(st.none(), values, st.lists(entries, max_size=3), st.lists(near_entries, max_size=5)),
        "more": values,
    },
)
splits = st.fixed_dictionaries(
    {}, optional={"columns": st.one_of(values, st.lists(st.sampled_from(["item", "user", "history"]))), "data": values}
)


@st.composite
def requests(draw):
    form = draw(st.sampled_from(["dataframe_records", "inputs", "instances", "dataframe_split"]))
    table = st.one_of(st.lists(rows, max_size=4), values)
    body = draw(splits if form == "dataframe_split" else table)
    content = json.dumps({form: body}).encode()
    return Case(draw(st.sampled_from(sorted(KINDS) + ["json"] * 20)), content)


KEPT = [
    Case("json", b'{"dataframe_records": [{"item": "m001", "user": "u0001"}, {"item": "m002", "user": null}]}'),
    Case(
        "json",
        b'{"dataframe_split": {"columns": ["item", "history"], "data": [["m001", [{"item": "m002", "rating": 3}]]]}}',
    ),
    Case("json", b'{"inputs": {"item": ["m001"], "history": [[{"item": "m002", "rating": 3.5, "timestamp": 1e9}]]}}'),
    Case("csv", b"item,user\nm001,u0001\nm002,\n"),
]


def test_any_request_is_answered_or_refused():
    finds = fuzz(check, st.one_of(mutated(KEPT, PIECES), requests()), CORPUS, examples=200)
    assert not finds, "\n".join(f"{one.case.name}: {one.what}" for one in finds)


def test_the_kept_requests_are_answered(tmp_path):
    for case in KEPT:
        check(case, tmp_path)
        assert ask(KINDS[case.name], case.content)[0] == 200, ask(KINDS[case.name], case.content)
    assert kept_cases(CORPUS)
