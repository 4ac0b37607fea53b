"""One rule for ids and one for times, in files and in histories."""

import logging
from decimal import Decimal

import numpy as np
import pandas as pd
import pytest

from metarec.errors import InputError
from metarec.ratings import ids_of, read_domain, read_rows, seconds_of

# Ids.


def test_whole_numbers_have_no_decimals():
    assert ids_of([7, 7.0, np.float32(7), Decimal("7.00"), "7", " 7 ", b"7", np.int64(7)]).tolist() == ["7"] * 8
    assert ids_of(pd.Series([1.0, -2.0])).tolist() == ["1", "-2"]
    # Texts are no numbers, and a number with decimals keeps them.
    assert ids_of(["007", "7.0", 1.5, Decimal("2.50"), 2**70]).tolist() == ["007", "7.0", "1.5", "2.50", str(2**70)]
    assert ids_of(["a b", "\u00e9-1", " c"]).tolist() == ["a b", "\u00e9-1", "c"]
    assert ids_of([]).tolist() == ids_of(pd.Series(dtype=float)).tolist() == []


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([1.0, np.nan], "item id 1 is missing; correct it"),
        (["a", None], "item id 1 is missing"),
        (["a", ""], "item id 1 is missing"),
        ([1.0, 2.0**53], "item id 1 is 9007199254740992.0, a number that was rounded"),
        (np.array([1, 2**24], dtype=np.float32), "item id 1 is 16777216, a number that was rounded"),
        (["a", "b\0"], "item id 1 must not hold the letter"),
    ],
)
def test_ids_that_cannot_be_kept_are_refused(values, message):
    with pytest.raises(InputError, match=message):
        ids_of(values)


@pytest.mark.parametrize("large", [9.2e18, -9.3e18, 1e19, 2.0**53])
@pytest.mark.parametrize("kind", ["float64", "Float64"])
def test_large_floats_in_a_file_are_refused(tmp_path, large, kind):
    table = pd.DataFrame({"user": pd.array([1.0, large], dtype=kind), "item": ["x", "y"], "rating": [1.0, 2.0]})
    table.to_parquet(tmp_path / "a.parquet")
    with pytest.raises(InputError, match=r'row 2: the user id \(column "user"\) is .*, a number that was rounded, so'):
        read_domain(tmp_path / "a.parquet")


def users(write, *ids):
    text = "user,item,rating\n" + "".join(f"{one},{row},{row + 1}\n" for row, one in enumerate(ids))
    return read_domain(write("a.csv", text)).ratings["user"].tolist()


def test_floats_that_were_written_as_text_are_whole_numbers_in_a_file(write):
    assert users(write, "1.0", "1", "3.00") == ["1", "1", "3"]
    # As soon as one id is no whole number, ids are text.
    assert users(write, "1.0", "1.5", "3.0") == ["1.0", "1.5", "3.0"]
    assert users(write, "1.0", "v1", "3.0") == ["1.0", "v1", "3.0"]
    assert users(write, "1e10", "12e45", "abc") == ["1e10", "12e45", "abc"]
    assert users(write, "1" * 30, "2", "3") == ["1" * 30, "2", "3"]


@pytest.mark.parametrize("rounded", ["7.65612E+16", "9.23259540889163e+18"])
def test_ids_that_a_spreadsheet_has_rounded_are_refused(write, rounded):
    with pytest.raises(InputError, match=r"line 3: the user id .* a number that was rounded"):
        users(write, "1", rounded, "3")
    with pytest.raises(InputError, match=r"line 3: the user id .* a number that was rounded"):
        users(write, "1.0", "9007199254740992.0", "3.0")


def test_decimals_of_a_database_are_whole_numbers(tmp_path):
    ids = [Decimal("1.000000000000000000"), Decimal("2.000000000000000000")]
    pd.DataFrame({"user": ids, "item": ids, "rating": [1.0, 2.0]}).to_parquet(tmp_path / "a.parquet")
    assert read_domain(tmp_path / "a.parquet").ratings["user"].tolist() == ["1", "2"]


# Times.

