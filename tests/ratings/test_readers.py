import gzip
import io
import logging

import numpy as np
import pandas as pd
import pytest

from metarec.errors import InputError
from metarec.ratings import RatingScale, read_domain, read_domains

ROWS = [("1", "0002844", 4.5, 978300760), ("2", "7", 3.0, 978300761), ("2", "0002844", 0.5, 978300762)]
EXPECTED = pd.DataFrame(ROWS, columns=["user", "item", "rating", "timestamp"])


def lines(separator, header=True):
    rows = [["user", "item", "rating", "timestamp"]] if header else []
    return "\n".join(separator.join(map(str, row)) for row in [*rows, *ROWS]) + "\n"


def parquet_bytes(frame):
    buffer = io.BytesIO()
    frame.to_parquet(buffer)
    return buffer.getvalue()


FILES = {
    "comma": ("films.csv", lines(",")),
    "semicolons in a csv": ("films.csv", lines(";")),
    "tabs in a csv": ("films.csv", lines("\t")),
    "bars in a txt": ("films.txt", lines("|")),
    "tsv": ("films.tsv", lines("\t")),
    "commas in a tsv": ("films.tsv", lines(",")),
    "gzipped csv": ("films.csv.gz", lines(",")),
    "windows line ends": ("films.csv", lines(",").replace("\n", "\r\n")),
    "no last line end": ("films.csv", lines(",").rstrip()),
    "byte order mark": ("films.csv", "\ufeff" + lines(",")),
    "blank lines": ("films.csv", lines(",").replace("\n", "\n\n  \n")),
    "spaces behind separators": ("films.csv", lines(", ")),
    "quoted": ("films.csv", '"' + lines('","').rstrip().replace("\n", '"\n"') + '"\n'),
    "capitals": ("films.csv", "UserID,Movie_Id,Overall,unixReviewTime\n" + lines(",", header=False)),
    "another order": ("films.csv", EXPECTED[["timestamp", "rating", "user", "item"]].to_csv(index=False)),
    "parquet": ("films.parquet", parquet_bytes(EXPECTED)),
    "gzipped parquet": ("films.parquet.gz", parquet_bytes(EXPECTED)),
    "parquet with categories": ("films.parquet", parquet_bytes(EXPECTED.astype({"item": "category"}))),
    "u.data": ("u.data", lines("\t", header=False)),
    "ratings.dat": ("ratings.dat", lines("::", header=False)),
    "gzipped ratings.dat": ("ratings.dat.gz", lines("::", header=False)),
    "ratings.dat with tabs and a header": ("ratings.dat", lines("\t")),
    "atomic": (
        "films.inter",
        "user_id:token\titem_id:token\trating:float\ttimestamp:float\n" + lines("\t", header=False),
    ),
}


@pytest.mark.parametrize("kind", FILES)
def test_every_format_gives_the_same_domain(write, kind):
    domain = read_domain(write(*FILES[kind]))
    pd.testing.assert_frame_equal(domain.ratings, EXPECTED)
    assert domain.scale == RatingScale(0.5, 5)
    assert domain.items is None
    assert all(type(value) is str for key in ("user", "item") for value in domain.ratings[key])


def test_names_come_from_the_argument_the_file_or_the_folder(write):
    assert read_domain(write("good.films.csv.gz", lines(","))).name == "good.films"
    path = write("cinema/ratings.csv", lines(","))
    assert read_domain(path).name == read_domain(path.parent).name == "cinema"
    assert read_domain(path, "mine").name == "mine"


def test_integer_ids_in_parquet_have_no_decimals(write):
    frame = pd.DataFrame({"user": [1, 2, 2], "item": [7.0, 7.0, 8.0], "rating": [1, 2, 5]})
    domain = read_domain(write("a.parquet", parquet_bytes(frame)))
    assert domain.ratings["user"].tolist() == ["1", "2", "2"]
    assert domain.ratings["item"].tolist() == ["7", "7", "8"]


