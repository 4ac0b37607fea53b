"""Files without ratings, or with some: clicks, plays, purchases and logs of events."""

import pandas as pd
import pytest

from metarec.errors import InputError
from metarec.ratings import read_domain, read_domains

LOG = "visitorid,itemid,event,event_time\na,x,view,10\na,x,buy,12\nb,x,view,11\nb,y,cart,13\n"
WEIGHTS = {"view": 1, "cart": 2.5, "buy": 5}


def rows(domain):
    return domain.ratings.to_numpy().tolist()


def refused(path, **options):
    with pytest.raises(InputError) as caught:
        read_domain(path, **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_users_and_items_alone_are_events(write):
    domain = read_domain(write("shop.csv", "user,item\na,x\nb,x\na,x\n"))
    assert (domain.name, domain.feedback, domain.scale) == ("shop", "implicit", None)
    assert rows(domain) == [["a", "x", 2.0], ["b", "x", 1.0]]


@pytest.mark.parametrize(
    "column", ["weight", "count", "Plays", "play_count", "PlayCount:float", "HOURS", "hours_played", "Quantity", "qty"]
)
def test_weights_are_found(write, column, caplog):
    caplog.set_level("INFO")
    domain = read_domain(write("shop.csv", f"user,item,{column},date\na,x,2.5,2001-01-02\nb,x,1,2001-01-01\n"))
    assert domain.ratings["weight"].tolist() == [2.5, 1.0]
    assert domain.has_timestamps
    assert f'no column of ratings, so the rows are read as events; weight: column "{column}"' in caplog.text


@pytest.mark.parametrize(("yes", "no"), [("True", "False"), ("1", "0"), ("yes", "no")])
def test_a_column_of_answers_that_is_not_read_is_named(write, caplog, yes, no):
    path = write("shop.csv", f"user,item,liked,note\na,x,{yes},1\na,y,{no},1\nb,x,{no},1\nb,z,{yes},1\n")
    assert len(read_domain(path).ratings) == 4
    assert 'the column "liked" has two answers and is not read' in caplog.text
    assert '"note"' not in caplog.text
    caplog.clear()
    if yes == "1":
        domain = read_domain(path, columns={"rating": "liked"})
        assert (domain.feedback, domain.ratings["rating"].tolist()) == ("explicit", [1.0, 0.0, 0.0, 1.0])
        assert "two answers" not in caplog.text


def test_weights_of_another_name(write):
    path = write("shop.csv", "user,item,pieces\na,x,2\nb,x,1\n")
    assert read_domain(path).ratings["weight"].tolist() == [1.0, 1.0]
    assert read_domain(path, columns={"weight": "pieces"}).ratings["weight"].tolist() == [2.0, 1.0]
    assert 'no column "piece", which columns.weight asks for' in refused(path, columns={"weight": "piece"})


def test_weights_of_parquet(tmp_path):
    path = tmp_path / "a.parquet"
    pd.DataFrame({"user": [1, 2], "item": [1, 1], "plays": pd.array([3, 4], dtype="Int64")}).to_parquet(path)
    assert rows(read_domain(path)) == [["1", "1", 3.0], ["2", "1", 4.0]]
    pd.DataFrame({"user": [1, 2], "item": [1, 1], "rating": [3.5, None]}).to_parquet(path)
    assert read_domain(path, scale=(1, 5)).feedback == "mixed"


@pytest.mark.parametrize("name", ["interactions.csv", "events.tsv", "events.csv.gz"])
def test_a_folder_with_events_and_items(write, name):
    write("shop/items.csv", "item,tags\nx,red\n")
    separator = "\t" if "tsv" in name else ","
    path = write(f"shop/{name}", "user,item\na,x\nb,x\n".replace(",", separator))
    for place in (path, path.parent):
        domain = read_domain(place)
        assert (domain.name, domain.items["tags"].tolist()) == ("shop", ["red"])


def test_a_folder_with_ratings_beside_events_is_one_of_ratings(write):
    write("shop/events.csv", "user,item\na,x\nb,x\n")
    assert read_domain(write("shop/ratings.csv", "user,item,rating\na,x,1\nb,x,2\n").parent).feedback == "explicit"


def test_atomic_files_without_ratings(write):
    path = write("lastfm.inter", "user_id:token\tartist_id:token\tweight:float\n1\t7\t13\n2\t7\t4\n")
    assert rows(read_domain(path)) == [["1", "7", 13.0], ["2", "7", 4.0]]
    path = write("x.inter", "user_id:token\titem_id:token\ttimestamp:float\n1\t7\t13\n2\t7\t4\n")
    assert rows(read_domain(path)) == [["1", "7", 1.0, 13], ["2", "7", 1.0, 4]]


# Logs of events


def test_events_have_weights_by_name(write):
    domain = read_domain(write("shop.csv", LOG), event_weights=WEIGHTS)
    assert rows(domain) == [["a", "x", 6.0, 10], ["b", "x", 1.0, 11], ["b", "y", 2.5, 13]]
    (same,) = read_domains(write("shop.csv", LOG), event_weights=WEIGHTS).values()
    assert same.fingerprint() == domain.fingerprint()


def test_the_weight_of_an_event_and_of_its_row_are_multiplied(write):
    path = write("shop.csv", "user,item,event_type,quantity\na,x,buy,3\nb,x,view,1\n")
    assert read_domain(path, event_weights=WEIGHTS).ratings["weight"].tolist() == [15.0, 1.0]


def test_a_log_needs_a_weight_for_each_event(write):
    path = write("shop.csv", LOG)
    assert (
        'the column "event" names events, which need weights; set event_weights, as in {view: 1, buy: 1, cart: 1}'
        in (refused(path))
    )
    message = refused(path, event_weights={"view": 1, "buy": 5})
    assert f'{path}, line 5: the column "event" names events, and the event "cart" has no weight' in message
    assert 'line 4: the column "event" names events, and the event "" has no weight' in refused(
        write("gap.csv", LOG.replace("b,x,view", "b,x,")), event_weights=WEIGHTS
    )
    for weight in (0, -1, float("nan"), float("inf"), "5", True):
        message = refused(path, event_weights={**WEIGHTS, "cart": weight})
        assert "event_weights.cart must be a finite number > 0" in message


def test_event_weights_without_events_are_reported(write, caplog):
    assert rows(read_domain(write("a.csv", "user,item\na,x\nb,x\n"), event_weights=WEIGHTS)) == [
        ["a", "x", 1.0],
        ["b", "x", 1.0],
    ]
    assert "event_weights are not used" in caplog.text


# Ratings and events


def test_ratings_that_are_missing_in_part_are_mixed(write, caplog):
    path = write("books.csv", "user,item,rating,plays\na,x,4,1\na,y, ,2\nb,x,,1\nb,y,2,3\n")
    domain = read_domain(path)
    assert (domain.feedback, str(domain.scale)) == ("mixed", "1..5")
    assert domain.ratings.fillna(-1).to_numpy().tolist() == [
        ["a", "x", 4.0, 1.0],
        ["a", "y", -1, 2.0],
        ["b", "x", -1, 1.0],
        ["b", "y", 2.0, 3.0],
    ]
    assert '2 of 4 rows have no rating and are read as events; weight: column "plays"' in caplog.text
    assert "line 2: the rating" in refused(path, scale=(1, 3))


def test_an_older_rating_of_mixed_feedback_is_an_event(write, caplog):
    text = "user,item,rating,time\na,x,,1\na,x,5,2\na,x,3,4\na,x,4,3\nb,x,2,9\nb,y,,9\n"
    domain = read_domain(write("books.csv", text))
    assert domain.ratings.fillna(-1).to_numpy().tolist() == [
        ["a", "x", 3.0, 4.0, 4],
        ["b", "x", 2.0, 1.0, 9],
        ["b", "y", -1, 1.0, 9],
    ]
    assert "2 rows repeat a user-item pair; the latest rating of each pair is kept" in caplog.text


def test_domains_of_one_file_have_their_own_feedback(write):
    text = "user,item,rating,domain\na,x,4,one\nb,x,5,one\na,y,4,two\nb,y,,two\na,z,3,two\n"
    domains = read_domains(write("both.csv", text))
    assert [domain.feedback for domain in domains.values()] == ["explicit", "mixed"]


def test_columns_of_events_do_not_matter_where_everything_is_rated(write):
    text = "user,item,rating,plays,plays,event\na,x,4,-1,2,view\nb,x,5,,0,buy\n"
    domain = read_domain(write("films.csv", text))
    assert (domain.feedback, list(domain.ratings)) == ("explicit", ["user", "item", "rating"])


# What is refused


@pytest.mark.parametrize(
    ("weight", "part"),
    [
        ("-2", 'line 3: the weight (column "plays") must be positive but is -2'),
        ("0", "must be positive but is 0"),
        ("", 'line 3: the weight (column "plays") is missing'),
        ("NaN", 'must be a finite number but is "NaN"'),
        ("inf", 'must be a finite number but is "inf"'),
        ("many", 'must be a finite number but is "many"'),
    ],
)
def test_a_weight_that_is_refused(write, weight, part):
    assert part in refused(write("bad.csv", f"user,item,plays\na,x,1\nb,x,{weight}\n"))


def test_a_misspelled_rating_is_no_event(write):
    for column in ("ratng", "Raiting", "my_rating"):
        message = refused(write("bad.csv", f"user,item,{column}\na,x,4\nb,x,1\n"))
        assert "no column for the rating; name it in the header, or say which with columns.rating=NAME" in message
    assert read_domain(write("good.csv", "user,item,duration\na,x,4\nb,x,1\n")).feedback == "implicit"


def test_a_scale_without_ratings_is_refused(write):
    message = refused(write("bad.csv", "user,item\na,x\nb,x\n"), scale=(1, 5))
    assert "a scale is given, but there is no column of ratings" in message


def test_columns_that_clash_are_refused(write):
    assert 'two columns are named "plays"' in refused(write("bad.csv", "user,item,plays,plays\na,x,4,1\nb,x,1,1\n"))
    path = write("bad.csv", "user,item,plays\na,x,4\nb,x,1\n")
    assert "cannot be both" in refused(path, columns={"weight": "plays", "event": "plays"})
