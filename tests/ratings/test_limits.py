"""Whatever a file claims or expands to, reading ends at a limit, in one line that says how to change it."""

import gzip
import os
import socket
import tracemalloc

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from metarec.errors import InputError
from metarec.ratings import Domain, RatingScale, common_scale, infer_scale, read_domain

HEAD = "user,item,rating\n"
ROWS = "ann,x,4\nbob,x,2\n"
# No overflow, no cast of what has no value.
pytestmark = pytest.mark.filterwarnings("error")

MOST = "METAREC_MAX_TABLE_BYTES"


def refused(action, *arguments, **options):
    with pytest.raises(InputError) as caught:
        action(*arguments, **options)
    message = str(caught.value)
    assert message.isprintable()
    assert len(message) < 600
    return message


@pytest.fixture
def at_most(monkeypatch):
    return lambda most: monkeypatch.setenv(MOST, str(most))


# Sizes.


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz", "a.parquet"])
def test_a_table_above_the_limit(tmp_path, at_most, name):
    path = tmp_path / name
    table = pd.DataFrame({"user": [f"user {row}" for row in range(300)], "item": "x", "rating": [1.0, 5.0] * 150})
    table.to_parquet(path) if name.endswith("parquet") else table.to_csv(path, index=False)
    assert read_domain(path).num_users == 300
    at_most(2000)
    message = refused(read_domain, path)
    assert f"{path}: " in message
    assert f"more than {MOST}=2,000 bytes" in message
    assert "if it is meant to be so large, set that environment variable to more" in message


def test_a_wrong_limit(tmp_path, at_most):
    (tmp_path / "a.csv").write_text(HEAD + ROWS)
    for value in ("many", "0", "-3", "1e9", "9" * 5000):
        at_most(value)
        assert f"{MOST} must be a whole number of bytes >= 1" in refused(read_domain, tmp_path / "a.csv")


