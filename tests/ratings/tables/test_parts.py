"""Folders whose files are one table, and files that are none."""

import io

import pandas as pd
import pytest

from metarec.errors import InputError
from metarec.ratings import read_domain

TABLE = pd.DataFrame(
    {
        "user": ["a", "a", "b", "b", "c", "c"],
        "item": ["x", "y", "x", "z", "y", "z"],
        "rating": [1.0, 2.0, 3.0, 4.0, 5.0, 1.0],
    }
)


def parquet_of(frame):
    buffer = io.BytesIO()
    frame.to_parquet(buffer)
    return buffer.getvalue()


def csv_of(frame):
    return frame.to_csv(index=False)


KINDS = {
    "parquet": (parquet_of, "part-{}-0f0f.c000.snappy.parquet"),
    "csv": (csv_of, "part-{}-abc-c000.csv"),
    "csv.gz": (csv_of, "part-{}.csv.gz"),
    "json": (lambda frame: frame.to_json(orient="records", lines=True), "part-{}.json"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_parts_of_a_folder_are_one_table(write, tmp_path, kind):
    content, name = KINDS[kind]
    for part in range(3):
        write(f"x/ratings.{kind.removesuffix('.gz')}/{name.format(part)}", content(TABLE[2 * part : 2 * part + 2]))
    suffix = kind.removesuffix(".gz")
    write(f"x/ratings.{suffix}/_SUCCESS", "")
    write(f"x/ratings.{suffix}/.{name.format(0)}.crc", b"\0\1")
    write(f"x/ratings.{suffix}/{name.format(9).removesuffix('.gz')}", b"")
    write("x/items.csv", "item,colour\nx,red\n")
    for path in (tmp_path / "x", tmp_path / "x" / f"ratings.{suffix}"):
        domain = read_domain(path)
        pd.testing.assert_frame_equal(domain.ratings, TABLE)
        assert domain.name == "x"
        assert domain.items["colour"].tolist() == ["red"]


def test_a_folder_may_have_any_name_if_it_holds_parts_alone(write, tmp_path):
    for part in range(3):
        text = TABLE[2 * part : 2 * part + 2].to_csv(index=False, header=False)
        write(f"out/part-0000{part}", text.replace("a,", "1,").replace("b,", "2,").replace("c,", "3,"))
    domain = read_domain(tmp_path / "out")
    assert domain.name == "out"
    assert domain.ratings["rating"].tolist() == TABLE["rating"].tolist()


def test_folders_that_are_named_by_a_value_are_columns(write, tmp_path):
    for rating, part in TABLE.groupby("rating"):
        path = f"x/ratings.parquet/year=__HIVE_DEFAULT_PARTITION__/rating={rating}/{rating}-0.parquet"
        write(path, parquet_of(part.drop(columns="rating")))
    ratings = read_domain(tmp_path / "x").ratings
    assert sorted(ratings.itertuples(index=False)) == sorted(TABLE.itertuples(index=False))


def test_a_wrong_row_is_named_in_its_part(write, tmp_path):
    write("x.csv/part-0.csv", csv_of(TABLE))
    write("x.csv/part-1.csv", csv_of(TABLE.assign(rating=["1", "2", "bad", "4", "5", "6"])))
    with pytest.raises(
        InputError, match=r'part-1\.csv, line 4: the rating \(column "rating"\) must be a finite number'
    ):
        read_domain(tmp_path / "x.csv")
    write("x.csv/part-1.csv", csv_of(TABLE.rename(columns={"item": "thing"})))
    with pytest.raises(InputError, match=r"part-1\.csv: has the columns user, thing, rating, but part-0\.csv has user"):
        read_domain(tmp_path / "x.csv")
    write("x.csv/part-0.csv", "user,item,rating\n")
    (tmp_path / "x.csv" / "part-1.csv").unlink()
    with pytest.raises(InputError, match="the parts of the table have no rows"):
        read_domain(tmp_path / "x.csv")


def test_limits_hold_for_all_parts_together(write, tmp_path, monkeypatch):
    for part in range(3):
        write(f"x.csv/part-{part}.csv", csv_of(TABLE))
    monkeypatch.setenv("METAREC_MAX_TABLE_BYTES", str(8 * 3 * 15))
    with pytest.raises(InputError, match="the table of 18 rows of 3 columns"):
        read_domain(tmp_path / "x.csv")


def test_hidden_files_are_passed_over(write, tmp_path):
    write("x/._mine.inter", b"\0\5\x16\7Mac OS X")
    write("x/.ratings.csv", "x")
    write("x/mine.inter", "user_id:token\titem_id:token\trating:float\n1\t1\t3\n2\t1\t4\n")
    write("x/._mine.item", b"\0\5\x16\7Mac OS X")
    assert len(read_domain(tmp_path / "x").ratings) == 2


def test_the_only_table_of_a_folder_is_the_ratings(write, tmp_path):
    write("x/BX-Book-Ratings.csv", csv_of(TABLE))
    write("x/README.md", "text")
    assert read_domain(tmp_path / "x").name == "x"
    write("x/BX-Books.csv", "item\nx\n")
    with pytest.raises(
        InputError, match=r"no file of ratings in this folder; looked for .*, found BX-Book-Ratings.csv"
    ):
        read_domain(tmp_path / "x")


def test_folders_that_are_no_table_stay_folders(write, tmp_path):
    write("books.csv/ratings.csv", csv_of(TABLE))
    write("books.csv/notes.txt", "x")
    write("films.data/ratings.csv.gz", csv_of(TABLE))
    assert len(read_domain(tmp_path / "books.csv").ratings) == len(read_domain(tmp_path / "films.data").ratings) == 6
