"""Texts as people have them: separators, headers, quotation marks and decimal commas."""

import logging

import pytest

from metarec.errors import InputError
from metarec.ratings import read_domain

ROWS = [(f"{user}", f"{item}", (user + item) % 5 + 1, 1_400_000_000 + user) for user in range(1, 6) for item in (7, 8)]
NAMES = ("user", "item", "rating", "time")


def text_of(separator, *, header=(), columns=4, ends="\n"):
    rows = [header, *ROWS] if header else ROWS
    return "".join(separator.join(map(str, row[:columns])) + ends for row in rows)


def assert_read(domain, columns=4):
    ratings = domain.ratings
    assert [tuple(row)[:columns] for row in ratings.itertuples(index=False)] == [row[:columns] for row in ROWS]
    assert domain.has_timestamps == (columns == 4)


@pytest.mark.parametrize("separator", ["::", ",", "\t", ";", "|", " ", "  ", "\t\t", " \t"])
@pytest.mark.parametrize("columns", [3, 4])
@pytest.mark.parametrize("ends", ["\n", "\r\n"])
def test_numbers_without_a_header_are_columns_by_position(write, caplog, separator, columns, ends):
    text = text_of(separator, columns=columns, ends=ends)
    assert_read(read_domain(write("sample_ratings.txt", text)), columns)
    assert "the first line is no header; the columns are taken by position: user 1, item 2, rating 3" in caplog.text
    assert ("timestamp 4" in caplog.text) == (columns == 4)


@pytest.mark.parametrize("separator", ["::", ",", "\t", ";", "|", " ", "  "])
@pytest.mark.parametrize("name", ["a.csv", "a.dat", "ratings.dat", "a.inter", "a.tsv", "u.data"])
def test_a_header_is_one_with_every_separator(write, caplog, separator, name):
    assert_read(read_domain(write(name, text_of(separator, header=NAMES))))
    assert "no header" not in caplog.text


def test_blanks_beside_a_tab_separate_too(write):
    text = "".join(f"{user} {item} {rating}\t{time}\n" for user, item, rating, time in ROWS)
    assert_read(read_domain(write("ratingsDate.txt", "  " + text.replace("\n", " \n"))))


def test_amazons_editions_have_their_own_orders(write, caplog):
    rows = [(f"B{n:09}", f"A{n:013}XY", n % 5 + 1.0, 1_400_000_000 + n) for n in range(20)]
    write("a.csv", "".join(f"{item},{user},{rating},{time}\n" for item, user, rating, time in rows))
    path = write("b.csv", "".join(f"{user},{item},{rating},{time}\n" for item, user, rating, time in rows))
    assert read_domain(path).fingerprint() == read_domain(path.with_name("a.csv")).fingerprint()
    assert "by position: item 1, user 2, rating 3, timestamp 4" in caplog.text


def test_places_can_be_given(write, caplog):
    text = "".join(f"{item};{time};x;{rating};{user}\n" for user, item, rating, time in ROWS)
    path = write("a.csv", text)
    places = {"user": "5", "item": "1", "rating": "4", "timestamp": "2"}
    assert_read(read_domain(path, columns=places))
    del places["timestamp"]
    assert_read(read_domain(path, columns=places), columns=3)
    swapped = write("b.csv", "".join(f"{item},{user},{rating}\n" for user, item, rating, _ in ROWS))
    assert_read(read_domain(swapped, columns={"item": "1"}), columns=3)
    assert "by position: item 1, user 2, rating 3" in caplog.text


def test_a_name_that_is_a_value_of_the_first_row_does_not_cost_the_row(write):
    text = "".join(f"A{user}X,{item},{rating},{time}\n" for user, item, rating, time in ROWS)
    with pytest.raises(InputError, match=r'no column "A1X", which columns\.user asks for; Known: 1, 2, 3, 4'):
        read_domain(write("a.csv", text), columns={"user": "A1X"})
    named = write("b.csv", text_of(",", header=("who", "what", "2014", "when"), columns=3))
    domain = read_domain(named, columns={"user": "who", "item": "what", "rating": "2014"})
    assert_read(domain, columns=3)