def test_a_compressed_table_is_read_no_further_than_the_limit(tmp_path, at_most):
    path = tmp_path / "bomb.csv.gz"
    with gzip.open(path, "wb") as file:
        file.write(HEAD.encode())
        for _ in range(64):
            file.write(b"ann,x,4\n" * (1 << 17))
    at_most(1 << 20)
    tracemalloc.start()
    message = refused(read_domain, path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert "more than" in message
    assert peak < 8 << 20


def test_a_compressed_table_must_not_expand_too_far(tmp_path):
    path = tmp_path / "bomb.csv.gz"
    with gzip.open(path, "wb") as file:
        for _ in range(96):
            file.write(b"\n" * (1 << 20))
    assert "more than 200 times its compressed size" in refused(read_domain, path)
    assert "decompress it first" in refused(read_domain, path)


def test_short_rows_below_many_columns(tmp_path, at_most):
    path = tmp_path / "wide.csv"
    path.write_text(HEAD.strip() + "".join(f",c{place}" for place in range(5000)) + "\n" + "ann,x,4\n" * 5000)
    at_most(50_000_000)
    assert "5,001 rows of 5,003 columns" in refused(read_domain, path)


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_too_many_columns(tmp_path, kind):
    path = tmp_path / f"wide.{kind}"
    names = ["user", "item", "rating", *(f"c{place}" for place in range(10_000))]
    if kind == "csv":
        path.write_text(",".join(names) + "\n" + ROWS)
    else:
        pq.write_table(pa.table({name: ["1", "2"] for name in names}), path)
    assert "at most 10,000 columns but has 10,003" in refused(read_domain, path)


def test_a_sequence_of_too_many_numbers(tmp_path, caplog):
    (tmp_path / "x.inter").write_text("user_id:token\titem_id:token\trating:float\n1\t1\t3\n2\t1\t4\n")
    (tmp_path / "x.item").write_text("item_id:token\tplace:float_seq\n1\t" + "1 " * 10_001 + "\n")
    assert read_domain(tmp_path).items is None
    assert "at most 10,000 numbers" in caplog.text


def test_a_small_parquet_file_of_many_equal_rows(tmp_path, at_most):
    path = tmp_path / "bomb.parquet"
    rows = 100_000
    column = pa.DictionaryArray.from_arrays(pa.array(np.arange(rows, dtype=np.int32) % 2), pa.array(["x" * 900, "y"]))
    pq.write_table(
        pa.table({"user": column.cast(pa.string()), "item": pa.array(range(rows)), "rating": [1.0, 2.0] * (rows // 2)}),
        path,
    )
    most = pa.default_memory_pool().max_memory()
    assert read_domain(path).num_users == 2
    # A quarter of the long texts.
    assert pa.default_memory_pool().max_memory() - most < 20_000_000
    at_most(8 * 3 * rows - 1)
    assert "100,000 rows of 3 columns has more than" in refused(read_domain, path)


# Files that are none.


@pytest.mark.parametrize("name", ["ratings.csv", "ratings.csv.gz", "ratings.parquet", "u.data"])
def test_what_is_no_regular_file_is_refused_at_once(tmp_path, name):
    path = tmp_path / name
    os.mkfifo(path)
    assert "is a named pipe" in refused(read_domain, path)
    path.unlink()
    path.symlink_to("/dev/zero")
    assert "is a device" in refused(read_domain, path)
    path.unlink()
    path.symlink_to(name)
    assert "no such file or folder" in refused(read_domain, path)
    path.unlink()
    path.symlink_to("nothing")
    assert "no such file or folder" in refused(read_domain, path)
    path.unlink()
    path.mkdir()
    assert "no file of ratings in this folder" in refused(read_domain, path)


def test_a_socket_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as own:
        own.bind("a.csv")
        assert "is a socket" in refused(read_domain, "a.csv")


# Numbers.


@pytest.mark.parametrize("rating", ["inf", "-inf", "nan", "1e400", "-1e400", "0x10", "1_000", "9" * 400, "0b1", "True"])
def test_a_rating_must_be_a_finite_number(tmp_path, rating):
    (tmp_path / "a.csv").write_text(f"{HEAD}{ROWS}cid,x,{rating}\n")
    assert "line 4: the rating" in refused(read_domain, tmp_path / "a.csv")


@pytest.mark.parametrize("rating", ["1e308", "-1.7e308", "9" * 30, "1e10"])
def test_ratings_out_of_any_scale(tmp_path, rating):
    (tmp_path / "a.csv").write_text(f"{HEAD}{ROWS}cid,x,{rating}\n")
    assert "must lie between -1e+09 and 1e+09" in refused(read_domain, tmp_path / "a.csv")


def test_denormal_ratings_are_ordinary_small_ones(tmp_path):
    (tmp_path / "a.csv").write_text(HEAD + "ann,x,5e-324\nbob,x,0\n")
    domain = read_domain(tmp_path / "a.csv")
    assert str(domain.scale) == "0..1"
    assert np.isfinite(domain.scale.to_unit(domain.ratings["rating"])).all()


@pytest.mark.parametrize(
    "bounds",
    [
        (-1e308, 1e308),
        (0, 1e308),
        (1e308, 1e308),
        (0, 5e-324),
        (-5e-324, 5e-324),
        (1e9 - 1, 1e9),
        (1.0, 1.0 + 2**-52),
        (3, 3),
        (5, 1),
        (float("nan"), 1),
        (0, float("inf")),
        (0, 10**400),
        (0, 10**5000),
        ("0", 1),
        (None, 1),
        (True, 5),
    ],
)
def test_scales_that_cannot_be_computed_with(bounds):
    assert "a rating scale must" in refused(RatingScale, *bounds)


@pytest.mark.parametrize(
    "scale", [(1, 10**400), (1, "x"), "1e308,5", "1,1", [1], [], {}, 5, (1, 2, 3), "9" * 500 + ",1"]
)
def test_given_scales(tmp_path, scale):
    (tmp_path / "a.csv").write_text(HEAD + ROWS)
    assert "scale must" in refused(read_domain, tmp_path / "a.csv", scale=scale)


def test_usual_scales_are_far_from_the_rule():
    ratings = pd.DataFrame({"user": ["a", "b"], "item": ["x", "x"], "rating": [3.0, 3.0]})
    for bounds in [(0, 1), (-10, 10), (0, 100), (0.001, 0.002), (1e6, 1e6 + 5), (-1e9, 1e9)]:
        scale = RatingScale(*bounds)
        assert scale.to_ratings(scale.to_unit(scale.high)) == scale.high
    common_scale(Domain("a", ratings, RatingScale(1, 5)))
    # Nearly equal ratings.
    ratings["rating"] = [3.0, 3.0 + 1e-8]
    assert common_scale(Domain("a", ratings, RatingScale(1, 5))).span == pytest.approx(4)
    assert "must" in refused(infer_scale, [1.0, 1e300])


# Times.


@pytest.mark.parametrize("time", ["1e300", "-1e19", "9" * 40, "99999-01-01", "2001-99-99", "0000-00-00", "9999-12-31"])
def test_times_out_of_range(tmp_path, time):
    (tmp_path / "a.csv").write_text(f"user,item,rating,timestamp\nann,x,4,{time}\nbob,x,2,{time}\n")
    assert "line 2: the timestamp" in refused(read_domain, tmp_path / "a.csv")


@pytest.mark.parametrize("second", ["2001-01-01", "9999-12-31"])
@pytest.mark.parametrize("unit", ["s", "ms", "us"])
def test_dates_in_parquet_out_of_range(tmp_path, unit, second):
    times = np.array(["9999-12-31", second], dtype=f"datetime64[{unit}]")
    table = pa.table({"user": ["a", "b"], "item": ["x", "y"], "rating": [1.0, 2.0], "timestamp": pa.array(times)})
    pq.write_table(table, tmp_path / "a.parquet")
    assert "row 1: the timestamp" in refused(read_domain, tmp_path / "a.parquet")


def test_large_whole_times_keep_their_sign():
    ratings = pd.DataFrame({"user": ["a", "b"], "item": ["x", "y"], "rating": [1.0, 2.0]})
    large = ratings.assign(timestamp=np.array([2**63 + 5, 1], dtype=np.uint64))
    assert "every timestamp must lie between" in refused(Domain, "a", large, RatingScale(1, 5))


# Ids.


@pytest.mark.parametrize(
    ("value", "rule"),
    [
        ("a\0", "must not hold the letter \\x00"),
        ("\ud800", "must not hold the letter \\ud800"),
        ("x" * 1001, "must have at most 1,000 letters but has 1,001"),
        ("x" * (1 << 20), "must have at most 1,000 letters but has 1,048,576"),
    ],
)
@pytest.mark.parametrize("key", ["user", "item"])
def test_ids_that_cannot_be_kept(key, value, rule):
    ratings = pd.DataFrame({"user": ["a", "b"], "item": ["x", "y"], "rating": [1.0, 2.0]})
    ratings.loc[1, key] = value
    assert rule in refused(Domain, "a", ratings, RatingScale(1, 5))


def test_such_ids_in_files_name_the_line(tmp_path):
    (tmp_path / "a.csv").write_text(f"{HEAD}{ROWS}{'c' * 1001},x,3\n")
    assert 'a.csv, line 4: the user id (column "user") must have at most 1,000 letters' in refused(
        read_domain, tmp_path / "a.csv"
    )
    pd.DataFrame({"user": ["a", "b"], "item": ["x", "y\0"], "rating": [1.0, 2.0]}).to_parquet(tmp_path / "a.parquet")
    assert 'column "item" holds the letter' in refused(read_domain, tmp_path / "a.parquet")


def test_ids_that_are_infinite_floats_stay_apart(tmp_path):
    table = pd.DataFrame({"user": [1.0, np.inf, 3.0], "item": ["x", "y", "x"], "rating": [1.0, 2.0, 3.0]})
    table.to_parquet(tmp_path / "a.parquet")
    assert read_domain(tmp_path / "a.parquet").num_users == 3


def test_ids_in_bytes_that_are_no_text(tmp_path):
    table = pd.DataFrame({"user": [b"a\xe3", b"a\xe4"], "item": ["x", "y"], "rating": [1.0, 2.0]})
    table.to_parquet(tmp_path / "a.parquet")
    message = refused(read_domain, tmp_path / "a.parquet")
    assert 'a.parquet, row 1: the user id (column "user") must not hold the letter \\udce3' in message
