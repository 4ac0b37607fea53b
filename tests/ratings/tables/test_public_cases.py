"""Small inputs after reports to other libraries, which docs/decisions/010-cases-from-public-reports.md lists.

Each case is named by its report.
"""

import gzip
import io
import json
import logging
import re
from pathlib import Path

import pandas as pd
import pytest

from metarec.errors import InputError
from metarec.ratings import read_domain


def table(*rows, header="user,item,rating"):
    return "".join(f"{line}\n" for line in (header, *rows))


TABLE = table("1,a,4", "1,b,2", "2,a,5")
MARK = b"\xef\xbb\xbf"
PAGE = Path(__file__).parents[3] / "docs" / "decisions" / "010-cases-from-public-reports.md"
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 123\n"


def lines_of(*rows):
    return "".join(f"{json.dumps(row)}\n" for row in rows)


LINES = lines_of({"user": 1, "item": "a", "rating": 4}, {"user": 2, "item": "b", "rating": 3})


def parquet(**columns):
    buffer = io.BytesIO()
    pd.DataFrame(columns).to_parquet(buffer)
    return buffer.getvalue()


def read(path, **options):
    """The rows as texts such as ``"1 a 4"``, with the time where there is one."""
    rows = read_domain(path, **options).ratings.itertuples(index=False)
    return [" ".join(f"{value:.15g}" if isinstance(value, float) else str(value) for value in row) for row in rows]


# fmt: off
READ = {
    "docling 4097, byte order marks where files were joined":
        ("x.csv", MARK + b"user,item,rating\n1,a,4\n" + MARK + b"2,b,3\n2,a,1\n", ["1 a 4", "2 b 3", "2 a 1"]),
    "docling 4097, the same in lines of JSON":
        ("x.jsonl", 2 * (MARK + b'{"user": 1, "item": 1, "rating": 4}\n{"user": 2, "item": 1, "rating": 5}\n'),
         ["1 1 4", "2 1 5"]),
    "MAVE 9, awesome-json-datasets 208":
        ("x.json", "{u'user_id': u'1', 'asin': 'a', 'overall': 4.0}\n{'user_id': '2', 'asin': \"a'\", 'overall': 3}\n",
         ["1 a 4", "2 a' 3"]),
    "readr 680": ("x.csv", "\n \r\n" + table("1,a,4", "2,b,3"), ["1 a 4", "2 b 3"]),
    "jquery-csv 32, fivethirtyeight 284": ("x.csv", TABLE.replace("\n", "\r"), ["1 a 4", "1 b 2", "2 a 5"]),
    "mixed line ends": ("x.csv", TABLE.replace("b,2\n", "b,2\r").replace("5\n", "5\r\n"), ["1 a 4", "1 b 2", "2 a 5"]),
    "mailmerge 93": ("x.csv", MARK + TABLE.replace("\n", "\r\n").encode(), ["1 a 4", "1 b 2", "2 a 5"]),
    "Surprise 314, cornac 327, RecBole 487":
        ("x.csv", table("1,a,4,1400000002", "1,a,2,1400000001", "2,b,3,1400000000", header="user,item,rating,time"),
         ["1 a 4 1400000002", "2 b 3 1400000000"]),
    "nlvr 1": ("x.json", LINES, ["1 a 4", "2 b 3"]),
    "datalad 4360": ("x.jsonl", LINES.rstrip("\n"), ["1 a 4", "2 b 3"]),
    "rsmtool 271, NaN":
        ("x.jsonl", LINES + '{"user": 2, "item": "c", "rating": NaN}\n', ["1 a 4 1", "2 b 3 1", "2 c nan 1"]),
    "names in capitals and between blanks":
        ("x.csv", table("1,a,4", "2,b,3", header=" USER ID , Movie_ID , Rating "), ["1 a 4", "2 b 3"]),
    "names in Chinese":
        ("x.csv", table("1,a,4", "2,b,3", header="用户,电影,评分"), ["1 a 4", "2 b 3"],
         {"columns": {"user": "用户", "item": "电影", "rating": "评分"}}),
    "cudf 4565, fastparquet 949":
        ("x.parquet", parquet(user=pd.Categorical(["u", "v"]), item=pd.Categorical([7, 8]), rating=[4, 2]),
         ["u 7 4", "v 8 2"]),
    "pandas 27515": ("x.csv", "1,7,4,\n2,8,3,\n", ["1 7 4", "2 8 3"]),
    "recpack 15":
        ("user_artists.dat", "userID\tartistID\tweight\n2\t51\t13883\n3\t52\t10\n", ["2 51 13883", "3 52 10"]),
    "Surprise 91": ("x.csv", "1,7,49.264\n2,8,17.8935\n2,9,50.2377\n", ["1 7 49.264", "2 8 17.8935", "2 9 50.2377"]),
    "RecBole 1368":
        ("x.inter", "user_id:token   item_id:token   rating:float\n1   a   4\n2   b   3\n", ["1 a 4", "2 b 3"]),
    "recommenders 816": ("x.csv", table("1,a,1", "1,b,30", "2,a,7"), ["1 a 1", "1 b 30", "2 a 7"]),
    "recommenders 816, counts":
        ("x.csv", table("1,a,1", "1,b,30", "2,a,7"), ["1 a 1", "1 b 30", "2 a 7"],
         {"columns": {"rating": None, "weight": "rating"}}),
    "Surprise 117, with places":
        ("x.tsv", "1\t7\t4\t1\n2\t8\t3\t1\n", ["1 7 4", "2 8 3"],
         {"columns": {"user": "1", "item": "2", "rating": "3"}}),
    "implicit 738, with names":
        ("x.csv", table("1,a,4,2014-05-13", "2,b,3,2014-05-13", header="_id,lead,order,order_datetime"),
         ["1 a 4", "2 b 3"], {"columns": {"user": "_id", "item": "lead", "weight": "order"}}),
}