@pytest.mark.parametrize(
    ("rows", "problem"),
    [
        (["1,Game 9,play,3,0", "2,Game 8,play,5,0"], "has 5 columns"),
        (["1,2", "2,2"], "has 2 columns"),
        (["1,2,good,1400000000", "2,2,bad,1400000000"], 'holds "good" where a rating should be'),
        (["1,2,1400000000", "2,2,1400000001"], 'holds "1400000000" where a rating should be'),
        (["1,2,3,yes", "2,2,4,no"], 'holds "yes" where a timestamp should be'),
        (["1,2,3,4", "2,2,4,5"], 'holds "4" where a timestamp should be'),
        ([",".join("9" * 50), ",".join("8" * 50)], "has 50 columns"),
    ],
)
def test_what_cannot_be_told_by_position_is_refused(write, problem, rows):
    with pytest.raises(InputError, match="the first line is no header, and the table ") as caught:
        read_domain(write("a.csv", "\n".join(rows) + "\n"))
    assert problem in str(caught.value)
    assert "as in columns.user=1, columns.item=2, columns.rating=3" in str(caught.value)


def test_lines_are_counted_without_a_header(write):
    with pytest.raises(InputError, match=r"a\.txt, line 11: the rating"):
        read_domain(write("a.txt", text_of("::") + "9::9::bad::1400000000\n"))


def test_the_line_in_which_excel_notes_its_separator(write):
    text = text_of(";", header=NAMES)
    assert_read(read_domain(write("a.csv", "sep=;\n" + text)))
    assert_read(read_domain(write("b.csv", "\ufeffsep=;\r\n" + text.replace("\n", "\r\n"))))
    assert_read(read_domain(write("c.csv", '"sep=\t"\n' + text.replace(";", "\t"))))
    with pytest.raises(InputError, match=r"d\.csv, line 13: the rating"):
        read_domain(write("d.csv", "sep=;\n" + text + "9;9;bad;1400000000\n"))


def test_decimal_commas_where_another_separator_is(write, caplog):
    text = "user;item;rating\na;x;4,5\na;y;3\nb;x;0,5\nb;y;\n"
    with caplog.at_level(logging.INFO, logger="metarec"):
        ratings = read_domain(write("a.csv", text)).ratings["rating"]
    assert ratings.tolist()[:3] == [4.5, 3.0, 0.5]
    assert 'a.csv: column "rating" has decimal commas' in caplog.text
    for wrong in ("1.000,5", "1,000,5", "1.5"):
        with pytest.raises(InputError, match=r'line 2: the rating .* but is "4,5"'):
            read_domain(write("b.csv", text.replace("0,5", wrong)))


@pytest.mark.parametrize("title", [r"\"A\" film", r"A \"b;c\" d", r"ends \"so\"", r"\"", r"C:\new \"x\" y"])
def test_escaped_quotation_marks(write, title):
    write("x/items.csv", f'"item";"title";"n"\n"1";"{title}";"7"\n"2";"Pl\\"ain";"8"\n')
    items = read_domain(write("x/ratings.csv", "user,item,rating\na,1,1\nb,2,5\n")).items
    assert items["title"].tolist() == [title.replace('\\"', '"'), 'Pl"ain']
    assert items["n"].tolist() == [7, 8]


@pytest.mark.parametrize("title", ["C:\\", 'a "b" c', 'json {"a": "\\"}', 'x\\"y'])
def test_a_backslash_before_the_end_of_a_field_is_a_letter(write, title):
    doubled = title.replace('"', '""')
    write("x/items.csv", f'"item","title","n"\n"1","{doubled}","7"\n"2","b","8"\n')
    items = read_domain(write("x/ratings.csv", "user,item,rating\na,1,1\nb,2,5\n")).items
    assert items["title"].tolist() == [title, "b"]


