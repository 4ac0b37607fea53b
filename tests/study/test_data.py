"""The keys of a spec that say how files are read, for all domains and for one."""

import pytest

from metarec.errors import InputError
from metarec.study.data import identity_of, read_data
from metarec.study.spec import load_spec


@pytest.fixture
def spec_of(tmp_path):
    (tmp_path / "a.csv").write_text("who,film,rating,domain\na,x,1,a.org\na,y,0,b.org\nb,x,5,a.org\nb,y,3,b.org\n")
    (tmp_path / "b.csv").write_text("who,class,mark\na,x,1\na,y,-1\nb,x,4\nb,y,2\n")
    domains = {name: str(tmp_path / f"{name}.csv") for name in "ab"}

    def load(*assignments, **overrides):
        return load_spec("cold-start", {"domains": domains, "target": "a", **overrides}, assignments)

    return load


NAMES = ("columns.user=who", "columns.domain=", "columns.a.item=film", "columns.b={item: class, rating: mark}")


def test_columns_and_missing_ratings_may_be_named_by_domain(spec_of):
    spec = spec_of(*NAMES, "missing.a={0: drop}", "missing.b.-1=event")
    domains = read_data(spec)
    assert domains["a"].ratings["rating"].tolist() == [1, 5, 3]
    assert domains["b"].feedback == "mixed"
    assert identity_of(spec, domains) != identity_of(spec_of(*NAMES), domains)
    whole = read_data(spec_of(*NAMES, "missing={-1: drop, 0: drop}"))
    assert [len(domain.ratings) for domain in whole.values()] == [3, 3]


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("columns.c.item=film", 'columns: unknown domain "c"'),
        ("columns.a.itm=film", 'columns: unknown column "itm"; did you mean "item"'),
        ("missing.c.0=drop", 'missing: unknown domain "c"'),
        ("missing.0=keep", "missing.0 must be drop or event, which is what becomes of the rows, but got keep"),
        ("columns.user=", "columns.user must name the column of the user ids but is empty"),
    ],
)
def test_wrong_ones_are_one_line(spec_of, assignment, message):
    with pytest.raises(InputError) as caught:
        read_data(spec_of(*NAMES, assignment))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
