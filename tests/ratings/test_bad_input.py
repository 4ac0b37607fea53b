"""Whatever is wrong with a file, the user reads one line that names the place, the rule and the cure."""

import gzip

import pandas as pd
import pytest

from metarec.errors import InputError
from metarec.ratings import read_domain, read_domains

GOOD = "user,item,rating,timestamp\na,x,4,10\nb,x,2,11\nb,y,3,12\n"


def refused(path, **options):
    with pytest.raises(InputError) as caught:
        read_domain(path, **options)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 600
    with pytest.raises(InputError):
        read_domains(path, **options)
    return message


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        ("", ["the file is empty"]),
        ("\n\n", ["the file is empty"]),
        ("user,item,rating\n", ["no rows"]),
        ("user,item,rating\n\n\n", ["no rows"]),
        ("user:item:rating\na:x:4\n", ["line 1", "one column only", "separated by a comma, tab, semicolon or |"]),
        ("usr,item,rating\na,x,4\n", ["no column for the user", 'did you mean "usr"?', "columns.user=NAME"]),
        ("user,item,ratng,timestamp\na,x,4,1\n", ["no column for the rating", 'did you mean "ratng"?']),
        ("user,user,item,rating\na,a,x,4\n", ['two columns are named "user"']),
        (GOOD.replace("b,x,2", "b,x,two"), ["line 3", 'column "rating"', "must be a finite number", '"two"']),
        ("user,item,rating\na,x,\nb,x,\n", ["line 2", 'column "rating"', "is missing"]),
        (GOOD.replace("b,x,2,11", "b,x"), ["line 3", "the timestamp"]),
        (GOOD.replace("b,x,2", "b,x,NaN"), ["line 3", "must be a finite number", '"NaN"']),
        (GOOD.replace("b,x,2", "b,x,-inf"), ["line 3", "must be a finite number", '"-inf"']),
        (GOOD.replace("b,x,2", 'b,x,"2,5"'), ["line 3", '"2,5"', "write a point for the comma"]),
        (GOOD.replace("b,x,2", ",x,2"), ["line 3", "the user id", "is missing"]),
        (GOOD.replace("b,x,2", "b, ,2"), ["line 3", "the item id", "is missing"]),
        (GOOD.replace("11", "yesterday"), ["line 3", "the timestamp", '"yesterday"']),
        (GOOD.replace("11", ""), ["line 3", "the timestamp"]),
        (GOOD.replace("b,x,2", "b,x,2,2"), ["line 3", "expected 4 fields but the line has 5"]),
        ("user,item,rating\na,x,4,9\nb,y,3,9\n", ["line 2", "more fields than the 3 columns"]),
        (GOOD.replace("b,x", '"b,x'), ["line 3", "quotation mark"]),
        ("user,item,rating\na,x,4\na,y,5\n", ['only one user ("a")']),
        ("user,item,rating\na,x,4\nb,y,4\n", ["all ratings are 4", "give the scale"]),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", ["is not text"]),
        (b"PK\x03\x04rest", ["a zip or Excel file under another name"]),
        (gzip.compress(GOOD.encode(), mtime=0), ["a gzip file under another name", "name it .gz"]),
        (GOOD.encode("utf-16-le"), ["is not text", "UTF-8"]),
    ],
)
def test_a_bad_csv(write, content, parts):
    path = write("bad.csv", content)
    message = refused(path)
    assert all(part in message for part in [str(path), *parts]), message


def test_line_numbers_are_those_of_an_editor(write):
    text = 'user,item,rating,review\na,x,4,"two\nlines"\n\nb,y,five,""\n'
    assert "bad.csv, line 5: the rating" in refused(write("bad.csv", text))
    assert "bad.csv, line 5: the rating" in refused(write("bad.csv", text.replace("\n", "\r\n")))
    assert "u.data, line 2: the rating" in refused(write("u.data", "1\t1\t4\t9\n2\t1\tfive\t8\n"))
    many = "user,item,rating,domain\na,x,4,1\nb,x,2,1\na,y,3,2\nb,y,no,2\n"
    assert "many.csv, line 5: the rating" in refused(str(write("many.csv", many)) + "#2")


def test_a_rating_out_of_the_given_scale(write):
    path = write("bad.csv", GOOD)
    message = refused(path, scale=(1, 3))
    assert f'{path}, line 2: the rating (column "rating") must lie in the scale 1..3 but is 4' in message
    assert "give the scale that it is on" in message
    assert "two numbers" in refused(path, scale="1-3")


def test_all_ratings_equal_is_fine_when_the_scale_is_given(write):
    path = write("a.csv", "user,item,rating\na,x,4\nb,y,4\n")
    assert len(read_domain(path, scale="1..5").ratings) == 2


def test_columns_that_are_not_there(write):
    path = write("bad.csv", GOOD)
    assert 'no column "usr", which columns.user asks for; did you mean "user"?' in refused(
        path, columns={"user": "usr"}
    )
    assert 'unknown role "usr"; did you mean "user"?' in refused(path, columns={"usr": "user"})
    assert "cannot be both" in refused(path, columns={"user": "item", "item": "item"})