FOLDERS = {
    "Netflix Prize README": (
        {"x/mv_0000001.txt": "1:\n7,3,2005-09-06\n8,5,2005-05-13\n", "x/mv_0000002.txt": "2:\n7,4,2005-09-07\n",
         "x/mv_0000003.txt": "3:\n"},
        ["7 1 3 1125964800", "8 1 5 1115942400", "7 2 4 1126051200"],
    ),
    "Netflix Prize README, as it is unpacked": (
        {"x/training_set/mv_0000001.txt": "1:\n7,3,2005-09-06\n8,5,2005-05-13\n", "x/movie_titles.txt": "1,2003,Up\n",
         "x/probe.txt": "1:\n9\n", "x/qualifying.txt": "1:\n9,2005-12-01\n", "x/README": "about\n"},
        ["7 1 3 1125964800", "8 1 5 1115942400"],
    ),
    "Netflix Prize README, Kaggle's edition": (
        {"x/combined_data_1.txt": "1:\n7,3,2005-09-06\n2:\n8,5,2005-05-13\n",
         "x/combined_data_2.txt": "3:\n7,4,2005-09-07\n", "x/movie_titles.csv": "1,2003,Up\n",
         "x/qualifying.txt": "1:\n9,2005-12-01\n"},
        ["7 1 3 1125964800", "8 2 5 1115942400", "7 3 4 1126051200"],
    ),
    "Netflix Prize README, with ratings that were made of it": (
        {"x/combined_data_1.txt": "1:\n7,3,2005-09-06\n", "x/ratings.csv": TABLE}, ["1 a 4", "1 b 2", "2 a 5"],
    ),
    "dask 1930": (
        {"x/part-0.parquet": parquet(user=pd.Categorical(["a"]), item=["i"], rating=[1.0]),
         "x/part-1.parquet": parquet(user=pd.Categorical(["b"]), item=["i"], rating=[2.0])},
        ["a i 1", "b i 2"],
    ),
    "dask 3454": (
        {"x/part-0.parquet": parquet(user=["a", "b"], item=["i", "j"], rating=[1.0, 2.0]),
         "x/part-1.parquet": parquet(user=[], item=[], rating=[])},
        ["a i 1", "b j 2"],
    ),
    "Surprise 312, 345, ids that are whole numbers in one part and floats in another": (
        {"x/part-0.parquet": parquet(user=[1, 2], item=["i", "j"], rating=[1.0, 2.0]),
         "x/part-1.parquet": parquet(user=[1.0, 3.0], item=["k", "i"], rating=[1, 2])},
        ["1 i 1", "2 j 2", "1 k 1", "3 i 2"],
    ),
    "goodbooks-10k README, books with an ISBN beside the id of the ratings": (
        {"x/ratings.csv": table("1,258,5", "2,4081,4", header="user_id,book_id,rating"),
         "x/books.csv": table("439023483,27,258,Emma", header="isbn,goodreads_book_id,book_id,original_title")},
        ["1 258 5", "2 4081 4"],
    ),
}