SECONDS = np.array([1_400_000_000.25, 1_400_086_400.0, 1_408_470_800.0])
UNITS = {"milliseconds": 1e3, "microseconds": 1e6, "nanoseconds": 1e9}


def csv_of(times):
    rows = zip("abc", "xyz", (1, 2, 5), times, strict=True)
    return "user,item,rating,date\n" + "".join(",".join(map(str, row)) + "\n" for row in rows)


@pytest.mark.parametrize("unit", UNITS)
def test_other_units_are_seen_by_their_size_and_reported(write, caplog, unit):
    times = (SECONDS * UNITS[unit]).astype(np.int64)
    with caplog.at_level(logging.INFO, logger="metarec"):
        read = read_domain(write("a.csv", csv_of(times))).ratings["timestamp"]
    np.testing.assert_allclose(read, SECONDS, rtol=0, atol=1e-6)
    assert f'column "date" is read as {unit}, from 2014-05-13 to 2014-08-19' in caplog.text
    np.testing.assert_allclose(seconds_of(times), SECONDS, rtol=0, atol=1e-6)
    # The first time of a history alone has the same unit.
    np.testing.assert_allclose(seconds_of(times[:1]), SECONDS[:1], rtol=0, atol=1e-6)


def test_seconds_are_no_other_unit(write, caplog):
    with caplog.at_level(logging.INFO, logger="metarec"):
        read = read_domain(write("a.csv", csv_of([0, 7_000_000_000, -5]))).ratings["timestamp"]
    assert read.tolist() == [0, 7_000_000_000, -5]
    assert "is read as" not in caplog.text


def test_numbers_that_are_no_seconds_are_reported(write, caplog):
    with caplog.at_level(logging.INFO, logger="metarec"):
        # Days since 1970.
        read = read_domain(write("a.csv", csv_of([16203.7, 16204.5, 16210]))).ratings["timestamp"]
    assert read.tolist() == [16203.7, 16204.5, 16210]
    assert 'column "date" is read as seconds, which end in 1970-01-01; if it is another unit, only the' in caplog.text


@pytest.mark.parametrize("form", ["%Y%m%d", "%Y%m%d%H%M%S"])
def test_dates_that_are_written_as_numbers_are_dates_in_a_file(write, caplog, form):
    stamps = pd.to_datetime(["2014-05-13", "2014-12-31", "2015-01-01"])
    with caplog.at_level(logging.INFO, logger="metarec"):
        read = read_domain(write("a.csv", csv_of(stamps.strftime(form)))).ratings["timestamp"]
    assert read.tolist() == (stamps.astype("datetime64[s]").astype(np.int64)).tolist()
    assert "is read as dates, from 2014-05-13 to 2015-01-01" in caplog.text
    # One number that is no date shows that they are none.
    assert read_domain(write("b.csv", csv_of([20140513, 20141331, 20150101]))).ratings["timestamp"].max() == 20150101


@pytest.mark.parametrize(
    "times", [[1_400_000_000_000, 1_400_000_000_001, 1_400_000_000], [1_400_000_000, 1_400_000_001, 1_400_000_000_000]]
)
def test_times_in_two_units_are_refused(write, times):
    with pytest.raises(InputError, match=r'line 4: the timestamp .* in one unit, .* but is "1400000000'):
        read_domain(write("a.csv", csv_of(times)))


@pytest.mark.parametrize(("start", "ticks"), [(11_644_473_600, 1e7), (62_135_596_800, 1e7), (11_644_473_600, 1e6)])
def test_ticks_from_other_years_are_refused(start, ticks):
    with pytest.raises(InputError, match="time 0 must be seconds"):
        seconds_of(((SECONDS + start) * ticks).astype(np.int64))


def test_milliseconds_that_grow_from_zero_are_in_one_unit():
    times = np.linspace(0, 1.5e12, 100)
    np.testing.assert_allclose(seconds_of(times), times / 1000)


