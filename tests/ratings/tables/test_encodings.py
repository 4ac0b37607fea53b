"""Text that is not in UTF-8: a byte costs one line, and the encoding that is taken is named."""

import pytest

from metarec.errors import InputError
from metarec.ratings import read_domain

ROWS = "user,item,rating\n" + "".join(f"José-{n},{item},{n % 5 + 1}\n" for n in range(20) for item in "xy")


@pytest.mark.parametrize("stray", [b"Jos\xe9-9,z,3\n", b"\xff\xfe9,z,3\n", b"Jos\xc3,z,3\n"])
def test_a_stray_byte_costs_its_line_only(write, caplog, stray):
    path = write("a.csv", ROWS.encode() + stray)
    users = read_domain(path).ratings["user"].unique().tolist()
    assert users[:-1] == [f"José-{n}" for n in range(20)]
    assert "\ufffd" in users[-1]
    assert "a.csv, line 42: not UTF-8, as the rest of the file is; 1 of 42 lines have such bytes" in caplog.text


@pytest.mark.parametrize("encoding", ["cp1252", "latin-1"])
@pytest.mark.parametrize("ends", ["\n", "\r\n", "\r"])
def test_the_encoding_of_a_file_is_named(write, caplog, encoding, ends):
    text = ROWS.replace("é", "é\x81" if encoding == "latin-1" else "é“”…").replace("\n", ends)
    domain = read_domain(write("a.csv", text.encode(encoding)))
    assert domain.ratings["user"].iloc[0] == ("José\x81-0" if encoding == "latin-1" else "José“”…-0")
    assert f"a.csv, line 2: not UTF-8; the file is read as {encoding}; if its letters are wrong" in caplog.text


def test_other_encodings_are_named_though_they_are_not_seen(write, caplog):
    read_domain(write("a.csv", ROWS.replace("José", "用户").encode("gbk")))
    assert "not UTF-8; the file is read as cp1252" in caplog.text


@pytest.mark.parametrize("encoding", ["gbk", "cp1251", "utf-16", "shift-jis"])
def test_the_encoding_can_be_given(write, caplog, encoding):
    name = {"gbk": "用户", "shift-jis": "ユーザー"}.get(encoding, "Фёдор")
    write("x/items.csv", f"item,title\nx,{name}\n".encode(encoding))
    path = write("x/ratings.csv", ROWS.replace("José", name).encode(encoding))
    domain = read_domain(path, encoding=encoding)
    assert domain.ratings["user"].iloc[0] == f"{name}-0"
    assert domain.items["title"].tolist() == [name]
    assert caplog.text == ""


def test_a_wrong_encoding_is_one_line(write):
    path = write("a.csv", ROWS)
    for encoding, problem in [("utf-99", "unknown encoding utf-99; name one"), ("ascii", r"a\.csv: not in ascii \(")]:
        with pytest.raises(InputError, match=problem):
            read_domain(path, encoding=encoding)


def test_one_line_alone_is_no_stray_byte(write, caplog):
    text = "user,item,rating\na,x,1\nJosé,x,2\nJosé,y,3\n"
    assert read_domain(write("a.csv", text.encode("latin-1"))).ratings["user"].iloc[-1] == "José"
    assert read_domain(write("b.csv", text)).ratings["user"].iloc[-1] == "José"
    assert caplog.text.count("not UTF-8") == 1


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_a_byte_order_mark_names_the_encoding(write, caplog, encoding):
    caplog.set_level("INFO")
    text = ROWS if encoding in ("utf-16", "utf-32") else "\ufeff" + ROWS
    domain = read_domain(write("a.csv", text.encode(encoding)))
    assert domain.fingerprint() == read_domain(write("b.csv", ROWS.encode())).fingerprint()
    assert f"a.csv: read as {encoding[:6]}, by its byte order mark" in caplog.text


def test_a_mark_without_its_encoding_is_refused_or_passed_over(write):
    with pytest.raises(InputError, match="not in utf-16"):
        read_domain(write("a.csv", ROWS.encode("utf-16")[:-1]))
    # Letters of Windows-1252 that look like the mark.
    path = write("b.csv", b"\xff\xfeuser,item,rating\nJos\xe9,x,1\nAda,y,2\n")
    assert "José" in set(read_domain(path, columns={"user": "ÿþuser"}).ratings["user"])