def test_what_was_an_index_in_pandas_is_a_column_of_parquet(write):
    indexed = EXPECTED.set_index(["user", "item"])
    pd.testing.assert_frame_equal(read_domain(write("a.parquet", parquet_bytes(indexed))).ratings, EXPECTED)


@pytest.mark.parametrize("index", [None, ["user", "item"]])
def test_a_frame_is_read_as_its_parquet_file(write, index):
    frame = EXPECTED.sample(frac=1, random_state=0) if index is None else EXPECTED.set_index(index)
    expected = read_domain(write("films.parquet", parquet_bytes(frame)))
    domain = read_domain(frame, "films")
    pd.testing.assert_frame_equal(domain.ratings, expected.ratings)
    assert (domain.name, domain.scale) == ("films", expected.scale)
    assert domain.fingerprint() == expected.fingerprint()


def test_a_missing_id_in_parquet_is_found_and_does_not_turn_ids_into_floats(write):
    frame = pd.DataFrame(
        {"user": pd.array([1, None, 2], dtype="Int64"), "item": ["a", "b", "c"], "rating": [1.0, 2.0, 3.0]}
    )
    with pytest.raises(InputError, match=r'row 2: the user id \(column "user"\) is missing'):
        read_domain(write("a.parquet", parquet_bytes(frame)))
    with pytest.raises(InputError, match="row 2"):
        read_domain(write("b.parquet", parquet_bytes(frame.astype({"user": "float64"}))))


def test_ids_that_look_like_missing_values_are_ids(write):
    domain = read_domain(write("a.csv", "user,item,rating\nNA,nan,1\nnull,None,5\n"))
    assert domain.ratings["user"].tolist() == ["NA", "null"]
    assert domain.ratings["item"].tolist() == ["nan", "None"]


def test_columns_that_are_not_found_automatically(write):
    path = write("a.csv", "who,what,mark,user\nann,x,1,9\nbob,x,5,9\n")
    domain = read_domain(path, columns={"user": "who", "item": "what", "rating": "mark"})
    assert domain.ratings["user"].tolist() == ["ann", "bob"]


def test_a_role_may_have_no_column(write):
    path = write("a.csv", "user,item,rating,domain,date\na,x,1,a.org,today\nb,y,5,b.org,13.5.2014\n")
    domain = read_domain(path, columns={"domain": None, "timestamp": ""})
    assert domain.ratings.to_dict("list") == {"user": ["a", "b"], "item": ["x", "y"], "rating": [1.0, 5.0]}
    assert read_domain(path, columns=dict.fromkeys(["domain", "timestamp", "rating"])).feedback == "implicit"
    with pytest.raises(InputError, match=r"columns\.user must name the column of the user ids but is empty; name it"):
        read_domain(path, columns={"user": None})
    with pytest.raises(InputError, match=r"if the column holds something else, set columns\.domain= \(nothing\)"):
        read_domain(path, columns={"timestamp": None})


def test_usual_names_of_amazon(write):
    path = write("a.csv", "rating,title,asin,parent_asin,user_id,timestamp\n5,x,A,P,u,1\n1,x,A,P,v,2\n")
    assert read_domain(path).ratings["item"].tolist() == ["P", "P"]
    path = write("b.csv", "reviewerID,asin,overall,unixReviewTime\nu,A,5,1\nv,A,1,2\n")
    assert read_domain(path).ratings["user"].tolist() == ["u", "v"]


@pytest.mark.parametrize(
    ("stamps", "seconds"),
    [
        (["2001-01-01", "2001-01-02"], [978307200, 978393600]),
        (["2001-01-01 00:00:01", "2001-01-01 00:00:02"], [978307201, 978307202]),
        (["2001-01-01T01:00:00+01:00", "2001-01-01T00:00:00Z"], [978307200, 978307200]),
        (["1.5", "2"], [1.5, 2.0]),
        (["1e9", "2"], [1_000_000_000, 2]),
    ],
)
def test_timestamps(write, stamps, seconds):
    domain = read_domain(write("a.csv", f"user,item,rating,date\na,x,1,{stamps[0]}\nb,x,2,{stamps[1]}\n"))
    assert domain.ratings["timestamp"].tolist() == seconds
    assert domain.ratings["timestamp"].dtype == (np.float64 if 1.5 in seconds else np.int64)