@pytest.mark.parametrize(
    "values",
    [
        pd.to_datetime(["2014-05-13 16:53:20", "2014-05-14 00:00:00"]),
        pd.to_datetime(["2014-05-13 18:53:20", "2014-05-14 02:00:00"]).tz_localize("Europe/Paris"),
        pd.to_datetime(["2014-05-13 16:53:20", "2014-05-14 00:00:00"]).astype("datetime64[ms]"),
        ["2014-05-13T16:53:20Z", "2014-05-14T00:00:00+00:00"],
        ["2014-05-13 18:53:20+02:00", "2014-05-14"],
        list(pd.to_datetime(["2014-05-13 16:53:20", "2014-05-14 00:00:00"])),
        pd.array([1_400_000_000, 1_400_025_600], dtype="Int64"),
        np.array([1_400_000_000, 1_400_025_600], dtype="datetime64[s]"),
    ],
)
def test_every_form_of_a_time_gives_the_same_seconds(values):
    assert seconds_of(values).tolist() == [1_400_000_000, 1_400_025_600]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([1.0, np.nan], "timestamp 1 is missing; fill it in, or leave out all times"),
        (pd.to_datetime(["2014-05-13", None]), "timestamp 1 is missing"),
        (["2014-05-13", ""], "timestamp 1 is missing"),
        ([None, None], "timestamp 0 is missing"),
        (["2014-05-13", "yesterday"], 'timestamp 1 must be seconds .* but is "yesterday"'),
        ([1.0, np.inf], 'timestamp 1 must be .* but is "inf"'),
        ([True, False], "timestamp 0 must be"),
        ([1e30, 2e30], "timestamp 0 must be"),
        ([-(2**63), 1], "timestamp 0 must be"),
    ],
)
def test_a_time_that_is_none_is_refused_in_one_line(values, message):
    with pytest.raises(InputError, match=message):
        seconds_of(values, "timestamp")


def test_no_times_are_fine():
    assert seconds_of([]).tolist() == seconds_of(pd.Series(dtype=object)).tolist() == []


def test_rows_of_a_table_have_times_too(tmp_path):
    stamps = pd.to_datetime(["2014-05-13 16:53:20", "2014-05-14 00:00:00"])
    rows = pd.DataFrame({"user": [1.0, 2.0], "item": [7, 8], "timestamp": stamps})
    rows.to_parquet(tmp_path / "a.parquet")
    read = read_rows(tmp_path / "a.parquet", ("user", "item"), times=("timestamp",))
    assert read.to_dict("list") == {"user": ["1", "2"], "item": ["7", "8"], "timestamp": [1_400_000_000, 1_400_025_600]}


def test_days_of_a_spreadsheet_are_dates(tmp_path, caplog):
    caplog.set_level("INFO")
    path = tmp_path / "a.csv"
    path.write_text("user,item,rating,date\n1,1,4,44197\n1,2,5,44197.5\n2,1,3,45383\n")
    times = read_domain(path).ratings["timestamp"]
    assert times.tolist() == [1609459200, 1609502400, 1711929600]
    assert 'column "date" is read as days of a spreadsheet, from 2021-01-01 to 2024-04-01' in caplog.text


@pytest.mark.parametrize("times", [(0, 40_000, 50_000), (40_000, 60_000, 50_000), (44_197, 44_197, 44_197)])
def test_other_small_numbers_are_no_days(tmp_path, times):
    path = tmp_path / "a.csv"
    path.write_text("user,item,rating,time\n" + "".join(f"{n},1,{n},{time}\n" for n, time in enumerate(times, 1)))
    assert read_domain(path).ratings["timestamp"].tolist() == list(times)


@pytest.mark.parametrize("days", [("05112025", "25122025", "31122024"), ("12312024", "11052025", "01022025")])
def test_dates_with_the_year_at_their_end_are_refused(write, days):
    with pytest.raises(InputError, match=f'a date like 2001-12-31, before 2262, but is "{days[0]}"'):
        read_domain(write("a.csv", csv_of(days)))


def test_numbers_of_which_one_is_no_date_are_seconds(write):
    times = [5112025, 25122025, 32132024]
    assert read_domain(write("a.csv", csv_of(times))).ratings["timestamp"].tolist() == times