@pytest.mark.parametrize("mark", ["#", "%", "# "])
@pytest.mark.parametrize("separator", [",", "\t", "::", " "])
@pytest.mark.parametrize("header", [(), NAMES])
def test_comments_before_a_table_are_passed_over(write, caplog, mark, separator, header):
    text = text_of(separator, header=header)
    assert_read(read_domain(write("a.csv", f"{mark}sym positive\n{mark}40, 7: 2\n{text}")))
    assert "a.csv: 2 lines before the table begin with # or % and are passed over" in caplog.text


@pytest.mark.parametrize("mark", ["#", "# ", "% "])
@pytest.mark.parametrize("separator", [",", "\t", " "])
def test_the_last_comment_may_be_the_header(write, mark, separator):
    assert_read(read_domain(write("a.csv", mark + text_of(separator, header=NAMES))))
    assert_read(read_domain(write("b.csv", f"# made today\n{mark}" + text_of(separator, header=NAMES))))


def test_lines_after_comments_have_their_number_in_the_file(write):
    path = write("a.csv", "# one\n# two\nuser,item,rating\n1,2,3\n1,3,much\n")
    with pytest.raises(InputError, match=r"a.csv, line 5: the rating .* is \"much\""):
        read_domain(path)


def test_ids_that_begin_with_a_mark_are_no_comments(write):
    rows = "".join(f"#{user},{item},{rating}\n" for user, item, rating, _ in ROWS)
    assert read_domain(write("a.csv", "user,item,rating\n" + rows)).num_users == 5
    assert read_domain(write("b.csv", rows)).num_users == 5


@pytest.mark.parametrize("ends", ["\n", "\r\n"])
def test_files_of_the_netflix_prize(write, ends):
    lines = ["1:", "3,5,2005-09-04", "4,3,2005-09-05", "17770:", "3,1,2005-09-06"]
    ratings = read_domain(write("combined_data_1.txt", ends.join([*lines, ""]))).ratings
    assert ratings[["user", "item", "rating"]].to_numpy().tolist() == [["3", "1", 5], ["4", "1", 3], ["3", "17770", 1]]
    assert ratings["timestamp"].tolist() == [1125792000, 1125878400, 1125964800]
    with pytest.raises(InputError, match=r"line 6: the rating .* is \"x\""):
        read_domain(write("mv_0000001.txt", ends.join([*lines, "4,x,2005-09-06", ""])))


@pytest.mark.parametrize("numbers", [("1,000", "54,908", "2,000"), ("1,000", "908", "2,000")])
def test_commas_that_may_be_between_thousands_are_refused(write, numbers):
    rows = "".join(f"{user};7;{number}\n" for user, number in enumerate(numbers))
    with pytest.raises(
        InputError, match=r'"plays" may have commas before decimals or between thousands, as in "1,000"'
    ):
        read_domain(write("a.csv", "user;item;plays\n" + rows))
    weights = read_domain(write("b.csv", "user;item;plays\n" + rows + "9;7;0,125\n")).ratings["weight"]
    assert weights.iloc[0] == 1
    with pytest.raises(InputError, match="and nothing for one between thousands"):
        read_domain(write("c.csv", 'user,item,plays\n1,7,"1,000"\n2,7,3\n'))


@pytest.mark.parametrize("header", ["", "user\titem\trating\n"])
def test_quotation_marks_that_hide_rows_are_refused(write, header):
    rows = '2\t"7\t4\n2\t7\t5\n3\t8"\t1\n'
    with pytest.raises(
        InputError, match=rf"line {2 + bool(header)}: the item id .* holds a line break, as where a quot"
    ):
        read_domain(write("a.tsv", f"{header}1\t7\t3\n{rows}5\t7\t1\n"))
