"""The files that docs/architecture.md lists for one trial, one meta-step and one row are the files that are entered."""

import re
import sys
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

import metarec
from metarec.cli import study as command
from metarec.episodes import EpisodeSettings, build_episodes
from metarec.meta import NetworkConfig, Shape, make_adam
from metarec.meta.trainer import outer_step

LIBRARY = Path(metarec.__file__).parent
PAGE = LIBRARY.parent / "docs" / "architecture.md"
MOST = {"trial": 16, "meta-step": 6, "row of the table": 5}
"""Half of the files of the first edition."""


def listed(what):
    """The files of one list of the page, and those of the sentence on helpers behind it."""
    section = PAGE.read_text().partition(f"**One {what}**")[2].partition("\n**")[0].partition("\n## ")[0]
    numbered = [line for line in section.splitlines() if re.match(r"\d+\. ", line)]
    helpers = section.partition("they call helpers in")[2]
    return [re.findall(r"`([\w/]+\.py)`", text) for text in ("\n".join(numbered), helpers)]


@contextmanager
def entered(files):
    """Adds each file of the library in which a function is called meanwhile, by any thread."""

    def profile(frame, event, _):
        path = frame.f_code.co_filename
        if event == "call" and path.startswith(str(LIBRARY)) and frame.f_code.co_name != "<module>":
            files.add(str(Path(path).relative_to(LIBRARY)))

    threading.setprofile(profile)
    sys.setprofile(profile)
    try:
        yield
    finally:
        sys.setprofile(None)
        threading.setprofile(None)


@pytest.mark.parametrize("what", MOST)
def test_a_path_is_short_and_its_files_exist(what):
    files, helpers = listed(what)
    assert 0 < len(files) <= MOST[what]
    assert all((LIBRARY / file).is_file() for file in [*files, *helpers])


def test_a_meta_step_enters_the_listed_files_and_no_others(world):
    settings = EpisodeSettings(shots=4, max_query=8, folds=2)
    built = build_episodes({"movies": world["movies"]}, "movies", settings, {"bias": {}, "item-knn": {}})
    batch = built["movies"].train.batch.select(torch.arange(8))
    learner = NetworkConfig().build(Shape.of(batch), 0)
    optimizer = make_adam(learner, 1e-3)
    # The first step also compares the paths.
    outer_step(learner, batch, optimizer, epoch=0, batch=0)
    files = set()
    with entered(files):
        outer_step(learner, batch, optimizer, epoch=0, batch=1)
    steps, helpers = listed("meta-step")
    assert files == {*steps, *helpers}


@pytest.mark.slow
def test_a_study_enters_the_files_of_a_trial_and_of_a_row(place, monkeypatch, tmp_path):
    monkeypatch.chdir(place)
    arguments = ["job.yaml", "--data", "movies=movies.csv", "--trials", "1", "--out", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["study", *arguments])
    for module in ("running", "study"):
        monkeypatch.setattr(f"metarec.cli.{module}.cores", lambda: 1)
    files = set()
    with entered(files):
        command.main()
    for what in ("trial", "row of the table"):
        assert set(listed(what)[0]) <= files
