"""Whatever a table, a spec, an assignment or a history holds: a result or an InputError, nothing else."""

import gzip
import io
import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import strategies as st

from metarec.bases.ranking import RANKING_BASES
from metarec.episodes import History, TaskMaker
from metarec.fusion import NETWORKS
from metarec.fusion.rankers import RANKERS
from metarec.ratings import Domain, RatingScale, read_domains, read_rows
from metarec.study.spec import StudySpec, load_spec
from tests.support.fuzz import Case, fuzz, kept_cases, mutated

CORPUS = Path(__file__).parent / "corpus" / "readers"
KEPT = kept_cases(CORPUS)

WEIGHTS = {"view": 1, "buy": 5.5, "a": 2, "1": 3}
RATINGS = b"user,item,rating\nann,x,4\nbob,y,2\n"
FEATURES = ("items.", "users.", "movies.")

# fmt: off
PIECES = [
    b"\n", b",", b'"', b"\t", b"\0", b"\r", b";", b"::", b"|", b" ", b"\n\n", b"\xff", b"\xed\xa0\x80", b"\xef\xbb\xbf",
    b"nan", b"inf", b"-1e999", b"1e308", b"1e15", b"5e-324", b"0x1F", b"1_000", b"9" * 30, b"true", b"2001-12-31",
    b"99999-01-01", b"user", b":token", b":float_seq", b"domain", b"&a ", b"*a", b"!!int ", b"<<: ", b"? ", b"- ", b"{",
    b"[", b"}", b"]", b": ", b"...", b"--- ", b"%YAML 1.1\n", b"#8", b"'", b"1:2:3",
]
VALUES = ["", " ", "a", "b", "1", "2", "3.5", "1e308", "1e400", "-1e308", "inf", "nan", "5e-324", "0x10", "1_000",
          "view", "buy",
          "9" * 25, "9" * 400, "x" * 1001, "\u00e9", "\u2028", "\ufeff", "True", "2001-12-31", "9999-12-31T00:00:00Z",
          "0001-01-01", "-5", "1,5", '"', "a\nb", "a|b", "1 2 3"]
HEADER = ["user", "item", "rating", "timestamp", "domain", "user_id", "title", "genres", "year", "", "rating:float",
          "place:float_seq", "tags:token_seq", "x" * 70, "weight", "plays:float", "event", "quantity"]
# fmt: on

cells = st.one_of(st.sampled_from(VALUES), st.text(max_size=4), st.integers().map(str), st.floats().map(repr))
suffixes = st.sampled_from([".csv", ".tsv", ".txt", ".dat", ".csv.gz", ".json"])


def check(case, folder):
    # A damaged parquet file may claim many rows.
    os.environ.setdefault("METAREC_MAX_TABLE_BYTES", str(1 << 26))
    path = folder / case.name
    path.write_bytes(case.content)
    if case.name == "spec.yaml":
        assert isinstance(load_spec(str(path), {}), StudySpec)
    elif case.name == "assignment":
        path.write_text("trials: 3\n")
        path = path.rename(folder / "spec.yaml")
        assignment = case.content.decode("utf-8", errors="replace")
        assert isinstance(load_spec(str(path), {}, [assignment]), StudySpec)
    elif case.name == "histories.parquet":
        for _, own in read_rows(path, ("user", "item"), ("rating",), ("rating",), ("timestamp",)).groupby(
            "user", sort=False
        ):
            TaskMaker.check(SimpleNamespace(scale=RatingScale(1, 5)), History.of(own))
    else:
        if case.name.startswith(FEATURES):
            path = folder / "ratings.csv"
            path.write_bytes(RATINGS)
        domains = read_domains(path, event_weights=WEIGHTS if case.name.startswith("log") else None)
        assert domains
        for domain in domains.values():
            assert isinstance(domain, Domain)
            events = domain.as_implicit().ratings
            assert np.isfinite(events["weight"]).all()
            assert (events["weight"] > 0).all()
            assert not events.duplicated(["user", "item"]).any()
            if domain.feedback != "implicit":
                unit = domain.scale.to_unit(domain.ratings["rating"].dropna())
                assert unit.between(0, 1).all()
            assert len(domain.fingerprint()) == 64


def gzipped(case):
    return Case(f"{case.name}.gz", gzip.compress(case.content, mtime=0))


@st.composite
def tables(draw):
    """Texts with a header of some usual names, and any cells."""
    width = draw(st.integers(1, 6))
    rating = draw(st.sampled_from([["rating"], ["rating"], ["event"], ["weight"], []]))
    names = ["user", "item", *rating, *draw(st.lists(st.sampled_from(HEADER), max_size=4))]
    rows = draw(st.lists(st.lists(cells, min_size=width, max_size=width + 1), min_size=1, max_size=6))
    separator = draw(st.sampled_from([",", "\t", ";", "|", "::"]))
    stem, suffix = draw(st.sampled_from(["ratings", "items", "users", "movies", "a", "log"])), draw(suffixes)
    lines = [separator.join(names), *(separator.join(row) for row in rows)]
    content = "\n".join(lines).encode("utf-8", errors="surrogatepass")
    return Case(stem + suffix, gzip.compress(content, mtime=0) if suffix.endswith(".gz") else content)