REFUSED = {
    "pandas 9295": ("x.csv", table("1,a,4,", "2,b,3"), "line 2: the row has more fields than the 3 columns"),
    "pandas 41304":
        ("x.csv", table('"1";"a";"4";""', '"2";"b";"3";""', header='"user";"item";"rating"'),
         "line 2: the row has more fields than the 3 columns"),
    "pandas 14012": ("x.csv", table("1,a\0b,4", "2,b,3"), "this is not text"),
    "pandas 64631": ("x.csv", table("1;a;1 ,", "2;b;3", header="user;item;rating"), 'line 2: the rating .* is "1 ,"'),
    "just 6": ("x.jsonl", LINES + '{"user": 2, "item"', "line 3: not JSON"),
    "rsmtool 271": ("x.jsonl", '{"user": 1, "item": "a", "rating": 4},\n', "line 1: not JSON .Extra data"),
    "TOP250movie_douban 2, an export of MongoDB":
        ("x.jsonl", lines_of({"user": 1, "item": "a", "rating": 4, "date": {"$date": "2014-05-13"}}),
         r'line 1: the timestamp .* is "\{"\$date": "2014-05-13"\}"'),
    "names in Chinese, not given":
        ("x.csv", table("1,a,4", header="用户,电影,评分"), "no column for the user; .* Known: 用户, 电影, 评分"),
    "Jester, a column for each item": ("x.csv", "2,-7.82,8.79,99,99\n3,4.08,-0.29,6.3,99\n", "the table has 5 columns"),
    "pandas 21695, a quotation mark that a text opens":
        ("x.csv", table("1,a,4,fine", '2,b,3,"good', "3,c,2,bad", '4,d,1,"bad', header="user,item,rating,text"),
         "line 3: a quotation mark opens a field here, and text follows where it closes"),
    "polars 1999, data.table 1818, R's write.table":
        ("x.csv", table('"1",1,"a",4', '"2",2,"b",3', header='"user","item","rating"'),
         "line 2: .* a first field that numbers the rows needs a name"),
    "data.table 1818, between blanks":
        ("x.txt", table('"1" 1 "a" 4', '"2" 2 "b" 3', header='"user" "item" "rating"'),
         "line 2: .* a first field that numbers the rows needs a name"),
    "pandas 11413": ("x.csv.zip", b"PK\3\4", r"x\.csv\.zip: this is an archive; unpack it"),
    "csv2sqlite 13": ("x.csv.bz2", b"BZh", r"x\.csv\.bz2: this is an archive; unpack it"),
    "a table that is compressed twice":
        ("x.csv.gz", gzip.compress(TABLE.encode()), r"x\.csv\.gz: the file is compressed twice; decompress it once"),
    "rtb 1, machine_learning_examples 92":
        ("x.csv", "\n<!DOCTYPE html>\n<html>404</html>\n", "this is a page of HTML, not a table; download the file"),
    "benedekrozemberczki datasets 10": ("x.csv", POINTER, "a pointer of Git LFS, not the table; fetch it with git"),
    "Mutual_Fund_Data 1": ("x.parquet", POINTER, "this is a pointer of Git LFS, not the table"),
    "mirdata 272, Last.fm 1K has no header and no numbers in its first line":
        ("x.tsv", "u1\t2009-05-04T23:08:57Z\tf1\tDeep\t\tYes\nu2\t2009-05-05T23:08:57Z\tf1\tDeep\t\tNo\n",
         "the first line is no header, and the table has 5 columns"),
    "pandas header=None":
        ("x.csv", "0,1,2\n5,7,4\n5,8,3\n6,7,1\n", 'line 1: "0, 1, 2" may be the numbers of columns without names'),
    "mergic 38, pyshark 695":
        ("x.jsonl", '{"user": 1, "item": "a", "rating": 4}\n{"user": 2, "item": "b", "rating": 4, "rating": 5}\n',
         r'line 2: not JSON \(the key "rating" is there twice\)'),
    "pandas 58930, a user that is an object":
        ("x.jsonl", lines_of({"user": {"id": 1}, "item": "a", "rating": 4}, {"user": {}, "item": "b", "rating": 1}),
         r'x\.jsonl: the user ids \(column "user"\) are lists or objects; write one row for each user'),
    "lightfm 575, a list of items in a row":
        ("x.jsonl", lines_of({"user": 1, "item": ["a", "b"], "rating": 4}, {"user": 2, "item": ["c"], "rating": 3}),
         r'the item ids \(column "item"\) are lists or objects; write one row for each item'),
    "Surprise 117": ("x.tsv", "1\t7\t4\t1\n2\t8\t3\t1\n", 'holds "1" where a timestamp should be.* columns.user=1'),
    "implicit 738":
        ("x.csv", table("1,a,4", header="_id,lead,order_datetime"), "no column for the user; .* Known: _id, lead"),
}