def test_timestamps_of_parquet(write):
    frame = EXPECTED.assign(timestamp=pd.to_datetime(EXPECTED["timestamp"], unit="s"))
    pd.testing.assert_frame_equal(read_domain(write("a.parquet", parquet_bytes(frame))).ratings, EXPECTED)


def test_the_scale_is_inferred_aloud_or_given(write, caplog):
    path = write("films.csv", lines(","))
    with caplog.at_level(logging.INFO, logger="metarec"):
        assert read_domain(path).scale == RatingScale(0.5, 5)
    assert "scale 0.5..5 inferred from the ratings" in caplog.text
    caplog.clear()
    for scale in ((0, 10), "0,10", "0..10", RatingScale(0, 10)):
        with caplog.at_level(logging.INFO, logger="metarec"):
            assert read_domain(path, scale=scale).scale == RatingScale(0, 10)
    assert "inferred" not in caplog.text


def test_the_latest_of_repeated_pairs_is_kept_and_repeats_are_counted(write, caplog):
    text = "user,item,rating,timestamp\na,x,1,30\na,x,2,10\na,x,3,20\nb,y,4,5\nb,y,5,5\nc,z,2,1\n"
    ratings = read_domain(write("a.csv", text)).ratings
    assert ratings.to_numpy().tolist() == [["a", "x", 1.0, 30], ["b", "y", 5.0, 5], ["c", "z", 2.0, 1]]
    assert "3 rows repeat a user-item pair" in caplog.text
    untimed = "\n".join(line.rsplit(",", 1)[0] for line in text.splitlines())
    assert read_domain(write("b.csv", untimed)).ratings["rating"].tolist() == [3.0, 5.0, 2.0]


# Layouts of folders


def test_a_folder_with_ratings_and_items(write, caplog):
    write(
        "shop/items.csv",
        "item,title,price,category,average_rating,ratings_count,operatingSystem\n"
        "7,Lamp,3.5,8,4.2,10,x\n"
        "9,Bed,,8,3,2,y\n",
    )
    path = write("shop/ratings.csv.gz", "user,item,rating\na,7,1\nb,7,5\n")
    for place in (path, path.parent):
        domain = read_domain(place)
        assert domain.items.columns.tolist() == ["item", "title", "price", "category", "operatingSystem"]
        assert domain.items["item"].tolist() == ["7", "9"]
        assert domain.items["category"].tolist() == ["8", "8"]
        np.testing.assert_array_equal(domain.items["price"], [3.5, np.nan])
    assert "dropped average_rating, ratings_count" in caplog.text


@pytest.mark.parametrize(
    "name",
    ["average_rating", "avgRating", "mean_rating", "averagerating", "rating_count", "ratings_count", "ratingsCount"]
    + ["vote_average", "vote_count", "num_ratings", "popularity", "rating", "ratings_5", "rating_number"]
    + ["work_text_reviews_count", "imdb_score", "play_count"]
    + [f"kept {name}" for name in ("year", "runtime", "start_year", "pages", "content_rating", "age_rating")],
)
def test_columns_of_items_that_sum_up_ratings_leak(write, name):
    leaks, name = not name.startswith("kept "), name.removeprefix("kept ")
    write("shop/items.csv", f"item,{name}\n7,3\n9,4\n")
    items = read_domain(write("shop/ratings.csv", "user,item,rating\na,7,1\nb,7,5\n")).items
    assert (name not in items) == leaks


