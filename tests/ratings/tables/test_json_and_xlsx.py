"""Lines of JSON, and Excel's workbooks."""

import datetime
import io
import json
import sys
import zipfile

import pytest

from metarec.errors import InputError
from metarec.ratings import read_domain

AMAZON = [
    {"reviewerID": "A1", "asin": "0007", "helpful": [1, 2], "overall": 5.0, "unixReviewTime": 1_400_000_000},
    {"reviewerID": "A2", "asin": "0007", "style": {"Size": "L"}, "overall": 2.0, "unixReviewTime": 1_400_000_001},
]


def lines(rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


@pytest.mark.parametrize("name", ["reviews_5.json.gz", "a.jsonl", "a.ndjson", "reviews.json"])
def test_lines_of_json(write, name):
    domain = read_domain(write(name, lines(AMAZON) + "\n"))
    assert domain.ratings.to_dict("list") == {
        **{"user": ["A1", "A2"], "item": ["0007", "0007"]},
        **{"rating": [5.0, 2.0], "timestamp": [1_400_000_000, 1_400_000_001]},
    }
    assert read_domain(write("list.json", json.dumps(AMAZON))).fingerprint() == domain.fingerprint()


def test_numbers_of_json_are_exact_ids(write):
    rows = [{"user": 2**60 + n, "item": 7.0, "rating": n} for n in (1, 2, 3)]
    domain = read_domain(write("a.json", lines([*rows, {"user": 1, "item": 8, "rating": None}])))
    assert domain.ratings["user"].tolist() == [str(2**60 + n) for n in (1, 2, 3)] + ["1"]
    assert domain.ratings["item"].tolist() == ["7", "7", "7", "8"]
    assert domain.feedback == "mixed"


def test_yelps_dates_and_items(write):
    rows = [{"user_id": f"u{n}", "business_id": "b", "stars": n, "date": f"2014-01-02 03:04:0{n}"} for n in (1, 2)]
    assert read_domain(write("review.json", lines(rows))).ratings["timestamp"].tolist() == [1388631841, 1388631842]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (lines(AMAZON) + "{reviewerID: A3}\n", "a.json, line 3: not JSON"),
        (lines(AMAZON) + '"A3"\n', 'a.json, line 3: must be an object like {"user": "ada"}'),
        (lines(AMAZON).replace("2.0", '"two"'), "a.json, line 2: the rating"),
        ("[1, 2]", "a.json, object 1: must be an object"),
        ("[" * 100_000, "a.json: not JSON"),
        ('{"a": ' + "9" * 5000 + "}", "a.json, line 1: not JSON"),
        ('{"a": 1}\n{}\n', "no column for the user"),
        ("{}\n{}\n", "no rows"),
        ("[]", "no rows"),
        (lines([{"user": "\ud800", "item": 1, "rating": 1}]), "the user id"),
    ],
)
def test_wrong_json_is_one_line(write, content, problem):
    with pytest.raises(InputError) as caught:
        read_domain(write("a.json", content))
    assert problem in str(caught.value)
    assert "\n" not in str(caught.value)


def test_too_many_keys(write):
    rows = [{f"k{row}-{key}": 1 for key in range(100)} for row in range(101)]
    with pytest.raises(InputError, match="at most 10,000 columns but has 10,100"):
        read_domain(write("a.json", lines(rows)))


# Excel.


def workbook(rows, others=()):
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    for row in rows:
        book.active.append(row)
    for title in others:
        book.create_sheet(title)
    buffer = io.BytesIO()
    book.save(buffer)
    return buffer.getvalue()


def test_a_workbook(write, caplog):
    day = datetime.datetime(2014, 5, 13)
    rows = [("User", "Item", "Rating", "Date"), ("a", 7, 4.5, day), (None,) * 4, ("b", "007", 2, day)]
    with caplog.at_level("INFO", logger="metarec"):
        ratings = read_domain(write("ratings.xlsx", workbook(rows, ["notes"])).parent).ratings
    assert ratings.to_dict("list") == {
        **{"user": ["a", "b"], "item": ["7", "007"], "rating": [4.5, 2.0]},
        "timestamp": [1_399_939_200, 1_399_939_200],
    }
    assert 'the sheet "Sheet" is read; ignored: notes' in caplog.text
    with pytest.raises(InputError, match=r"a\.xlsx, row 4: the rating .* is \"bad\""):
        read_domain(write("a.xlsx", workbook([*rows[:3], ("b", 7, "bad", day)])))
    with pytest.raises(InputError, match="no rows"):
        read_domain(write("a.xlsx", workbook(rows[:1])))


def test_ids_that_a_spreadsheet_changed_are_refused(write):
    """Cases of readxl 669, and of HGNC, where the genes MARCH1 and SEPT2 became dates."""
    for wrong, problem in (
        ("#N/A", "is #N/A, which means that there is none"),
        (datetime.datetime(2020, 3, 1), "date"),
    ):
        with pytest.raises(InputError, match=rf"a\.xlsx, row 3: the item id .* {problem}"):
            read_domain(write("a.xlsx", workbook([("user", "item", "rating"), (1, "a", 4), (2, wrong, 3)])))


def test_files_that_are_no_workbook(write, monkeypatch):
    pytest.importorskip("openpyxl")
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x", b"0" * 100_000)
    for content in (b"junk", buffer.getvalue(), workbook([])[:500]):
        with pytest.raises(InputError, match="not a workbook that can be read"):
            read_domain(write("a.xlsx", content))
    monkeypatch.setenv("METAREC_MAX_TABLE_BYTES", "50000")
    with pytest.raises(InputError, match="the table without compression"):
        read_domain(write("a.xlsx", buffer.getvalue()))


def test_without_openpyxl_one_line_names_the_extra(write, monkeypatch):
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    with pytest.raises(InputError, match=r'needs openpyxl, which is not installed; pip install "metarec\[xlsx\]", or'):
        read_domain(write("a.xlsx", b"x"))