IDS = {
    "pandas 34085": ([" x", "x ", "x"], ["x", "x", "x"]),
    "pandas 39906": (["000000", "00", "0"], ["000000", "00", "0"]),
    "SDV 2780": (["02116", "2116"], ["02116", "2116"]),
    "workflow-use 174": (["NA", "null", "None", "nan"], ["NA", "null", "None", "nan"]),
    "recommenders 1686": (["AB", "ab"], ["AB", "ab"]),
}

NO_IDS = {
    "csv-serde 15, gluten 2881": ("\\N", "is \\N, which means that there is none"),
    "readxl 669": ("#N/A", "is #N/A, which means that there is none"),
    "readxl 669, another error": ("#REF!", "is #REF!, which means that there is none"),
}

NO_RATINGS = {
    "Research 18": "4.1 out of 5 stars",
    "LifeOS 1421": "9/10",
    "roo 269": "#N/A",
    "stars as letters": "★★★",
    "thumbs": "True",
    "a fraction as a letter": "4½",
}

TIMES = {
    "date_time_parser 11, a limitation": (["44735", "44736"], [1655942400, 1656028800]),
    "pandas 50887": (["2014-05-13T10:00:00+02:00", "2014-05-13T10:00:00-05:00"], [1399968000, 1399993200]),
    "ecoscope 315": (["2023-01-30 11:26:13.5-08:00", "2023-09-27T06:16:46.25-07:00"], [1675106773.5, 1695820606.25]),
    "mindsdb_native 121": (["1969-12-31 23:59:59", "1968-12-31 23:59:59"], [-1, -31536001]),
    "globalbioticinteractions 287, ALEAPP 1158": (["-863715600000", "1400000000000"], [-863715600, 1400000000]),
    "xlsx2json 20": (["2018/7/9 00:15", "2018/7/9 00:16"], [1531095300, 1531095360]),
    "RecBole 1520": (["1387670400.0", "1387670401.0"], [1387670400, 1387670401]),
}

NO_TIMES = {
    "pandas 26304": ["12.01.2017 17:18", "15.04.2017 02:40"],
    "pandas 27454": ["05-01-2019 00:37", "15-01-2019 00:37"],
    "pandas 3341": ["01-13-2012", "13-01-2012"],
    "DesktopEditors 2053": ["23/06/2025", "10/06/2025"],
    "pandas 55244": ["01-Jun-2022 00:00:00", "02-Jun-2022 00:00:00"],
    "pandas 22168": ["2014-05-13  10:00:00", "2014-05-13 10:00:00"],
    "pandas 23447": ["18:53.8", "37:04.0"],
    "Goodreads at UCSD": ["Tue May 13 10:00:00 -0700 2014", "Wed May 14 10:00:00 -0700 2014"],
    "MySQL's date of 0": ["0000-00-00 00:00:00", "2014-05-13 00:00:00"],
    "pandas 50359": ["now", "2014-05-13"],
    "pandas 50359, the same day": ["today", "2014-05-13"],
}
# fmt: on


