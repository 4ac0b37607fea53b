"""A study that tunes its bases: its runs, its result, its stores, and how it goes on."""

import json
from pathlib import Path

import pytest

from benchmarks.study.audit import audit
from metarec.errors import InputError
from metarec.search.trials import join_study
from metarec.study import job as job_module
from metarec.study.bases import BaseSearch
from metarec.study.data import identity_of, read_data, settled
from metarec.study.job import run_study
from metarec.study.joining import repair_study, replay_trial
from metarec.study.spec import load_spec
from metarec.tracking import sqlite_uri
from tests.support.studies import reported, runs_of, tiny_spec, tunings_of


def test_a_study_without_tuned_bases_has_the_identity_that_it_had_before(movies):
    spec = settled(tiny_spec(), movies)
    assert "tune_bases" in spec.model_dump()
    assert identity_of(spec, movies) == identity_of(spec.model_copy(update={"tune_bases": 0}), movies)
    assert identity_of(spec, movies) != identity_of(spec.model_copy(update={"tune_bases": 2}), movies)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"tune_bases": -1}, "tune_bases: "),
        ({"tune_bases": "many"}, "tune_bases: "),
        ({"tune_bases": 3, "transfer": {}}, "a study of transfer strategies needs tune_bases: 0 but got 3"),
    ],
)
def test_a_wrong_number_is_one_line(changes, problem):
    with pytest.raises(InputError) as caught:
        load_spec("quickstart", changes)
    assert problem in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_a_study_tunes_its_bases_and_goes_on(world, new_folder, monkeypatch, tmp_path):
    folder = new_folder()
    world["movies"].ratings.to_csv(tmp_path / "movies.csv", index=False)
    data = {"movies": str(tmp_path / "movies.csv")}
    spec = tiny_spec(domains=data, trials=2, tune_bases=2, bases={"bias": {}, "item-knn": {"neighbours": 20}})
    movies = read_data(spec)
    fits, honest = [], BaseSearch._score
    monkeypatch.setattr(BaseSearch, "_score", lambda *given: fits.append(given[1:]) or honest(*given))

    def killed(*given, **named):
        raise KeyboardInterrupt

    # Killed after the bases are tuned and before they are recorded.
    with monkeypatch.context() as patch:
        patch.setattr(job_module, "base_cells", killed)
        with pytest.raises(KeyboardInterrupt):
            run_study(spec, movies, reported(folder, "tuned"))
    assert len(fits) == 4
    result = run_study(spec, movies, reported(folder, "tuned"))
    assert len(fits) == 4
    shown = result.to_json()
    assert len(shown["trials"]) == 2
    bases = shown["bases"]
    assert {name: own["trials"] for name, own in bases.items()} == {"bias": 2, "item-knn": 2}
    assert all(own["value"] <= own["default"] for own in bases.values())
    assert bases["item-knn"]["options"]["neighbours"] == 20
    # The study uses what was chosen.
    client, _, trials = runs_of(folder)
    tunings = tunings_of(folder)
    assert len(trials) == 2
    assert sorted(run.data.params["base"] for run in tunings) == ["bias", "bias", "item-knn", "item-knn"]
    values = {run.data.metrics["validation_unit_rmse"] for run in tunings}
    assert values >= {bases["bias"]["value"], bases["item-knn"]["value"]}
    assert all(run.info.status == "FINISHED" for run in tunings)
    path = client.download_artifacts(trials[0].info.run_id, "configuration.yaml", str(tmp_path))
    assert f"damping: {bases['bias']['options']['damping']}" in Path(path).read_text()
    assert json.loads((folder / "artifacts/tuned/report/findings.json").read_text())["bases"] == bases
    assert "tuned one by one on validation users" in (folder / "artifacts/tuned/report.html").read_text()
    # Other commands read what was chosen, and fit nothing again.
    job = reported(folder, "tuned")
    recorded, again = replay_trial(job, data, 0)
    assert recorded == again
    assert repair_study(job) == []
    found = audit("tuned", str(folder / "optuna.journal"), sqlite_uri(folder / "mlflow.db"))
    assert (found["wrong"], found["counted"]) == ([], 2)
    run_study(spec.model_copy(update={"trials": 3}), movies, reported(folder, "tuned"))
    assert len(fits) == 4
    assert len(tunings_of(folder)) == 4
    assert len(join_study("tuned.bases.bias", str(folder / "optuna.journal")).trials) == 2
    with pytest.raises(InputError, match=r"other data or settings \(tune_bases\), so its trials"):
        run_study(spec.model_copy(update={"tune_bases": 4}), movies, reported(folder, "tuned"))