@st.composite
def parquets(draw):
    """Parquet files with columns of any types."""
    rows = draw(st.integers(0, 4))
    names = draw(st.lists(st.sampled_from(HEADER), max_size=4))
    rating = draw(st.sampled_from(["rating", "rating", "weight", "event"]))
    table = {name: draw(columns(rows)) for name in ("user", "item", rating, *names)}
    buffer = io.BytesIO()
    pq.write_table(pa.table(table), buffer)
    return Case(draw(st.sampled_from(["histories.parquet", "ratings.parquet", "items.parquet"])), buffer.getvalue())


texts = st.one_of(st.sampled_from(VALUES), st.text(st.characters(codec="utf-8"), max_size=5), st.just("a\0"))
KINDS = {
    pa.string(): texts,
    pa.large_string(): texts,
    pa.binary(): st.binary(max_size=5),
    pa.dictionary(pa.int32(), pa.string()): texts,
    pa.float64(): st.floats(),
    pa.float32(): st.floats(width=32),
    pa.float16(): st.floats(width=16),
    pa.int64(): st.integers(-(2**63), 2**63 - 1),
    pa.uint64(): st.integers(0, 2**64 - 1),
    pa.int8(): st.integers(0, 5),
    pa.bool_(): st.booleans(),
    pa.decimal128(20, 3): st.decimals(-1000, 1000, places=3),
    pa.date32(): st.dates(),
    pa.timestamp("s"): st.integers(-(2**40), 2**40),
    pa.timestamp("us", "UTC"): st.integers(-(2**62), 2**62),
    pa.timestamp("ns"): st.integers(-(2**63) + 1, 2**63 - 1),
    pa.duration("s"): st.integers(-5, 5),
    pa.time64("us"): st.integers(0, 86_399_999_999),
    pa.list_(pa.string()): st.lists(st.text(st.characters(codec="utf-8"), max_size=2), max_size=3),
    pa.struct([("a", pa.int8())]): st.just({"a": 1}),
    pa.map_(pa.string(), pa.int8()): st.just([("a", 1)]),
    pa.null(): st.none(),
}


@st.composite
def columns(draw, rows):
    kind = draw(st.sampled_from(list(KINDS)))
    values = st.one_of(KINDS[kind], st.none()) if draw(st.booleans()) else KINDS[kind]
    given = draw(st.lists(values, min_size=rows, max_size=rows))
    if pa.types.is_float16(kind):
        given = [None if value is None else np.float16(value) for value in given]
    return pa.array(given, kind)


numbers = st.one_of(
    st.integers(),
    st.floats(),
    st.sampled_from([0, 1, 2, -1, 10**9, 2**31, 2**32, 2**63, 10**30, 10**98, float("inf"), float("nan")]),
)
words = st.sampled_from(
    [
        *NETWORKS.builtins(),
        *RANKERS.builtins(),
        *RANKING_BASES.builtins(),
        "ranking",
        "rating",
        "bias",
        "item-knn",
        "movies",
        "simulated",
        "batched",
        "error",
        "user",
        "1,5",
        "",
        "x",
    ]
)
NAMES = [
    *StudySpec.model_fields,
    *(
        name
        for part in ("fusion", "training", "episodes", "ranking")
        for name in StudySpec.model_fields[part].default.model_dump()
    ),
    *(
        "low",
        "high",
        "first",
        "last",
        "choices",
        "log",
        "outer_lr",
        "loss",
        "regime",
        "strategies",
        "target_users",
        "bias",
    ),
]
keys = st.one_of(st.sampled_from(NAMES), words, st.integers(0, 3), st.text(max_size=3))
plain = st.recursive(
    st.one_of(st.none(), st.booleans(), numbers, words, st.text(max_size=4)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(keys, inner, max_size=3)),
    max_leaves=6,
)
good = st.sampled_from(
    [yaml.safe_load(case.content) for case in KEPT if case.name == "spec.yaml" and b"good" in case.content]
)


@st.composite
def specs(draw):
    """Specs with values of any kind in a good one."""
    spec = {**draw(good), **draw(st.dictionaries(st.sampled_from(list(StudySpec.model_fields)), plain, max_size=3))}
    return Case("spec.yaml", yaml.safe_dump(spec, allow_unicode=draw(st.booleans())).encode("utf-8", errors="replace"))


@st.composite
def assignments(draw):
    path = ".".join(map(str, draw(st.lists(keys, min_size=1, max_size=3))))
    value = yaml.safe_dump(draw(plain), default_flow_style=True).strip().removesuffix("...").strip()
    return Case("assignment", f"{path}={value}".encode("utf-8", errors="replace"))


cases = st.one_of(
    mutated(KEPT, PIECES),
    mutated([case for case in KEPT if case.name.endswith((".csv", ".dat", "u.data", ".inter"))], PIECES).map(gzipped),
    tables(),
    parquets(),
    specs(),
    assignments(),
)


@pytest.mark.slow
def test_readers():
    finds = fuzz(check, cases, CORPUS)
    assert not finds, "\n".join(f"{find.what}\n    {find.case}" for find in finds)