@pytest.mark.parametrize("case", READ)
def test_a_table_is_read(write, case):
    name, content, rows, *options = READ[case]
    assert read(write(name, content), **(options[0] if options else {})) == rows


@pytest.mark.parametrize("case", FOLDERS)
def test_a_folder_is_read(write, tmp_path, case):
    files, rows = FOLDERS[case]
    for name, content in files.items():
        write(name, content)
    assert read(tmp_path / "x") == rows


@pytest.mark.parametrize("case", REFUSED)
def test_a_table_is_refused(write, case):
    name, content, message = REFUSED[case]
    with pytest.raises(InputError, match=message):
        read_domain(write(name, content))


@pytest.mark.parametrize("case", IDS)
def test_ids_are_read(write, case):
    given, ids = IDS[case]
    path = write("x.csv", table(*(f'"{text}",a{row},{row}' for row, text in enumerate(given)), "other,a,1"))
    assert read_domain(path).ratings["user"].tolist() == [*ids, "other"]


@pytest.mark.parametrize("case", NO_IDS)
def test_ids_are_refused(write, case):
    text, problem = NO_IDS[case]
    with pytest.raises(InputError, match=rf'line 3: the user id \(column "user"\) {re.escape(problem)}'):
        read_domain(write("x.csv", table("1,a,4", f"{text},b,4", "2,b,3")))


@pytest.mark.parametrize("case", NO_RATINGS)
def test_ratings_are_refused(write, case):
    text = NO_RATINGS[case]
    with pytest.raises(InputError, match=rf'line 3: the rating .* must be a finite number but is "{re.escape(text)}"'):
        read_domain(write("x.csv", table("1,a,4", f"1,b,{text}", "2,b,3")))


@pytest.mark.parametrize("case", TIMES)
def test_times_are_read(write, case):
    times, seconds = TIMES[case]
    rows = (f'{row},a,{1 + row},"{time}"' for row, time in enumerate(times))
    path = write("x.csv", table(*rows, header="user,item,rating,date"))
    assert read_domain(path).ratings["timestamp"].tolist() == seconds


@pytest.mark.parametrize("case", NO_TIMES)
def test_times_are_refused(write, case):
    rows = (f'{row},a,{1 + row},"{time}"' for row, time in enumerate(NO_TIMES[case]))
    with pytest.raises(InputError, match=rf'line 2: the timestamp .* is "{re.escape(NO_TIMES[case][0])}"'):
        read_domain(write("x.csv", table(*rows, header="user,item,rating,date")))


def test_a_wrong_row_of_the_netflix_prize_is_named_in_its_file(write, tmp_path):
    write("x/mv_0000001.txt", "1:\n7,3,2005-09-06\n8,5,2005-05-13\n")
    write("x/mv_0000002.txt", "2:\n7,x,2005-09-06\n")
    with pytest.raises(InputError, match=r'mv_0000002\.txt, line 2: the rating .* is "x"'):
        read_domain(tmp_path / "x")


def test_items_are_found_by_the_column_of_the_ratings(write, tmp_path):
    for name, content in FOLDERS["goodbooks-10k README, books with an ISBN beside the id of the ratings"][0].items():
        write(name, content)
    assert read_domain(tmp_path / "x").items["item"].tolist() == ["258"]


def test_lists_of_a_table_in_memory_are_no_ids():
    """After lightfm 575."""
    baskets = pd.DataFrame({"user": ["u", "v"], "item": [["a", "b"], ["c"]], "rating": [1, 2]})
    with pytest.raises(InputError, match=r"the DataFrame: the item ids .* are lists or objects"):
        read_domain(baskets)


def test_a_part_without_any_rating_raises_no_foreign_warning(write, tmp_path, recwarn):
    """After dask 5759, where such a part has a column of another type."""
    for name, ratings in (("part-0", [1.0, 2.0]), ("part-1", [None, None])):
        part = pd.DataFrame({"user": [f"{name}-1", f"{name}-2"], "item": ["a", "b"], "rating": ratings})
        write(f"x/{name}.parquet", b"")
        part.to_parquet(tmp_path / "x" / f"{name}.parquet")
    assert read(tmp_path / "x") == ["part-0-1 a 1 1", "part-0-2 b 2 1", "part-1-1 a nan 1", "part-1-2 b nan 1"]
    assert not recwarn.list


