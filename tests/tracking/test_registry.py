"""The model of a study is registered once, by whoever comes to it, and never at the cost of the study."""

import logging
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from mlflow import MlflowClient

import metarec
from metarec.errors import InputError
from metarec.fusion.stackers.simple import MeanStacker
from metarec.study.job import run_study
from metarec.tracking import model_name, sqlite_uri
from metarec.tracking._registry import register
from tests.support.studies import reported, tiny_spec


@pytest.fixture
def run(new_folder):
    """A client, and a run that says that it has a model."""
    folder = new_folder()
    client = MlflowClient(tracking_uri=sqlite_uri(folder / "mlflow.db"))
    return client, client.create_run(client.create_experiment("e", artifact_location=folder.as_uri())).info.run_id


def versions(client, name):
    return {version.version for version in client.search_model_versions("") if version.name == name}


def test_registering_again_has_no_second_effect(run):
    client, run_id = run
    for _ in range(3):
        register(client, run_id, "model", "it's mine", {"metarec.digest": "a"})
    assert versions(client, "it's mine") == {1}
    register(client, run_id, "model", "it's mine", {"metarec.digest": "b"})
    assert versions(client, "it's mine") == {1, 2}
    assert client.get_model_version_by_alias("it's mine", "champion").version == 2


def test_an_interrupted_registration_goes_on(run):
    """Killed between two calls, whoever sends it again makes it whole."""
    client, run_id = run
    client.create_registered_model("half")
    source = f"{client.get_run(run_id).info.artifact_uri}/model"
    client.create_model_version("half", source, run_id=run_id, tags={"metarec.digest": "a"})
    register(client, run_id, "model", "half", {"metarec.digest": "a"})
    assert versions(client, "half") == {1}
    assert client.get_model_version_by_alias("half", "champion").version == 1


def test_a_version_has_a_description_that_fits_and_its_score(run):
    client, run_id = run
    register(client, run_id, "model", "scored", {"digest": "a", "ndcg@10": "0.2345"}, "first " + "x" * 6000)
    register(client, run_id, "model", "scored", {"digest": "b", "ndcg@10": "0.3456"}, "second")
    first, second = (client.get_model_version("scored", str(number)) for number in (1, 2))
    assert len(first.description) <= 5000
    assert first.description.startswith("first x")
    assert (second.tags["ndcg_at_10"], second.description) == ("0.3456", "second")
    assert client.get_registered_model("scored").description == "second"
    register(client, run_id, "model", "scored", {"digest": "b", "ndcg@10": "0.3456"}, "second")
    assert len(client.search_model_versions("name = 'scored'")) == 2


class InStep:
    """A client that waits at these calls until another one has come to the same call."""

    def __init__(self, client, step, calls):
        self._client, self._step, self._calls = client, step, calls

    def __getattr__(self, name):
        if name in self._calls:
            self._step.wait(20)
        return getattr(self._client, name)


@pytest.mark.parametrize("calls", [{"create_registered_model"}, {"create_registered_model", "create_model_version"}])
def test_two_processes_that_register_at_once_make_one_version(run, calls):
    client, run_id = run
    step = threading.Barrier(2)
    clients = [InStep(MlflowClient(tracking_uri=client.tracking_uri), step, calls) for _ in range(2)]
    with ThreadPoolExecutor(2) as threads:
        ended = [threads.submit(register, one, run_id, "model", "raced", {"metarec.digest": "a"}) for one in clients]
    assert [one.exception() for one in ended] == [None, None]
    assert versions(client, "raced") == {1}
    assert client.get_model_version_by_alias("raced", "champion").version == 1


@pytest.mark.slow
def test_a_study_that_goes_on_has_a_new_champion(movies, new_folder):
    folder = new_folder()
    for trials in (1, 2):
        job = reported(folder, "a: study")
        result = run_study(tiny_spec(target="movies", trials=trials), movies, job)
    client = MlflowClient(tracking_uri=sqlite_uri(folder / "mlflow.db"))
    name = model_name("a: study")
    assert name == "metarec-a- study"
    assert versions(client, name) == {1, 2}
    assert client.get_model_version_by_alias(name, "champion").version == 2
    assert result.model_uri == f"models:/{name}@champion" == result.to_json()["model"]
    assert len(metarec.load(result.model_uri, tracking_uri=client.tracking_uri).items)


@pytest.mark.slow
def test_a_model_that_cannot_be_kept_does_not_take_the_table_away(movies, new_folder, monkeypatch, caplog):
    def cannot(self, combine, column):
        raise InputError("the baseline mean does not say how it is kept")

    monkeypatch.setattr(MeanStacker, "_learned", cannot)
    folder = new_folder()
    job = reported(folder, "plugged")
    with caplog.at_level(logging.WARNING, logger="metarec"):
        result = run_study(tiny_spec(target="movies", trials=1), movies, job)
    assert "no model is kept: the baseline mean does not say how it is kept" in caplog.text
    assert result.test["movies"].scores
    client = MlflowClient(tracking_uri=sqlite_uri(folder / "mlflow.db"))
    assert client.get_run(result.run_id).info.status == "FINISHED"
    assert not versions(client, model_name("plugged"))
    assert result.model_uri is None