def test_missing_files_and_unknown_kinds(write, tmp_path):
    assert "no such file or folder" in refused(tmp_path / "none.csv")
    assert "no such file or folder" in refused(tmp_path / "none#8")
    assert "no such file or folder" in refused("a\0b.csv")
    assert "no such file or folder" in refused("~nobody-here/x.csv")
    assert "cannot be read" in refused("x" * 5000)
    assert 'unknown kind of file ".xls"; known are .csv' in refused(write("a.xls", "x"))
    assert "unknown kind of file" in refused(write("ratings", GOOD))


def test_damaged_archives(write, tmp_path):
    whole = gzip.compress((GOOD * 100).encode(), mtime=0)
    for name, content, part in [
        ("cut.csv.gz", whole[:-20], "ends too early"),
        ("cut10.csv.gz", whole[:12], "ends too early"),
        ("plain.csv.gz", GOOD.encode(), "not compressed with gzip"),
        ("flipped.csv.gz", whole[:30] + b"\xff\xff\xff" + whole[33:], "damaged"),
        ("empty.csv.gz", b"", "the file is empty"),
    ]:
        path = tmp_path / name
        path.write_bytes(content)
        message = refused(path)
        assert str(path) in message
        assert part in message


def test_damaged_parquet(write, tmp_path):
    whole = tmp_path / "whole.parquet"
    pd.DataFrame({"user": ["a", "b"], "item": ["x", "y"], "rating": [1.0, 2.0]}).to_parquet(whole)
    content = whole.read_bytes()
    for name, damaged in [
        ("cut", content[:-30]),
        ("text", GOOD.encode()),
        ("flipped", content[:8] + b"\xff" * 40 + content[48:]),
    ]:
        assert "parquet" in refused(write(f"{name}.parquet", damaged))
    assert "the file is empty" in refused(write("empty.parquet", b""))


def test_parquet_of_the_wrong_types(tmp_path):
    good = {"user": ["a", "b"], "item": ["x", "y"], "rating": [1.0, 2.0]}
    for column, values, part in [
        ("rating", [[1.0, 2.0], [2.0]], "a finite number"),
        ("rating", [True, False], "a finite number"),
        ("rating", [None, None], "row 1: the rating"),
        ("rating", pd.to_datetime(["2001-01-01", "2001-01-02"]), "a finite number"),
    ]:
        path = tmp_path / "a.parquet"
        pd.DataFrame({**good, column: values}).to_parquet(path)
        assert part in refused(path)


def test_folders(write, tmp_path):
    (tmp_path / "empty").mkdir()
    message = refused(tmp_path / "empty")
    assert "no file of ratings in this folder; looked for ratings.*" in message
    assert "found no files" in message
    assert "found notes.md" in refused(write("other/notes.md", "x").parent)
    write("two/a.inter", "x")
    message = refused(write("two/b.inter", "x").parent)
    assert "2 files could hold the ratings: a.inter, b.inter; give the path of one" in message
    write("three/ratings.csv", GOOD)
    assert "2 files could hold" in refused(write("three/ratings.tsv", GOOD).parent)


def test_tables_of_features_that_cannot_be_read_are_left_out(write, caplog):
    for folder, content, problem in [
        ("a", "name,colour\nx,red\n", "items.csv: no column for the item; name it item"),
        ("b", "item,colour\nx,red\n,blue\n", "items.csv, line 3: the item id"),
        ("c", "item,colour,item\nx,red,x\n", 'two columns are named "item"'),
        ("d", 'item,title\nx,"open\n', "items.csv, line 2: a quotation mark is opened here"),
        ("e", "", "the file is empty"),
    ]:
        write(f"{folder}/items.csv", content)
        write(f"{folder}/users.csv", "user,age\na,7\nb,8\n")
        domain = read_domain(write(f"{folder}/ratings.csv", GOOD))
        assert domain.items is None
        assert domain.users["age"].tolist() == [7, 8]
        assert problem in caplog.text
        assert "; the features of items are left out" in caplog.text
        caplog.clear()
    write("f/users.csv", "name\nada\n")
    assert read_domain(write("f/ratings.csv", GOOD)).users is None
    assert "; the features of users are left out" in caplog.text
    write("g/movies.csv", "movieId,title\nx,X\n")
    write("g/books.csv", "bookId,title\nx,X\n")
    assert read_domain(write("g/ratings.csv", GOOD)).items is None
    assert "2 files could describe the same ids: books.csv, movies.csv; none of them is read; keep one" in caplog.text


@pytest.mark.parametrize("method", ["pathlib.Path.iterdir", "os.open", "pathlib.Path.is_dir"])
def test_no_permission(write, monkeypatch, method):
    path = write("x/ratings.csv", GOOD)

    def denied(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(method, denied)
    assert "Permission denied" in refused(path.parent)


def test_messages_stay_printable(write):
    message = refused(write("bad.csv", "us\x7fer,\u2028item,rating" + "g" * 500 + "\na,b,c\n"))
    assert message.isprintable()