def test_a_text_column_named_after_ratings_is_no_leak(write):
    write("shop/items.csv", "item,rating\n7,PG-13\n9,R\n")
    items = read_domain(write("shop/ratings.csv", "user,item,rating\na,7,1\nb,7,5\n")).items
    assert items["rating"].tolist() == ["PG-13", "R"]


def test_movielens_csv_layout_parses_the_year(write):
    write("ml/movies.csv", 'movieId,title,genres\n1,Toy Story (1995),Comedy|Drama\n2,"Postman, The",Drama\n')
    write("ml/tags.csv", "userId,movieId,tag,timestamp\n1,1,fun,3\n")
    path = write("ml/ratings.csv", "userId,movieId,rating,timestamp\n1,1,4.0,9\n2,1,0.5,9\n")
    items = read_domain(path.parent).items
    assert items["title"].tolist() == ["Toy Story (1995)", "Postman, The"]
    np.testing.assert_array_equal(items["year"], [1995, np.nan])


def test_a_year_that_is_there_is_not_overwritten(write):
    write("ml/movies.csv", "movieId,title,release_year\n1,Toy Story (1995),1996\n2,B,unknown\n")
    items = read_domain(write("ml/ratings.csv", "userId,movieId,rating\n1,1,4\n2,1,1\n")).items
    assert items.columns.tolist() == ["item", "title", "release_year"]
    np.testing.assert_array_equal(items["release_year"], [1996, np.nan])


def test_movielens_100k_layout(write):
    flags = lambda *on: "|".join("1" if position in on else "0" for position in range(19))  # noqa: E731
    item = f'1|Café "X" (1995)|01-Jan-1995||http://x|{flags(3, 5)}\n2|unknown||||{flags(0)}\n'
    write("ml-100k/u.item", item.encode("latin-1"))
    write("ml-100k/u.user", "1|24|M|technician|05711\n2|53|F|other|94043\n")
    path = write("ml-100k/u.data", "1\t1\t4\t9\n2\t1\t1\t8\n")
    write("ml-100k/u1.base", "1\t1\t4\t9\n")
    for place in (path, path.parent):
        domain = read_domain(place)
        assert domain.name == "ml-100k"
        assert domain.items["title"].tolist() == ['Café "X" (1995)', "unknown"]
        assert domain.items["genres"].tolist() == ["Animation|Comedy", "unknown"]
        np.testing.assert_array_equal(domain.items["year"], [1995, np.nan])
        assert domain.users["occupation"].tolist() == ["technician", "other"]


def test_movielens_1m_layout(write):
    write("ml/movies.dat", "1::Café: the movie (1995)::Comedy|Drama\n2::B::Drama\n".encode("latin-1"))
    write("ml/users.dat", "1::F::1::10::48067\n2::M::56::16::70072\n")
    domain = read_domain(write("ml/ratings.dat", "1::1::4::9\n2::1::1::8\n").parent)
    assert domain.items["title"].tolist() == ["Café: the movie (1995)", "B"]
    assert domain.items["year"].iloc[0] == 1995
    assert domain.users["gender"].tolist() == ["F", "M"]


def test_a_file_without_a_header_may_leave_out_the_timestamp(write):
    assert not read_domain(write("u.data", "1\t1\t4\n2\t1\t1\n")).has_timestamps


def test_atomic_layout(write):
    header = "item_id:token movie_title:token_seq release_year:token class:token_seq v:float_seq code:token"
    write("x/x.item", header.replace(" ", "\t") + '\n1\t"Toy Story\t1995\tComedy Drama\t0.5 1\t7\n')
    write("x/x.user", "user_id:token\tage:token\n1\t24\n2\t35\n")
    write("x/x.kg", "head\ttail\n")
    path = write("x/x.inter", "user_id:token\titem_id:token\trating:float\n1\t1\t3\n2\t1\t4\n")
    for place in (path, path.parent):
        domain = read_domain(place)
        assert domain.items.columns.tolist() == ["item", "movie_title", "release_year", "class", "v_0", "v_1", "code"]
        assert domain.items.to_numpy().tolist() == [["1", '"Toy Story', 1995.0, "Comedy|Drama", 0.5, 1.0, "7"]]
        assert domain.users["age"].tolist() == ["24", "35"]
        assert domain.name == "x"


