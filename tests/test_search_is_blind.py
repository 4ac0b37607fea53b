"""No test user is read before the end of the search."""

import pytest

from metarec.ratings import simulate_domains
from metarec.study import job, protocols
from metarec.study.job import Job, run_study
from metarec.study.networks import PreparedNetworks
from metarec.study.spec import StudySpec

SMALL = StudySpec(
    trials=2,
    episodes={"shots": 5, "max_query": 10, "folds": 2},
    bases={"bias": {}, "content": {}},
    baselines=["mean", "ridge"],
    training={"epochs": 1},
)


class Guarded:
    """The episodes of one domain, which record the access to those of test users."""

    def __init__(self, episodes, events):
        self.train, self.validation = episodes.train, episodes.validation
        self.standards = episodes.standards
        self._test, self._events = episodes.test, events

    @property
    def test(self):
        self._events.append("test users")
        return self._test


@pytest.fixture
def events(monkeypatch):
    """The events of a study, in order."""
    events = []
    build, search = protocols.build_episodes, job.run_trials

    def guarded(*args, **options):
        return {name: Guarded(episodes, events) for name, episodes in build(*args, **options).items()}

    def searched(*args, **options):
        search(*args, **options)
        events.append("searched")

    monkeypatch.setattr(protocols, "build_episodes", guarded)
    monkeypatch.setattr(job, "run_trials", searched)
    return events


def domain():
    return {"movies": simulate_domains(num_users=40, num_items=50, ratings_per_user=25)["movies"]}


def test_test_users_are_read_only_after_the_search(events, tmp_path):
    result = run_study(SMALL, domain(), Job(tmp_path, "blind"))
    assert events[0] == "searched"
    assert "test users" in events
    own = {"mean", "ridge", "bias", "content"}
    assert set(result.test["movies"].scores) == {"metarec", "network", "stack", "no-inner-loop", *own}


def test_an_objective_that_reads_test_users_is_detected(events, tmp_path, monkeypatch):
    honest = PreparedNetworks.objective

    def peeking(prepared, *arguments):
        assert len(prepared.episodes["movies"].test)
        return honest(prepared, *arguments)

    monkeypatch.setattr(PreparedNetworks, "objective", peeking)
    run_study(SMALL, domain(), Job(tmp_path, "peeking"))
    assert events[0] == "test users"
