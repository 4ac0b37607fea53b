"""One rule for names, wherever they come from, and text from outside as messages show it."""

import dataclasses

import optuna
import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from metarec.cli.command import named_paths
from metarec.compare.job import Job as ComparisonJob
from metarec.compare.plan import ComparisonPlan
from metarec.episodes import EpisodeSettings, build_episodes
from metarec.errors import NAME_BYTES, InputError, check_name, printable, shown
from metarec.meta import NetworkConfig
from metarec.model import FusionConfig
from metarec.ratings import Domain, RatingScale, read_domain, read_domains
from metarec.registry import Registry
from metarec.search.storage import open_storage
from metarec.search.trials import SPEC
from metarec.study.job import Job, study_input
from metarec.study.joining import repair_study
from metarec.study.records import facts_of
from metarec.study.spec import load_spec
from metarec.study.stages import Workspace
from tests.support.studies import tiny_spec

BAD = {
    "up": "../../up",
    "absolute": "/etc/passwd",
    "other slash": "..\\up",
    "dots": "..",
    "nothing": "",
    "spaces": "  ",
    "new line": "a\nb",
    "escape": "\x1b[31mred",
    "backwards": "movies\u202egpj.exe",
    "isolate": "a\u2066b",
    "no width": "mov\u200bies",
    "no break": "a\u00a0b",
    "zero": "a\0b",
    "half": "a\ud800",
    "long": "x" * (NAME_BYTES + 1),
    "long in bytes": "影" * 34,
}
GOOD = ["movies", "a: study", "Bücher & Filme", "C++ <b> [red] `x` | *", "...x", "影" * 33, "-", "it's", "🎬"]


@pytest.mark.parametrize("name", GOOD)
def test_a_good_name(name):
    check_name("a name", name)


@pytest.mark.parametrize("case", BAD)
def test_a_bad_name_is_named_in_one_printable_line(case):
    with pytest.raises(InputError) as raised:
        check_name("the name of a study", "fine", BAD[case])
    assert str(raised.value).startswith("the name of a study must ")
    assert str(raised.value).isprintable()
    assert shown(BAD[case]) in str(raised.value)


@pytest.mark.parametrize("name", [None, 3, b"movies", ["movies"]])
def test_a_name_is_text(name):
    with pytest.raises(InputError, match="must be text"):
        check_name("a name", name)


@settings(deadline=None)
@given(name=st.text(min_size=1, max_size=110))
@example("影" * 33)
def test_a_name_that_passes_is_the_name_of_a_file(tmp_path_factory, name):
    folder = tmp_path_factory.getbasetemp() / "names"
    try:
        check_name("a name", name)
    except InputError:
        return
    # As a cached file is named while it is written: two names and a hash.
    path = folder / f"{name}-{name}-{'0' * 24}.npz12345678.part"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"")
    assert [entry.name for entry in folder.iterdir()] == [path.name]
    path.unlink()


@settings(deadline=None)
@given(text=st.text())
def test_printable_text_is_printable_and_plain_text_stays(text):
    assert printable(text).isprintable()
    assert printable(printable(text)) == printable(text)
    assert not text.isprintable() or printable(text) == text
    assert len(shown(text, 20)) <= 80


RATINGS = pd.DataFrame(
    {
        "user": [f"u{user}" for user in range(30) for _ in range(12)],
        "item": [f"i{item}" for _ in range(30) for item in range(12)],
        "rating": [1.0 + (user + item) % 5 for user in range(30) for item in range(12)],
    }
)


def domain(name="movies"):
    return Domain(name, RATINGS, RatingScale(1, 5))


def written(folder, name):
    path = folder / "ratings.csv"
    RATINGS.assign(domain=name).to_csv(path, index=False)
    return path


def stored(folder, name):
    """The journal of a study whose stored spec has a domain of this name."""
    study = optuna.create_study(study_name="s", storage=open_storage(str(folder / "optuna.journal")))
    study.set_user_attr(SPEC, {"name": "s", "domains": {name: "ratings.csv"}})
    return study


def specs(folder, **keys):
    path = folder / "mine.yaml"
    path.write_text("name: fine\n")
    return load_spec(str(path), keys)


def episodes(folder, name):
    # The key of the mapping names the file of the cache.
    settings = EpisodeSettings(shots=3, min_query=3, max_query=8, folds=2)
    return build_episodes({name: domain()}, name, settings, {"bias": {}}, cache=folder / "out" / "cache")


def plugged(folder, name):
    registry = Registry("base recommender", "metarec.none", {})
    registry._plugins = lambda: {name: None}
    return registry.check(name)


PLACES = {
    "Domain": lambda folder, name: domain(name),
    "replace": lambda folder, name: dataclasses.replace(domain(), name=name),
    "read_domain": lambda folder, name: read_domain(written(folder, "x"), name),
    "spec": lambda folder, name: specs(folder, domains={name: "ratings.csv"}),
    "spec name": lambda folder, name: specs(folder, name=name),
    "--data": lambda folder, name: named_paths([f"{name}=ratings.csv"]),
    "study": lambda folder, name: Job(folder / "out", name),
    "comparison": lambda folder, name: ComparisonJob(folder / "out", name),
    "network": lambda folder, name: FusionConfig(networks={name: NetworkConfig()}),
    "plug-in": plugged,
    "episodes": episodes,
    "study of": lambda folder, name: study_input(
        tiny_spec(target=name), {name: domain()}, Workspace(folder / "out" / "cache", folder / "out")
    ),
    "plan": lambda folder, name: ComparisonPlan(name).check({name: domain(), "books": domain("books")}),
    "stored study": lambda folder, name: repair_study(Job(folder, "s")) if stored(folder, name) else None,
    "facts": lambda folder, name: facts_of(stored(folder, name)),
}


@pytest.mark.parametrize("case", BAD)
@pytest.mark.parametrize("place", PLACES)
def test_the_rule_holds_wherever_a_name_comes_from(tmp_path, place, case):
    name = BAD[case]
    if place == "read_domain" and not name:
        pytest.skip("without a name the file has one")
    if place in ("stored study", "facts") and case == "half":
        pytest.skip("a journal is UTF-8")
    with pytest.raises(InputError) as raised:
        PLACES[place](tmp_path, name)
    assert str(raised.value).isprintable()
    assert {path.name for path in tmp_path.iterdir()} <= {
        *("ratings.csv", "mine.yaml", "optuna.journal", "optuna.journal.lock", "optuna.journal.running"),
    }


@pytest.mark.parametrize("name", ["Books/Comics", "a\u202eb", "影" * 40])
def test_the_values_of_a_domain_column_are_names(tmp_path, name):
    with pytest.raises(InputError, match="the name of a domain must"):
        read_domains(written(tmp_path, name))
    # It can be read under another one.
    assert read_domain(written(tmp_path, name), "comics").name == "comics"