def test_lists_in_parquet_become_lists_in_text(write):
    frame = pd.DataFrame({"item": [1, 2], "genres": [["a", "b"], None], "new": [True, False]})
    write("x/items.parquet", parquet_bytes(frame))
    items = read_domain(write("x/ratings.csv", "user,item,rating\n1,1,3\n2,1,4\n")).items
    assert items.to_dict("list") == {"item": ["1", "2"], "genres": ["a|b", ""], "new": [1.0, 0.0]}


def test_items_that_are_listed_twice_and_ids_that_never_meet(write, caplog):
    write("x/items.csv", "id,colour\n01,red\n01,blue\n02,red\n")
    items = read_domain(write("x/ratings.csv", "user,item,rating\n1,1,3\n2,1,4\n")).items
    assert items.to_dict("list") == {"item": ["01", "02"], "colour": ["red", "red"]}
    assert "1 rows repeat an id" in caplog.text
    assert "no described item is rated" in caplog.text


# Files of several domains

MANY = "user,item,rating,domain\na,1,1,8\nb,1,5,8\na,2,0,10\nb,2,10,10\na,3,2,9\nc,3,4,9\n"


@pytest.fixture
def ciao(write):
    write("ciao/items.csv", "item,colour\n1,red\n2,blue\n3,green\n4,red\n")
    return write("ciao/ratings.csv", MANY).parent


def test_a_domain_column_makes_one_domain_each(ciao):
    domains = read_domains(ciao)
    assert list(domains) == ["8", "9", "10"]
    assert [str(domain.scale) for domain in domains.values()] == ["1..5", "1..5", "0..10"]
    assert [domain.items["item"].tolist() for domain in domains.values()] == [["1"], ["3"], ["2"]]
    assert list(read_domains(ciao, "shop")) == ["shop-8", "shop-9", "shop-10"]
    assert read_domains(ciao, "shop")["shop-8"].name == "shop-8"


def test_a_path_can_choose_one_domain(ciao):
    domain = read_domain(f"{ciao}#9")
    assert (domain.name, domain.ratings["user"].tolist()) == ("9", ["a", "c"])
    assert read_domain(f"{ciao}/ratings.csv#9", "shopping").name == "shopping"
    assert list(read_domains(f"{ciao}#9", "shopping")) == ["shopping"]
    assert read_domains(f"{ciao}#9")["9"].fingerprint() == domain.fingerprint()


def test_a_path_must_choose_one_domain(ciao, write):
    with pytest.raises(InputError, match=r"holds 3 domains \(8, 9, 10\); choose one, as in .*ciao#8"):
        read_domain(ciao)
    with pytest.raises(InputError, match=r'no domain "7"; Known: 10, 8, 9'):
        read_domain(f"{ciao}#7")
    with pytest.raises(InputError, match='no column domain to choose "7"'):
        read_domain(str(write("a.csv", lines(","))) + "#7")


def test_one_value_needs_no_choice_and_no_column_makes_one_domain(write):
    assert read_domain(write("a.csv", "user,item,rating,domain\na,1,1,x\nb,1,5,x\n")).name == "x"
    assert list(read_domains(write("b.csv", lines(",")))) == ["b"]
    assert list(read_domains(write("b.csv", lines(",")), "mine")) == ["mine"]


def test_a_name_with_a_hash_is_a_name_if_the_file_is_there(write):
    assert read_domain(write("a#1.csv", lines(","))).name == "a#1"


def test_gz_is_read_whatever_the_letters(write, tmp_path):
    path = tmp_path / "A.CSV.GZ"
    path.write_bytes(gzip.compress(lines(",").encode()))
    assert len(read_domain(path).ratings) == 3
