"""Whatever bytes a file holds: a domain or an InputError, nothing else."""

import gzip
import io

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from metarec.errors import InputError
from metarec.ratings import Domain, read_domains

CSV = b'user,item,rating,timestamp,domain\nann,x,4,10,1\nbob,x,2.5,11,1\nbob,"y, z",3,12,2\nann,y,1,13,2\n'
ITEMS = b'item,title,year,genres\nx,"A, B (1995)",1995,a|b\ny,Caf\xe9,,\n'


def parquet():
    buffer = io.BytesIO()
    pd.DataFrame({"user": ["a", "b"], "item": [1, 2], "rating": [1.0, 2.0]}).to_parquet(buffer)
    return buffer.getvalue()


VALID = {
    "ratings.csv": CSV,
    "ratings.tsv": CSV.replace(b",", b"\t"),
    "ratings.dat": b"1::1::4::9\n2::1::1::8\n",
    "u.data": b"1\t1\t4\t9\n2\t1\t1\t8\n",
    "x.inter": b"user_id:token\titem_id:token\trating:float\n1\t1\t3\n2\t1\t4\n",
    "ratings.csv.gz": gzip.compress(CSV),
    "ratings.parquet": parquet(),
}
# fmt: off
PIECES = st.sampled_from([
    b"", b"\n", b",", b'"', b"\t", b"\0", b"\r", b";", b"::", b"nan", b"inf", b"-1e999", b"\xff", b" ", b"\n\n",
    b"user", b":token",
])
# fmt: on

fuzz = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))


def domains_or_input_error(folder, name, content):
    path = folder / name
    path.write_bytes(content)
    message, domains = "", {}
    try:
        domains = read_domains(path)
    except InputError as error:
        message = str(error)
    path.unlink()
    assert bool(domains) != bool(message)
    assert message.isprintable()
    for domain in domains.values():
        assert isinstance(domain, Domain)
        assert domain.scale.to_unit(domain.ratings["rating"]).between(0, 1).all()


@pytest.mark.parametrize("name", VALID)
@fuzz
@given(data=st.data())
def test_mutated_files(tmp_path_factory, name, data):
    content = VALID[name]
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(content)))
        end = data.draw(st.integers(start, min(start + 5, len(content))))
        piece = data.draw(st.one_of(PIECES, st.binary(max_size=4)))
        content = content[:start] + piece + content[end:]
    domains_or_input_error(tmp_path_factory.getbasetemp(), name, content)


@pytest.mark.parametrize("name", VALID)
@fuzz
@given(content=st.binary(max_size=200))
def test_random_bytes(tmp_path_factory, name, content):
    domains_or_input_error(tmp_path_factory.getbasetemp(), name, content)


@fuzz
@given(rows=st.lists(st.lists(st.text(max_size=5), min_size=1, max_size=5), max_size=5))
def test_random_rows_below_a_good_header(tmp_path_factory, rows):
    text = "user,item,rating,timestamp\n" + "\n".join(",".join(row) for row in rows)
    domains_or_input_error(tmp_path_factory.getbasetemp(), "ratings.csv", text.encode("utf-8", errors="replace"))


@fuzz
@given(data=st.data())
def test_mutated_items(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("items")
    position = data.draw(st.integers(0, len(ITEMS)))
    piece = data.draw(st.one_of(PIECES, st.binary(max_size=6)))
    (folder / "items.csv").write_bytes(ITEMS[:position] + piece + ITEMS[position + data.draw(st.integers(0, 4)) :])
    domains_or_input_error(folder, "ratings.csv", CSV)