@pytest.mark.parametrize("text", ["nan", "None", "NULL", "<NA>"])
def test_a_text_that_may_stand_for_a_missing_id_is_named(write, caplog, text):
    """After pandas 25353 and 44156, where a missing value became a text."""
    with caplog.at_level(logging.WARNING):
        assert len(read(write("x.csv", table(f"{text},a,4", f"{text},b,2", "1,a,5")))) == 3
    assert f'2 rows have the user id "{text}", which may stand for a missing one' in caplog.text


@pytest.mark.parametrize("address", ["https://example.org/ratings.csv", "s3://bucket/ratings.csv", "file:///x.csv"])
def test_an_address_is_no_path(address):
    with pytest.raises(InputError, match=f"{address}: this is an address, not a path; download the file"):
        read_domain(address)


def test_a_folder_with_an_archive_alone_names_the_cure(write, tmp_path):
    write("x/ml-latest-small.zip", b"PK\3\4")
    with pytest.raises(InputError, match=r"found ml-latest-small\.zip; unpack the archive"):
        read_domain(tmp_path / "x")


def test_a_link_to_a_table_that_is_gone_is_no_other_table(write, tmp_path):
    """After git-annex and DVC, whose folders hold links to files that may not be there."""
    write("x/other.csv", TABLE)
    (tmp_path / "x" / "ratings.csv").symlink_to(tmp_path / "gone.csv")
    with pytest.raises(InputError, match=r"ratings\.csv: cannot be read \(No such file or directory\)"):
        read_domain(tmp_path / "x")


def test_a_part_that_is_there_twice_is_named(write, tmp_path, caplog):
    for name in ("part-0.csv", "part-0 (1).csv", "part-1.csv", "part-2.csv"):
        rows = ("1,a", "2,b") if name.startswith("part-0") else ()
        write(f"x/{name}", table(*rows, header="user,item"))
    write("y/ratings.csv/year=1/part-0.csv", TABLE)
    write("y/ratings.csv/year=2/part-0.csv", TABLE)
    with caplog.at_level(logging.WARNING):
        assert read(tmp_path / "x") == ["1 a 2", "2 b 2"]
        assert read(tmp_path / "y") == ["1 a 4", "1 b 2", "2 a 5"]
    copies = [record.getMessage() for record in caplog.records if "copy" in record.getMessage()]
    assert copies == [
        f"{tmp_path / 'x'}: part-0 (1).csv and part-0.csv hold the same rows; if one is a copy, remove it"
    ]


def test_a_second_column_of_the_same_role_is_named(write, caplog):
    with caplog.at_level(logging.INFO):
        assert read(write("x.csv", table("1,a,4,2", "2,b,3,1", header="user,item,Rating,rating"))) == ["1 a 4", "2 b 3"]
    assert "column Rating is read; ignored: rating" in caplog.text


def test_a_suffix_in_capitals_is_no_part_of_the_name(write):
    assert read_domain(write("FILMS.CSV", TABLE)).name == "FILMS"


def test_a_part_with_another_column_is_refused(write, tmp_path):
    """After arrow 8741 and 35569."""
    write("x/part-0.parquet", parquet(user=["a"], item=["i"], rating=[1.0]))
    write("x/part-1.parquet", parquet(user=["b"], item=["i"], rating=[1.0], more=["x"]))
    with pytest.raises(InputError, match=r"part-1\.parquet: has the columns user, item, rating, more, but part-0"):
        read_domain(tmp_path / "x")


def test_every_case_is_on_the_page():
    page = PAGE.read_text(encoding="utf-8").replace("pull request ", "").replace("#", "")
    cases = (READ, FOLDERS, REFUSED, IDS, NO_IDS, NO_RATINGS, TIMES, NO_TIMES)
    assert [case for kind in cases for case in kind if case.partition(",")[0] not in page] == []
