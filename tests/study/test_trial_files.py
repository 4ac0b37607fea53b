"""The files of a trial are written, by any process and after any interruption."""

import multiprocessing
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from metarec.report import StudyReporter
from metarec.study.records import FileKeeper, Files
from metarec.study.reporter import TrialPictures
from metarec.workers import worker_pool

FILES = Files(
    configuration={"parameters": {"inner_lr": 0.1}},
    predictions=pd.DataFrame({"item": ["a", "b"], "metarec": [1.0, 2.0]}),
    pictures=TrialPictures(
        curves={"val_rmse": [0.3, 0.2]},
        best_epoch=1,
        weights=np.array([[0.2, 0.8], [0.6, 0.4]]),
        base_names=("bias", "item-knn"),
    ),
)
NAMES = ["base_weights.png", "configuration.yaml", "learning_curve.png", "validation_predictions.parquet"]


class Record:
    """A run with its artifacts in a folder."""

    def __init__(self, folder):
        self.folder = folder

    @contextmanager
    def artifacts(self):
        hidden = self.folder.with_suffix(".part")
        hidden.mkdir()
        yield hidden
        hidden.rename(self.folder)

    def kept(self):
        return {path.name: path.read_bytes() for path in sorted(self.folder.iterdir())}


@pytest.fixture
def at_once(tmp_path):
    record = Record(tmp_path / "at once")
    with FileKeeper(reporter=StudyReporter()) as keeper:
        keeper.keep(FILES, record)
        assert record.folder.is_dir()
    return record.kept()


def test_another_process_writes_the_same(at_once, tmp_path):
    records = [Record(tmp_path / str(number)) for number in range(3)]
    with worker_pool(2) as processes, FileKeeper(processes, reporter=StudyReporter()) as keeper:
        for record in records:
            keeper.keep(FILES, record)
    assert list(at_once) == NAMES
    assert [record.kept() for record in records] == [at_once] * 3


def kill_and_interrupt(processes, records):
    """Ctrl-C in the main process, after the end of the others."""
    with FileKeeper(processes, reporter=StudyReporter()) as keeper:
        processes.submit(abs, 1).result()
        for process in processes._processes.values():
            process.kill()
        keeper.keep(FILES, records[0])
        processes.shutdown()
        keeper.keep(FILES, records[1])
        raise KeyboardInterrupt


def test_files_are_written_after_the_processes_have_ended(at_once, tmp_path):
    """The trial is already in the study when Ctrl-C ends the processes, so its files must be written."""
    records = [Record(tmp_path / "a"), Record(tmp_path / "b")]
    with (
        ProcessPoolExecutor(1, multiprocessing.get_context("forkserver")) as processes,
        pytest.raises(KeyboardInterrupt),
    ):
        kill_and_interrupt(processes, records)
    assert [record.kept() for record in records] == [at_once] * 2


class Broken:
    def artifacts(self):
        raise OSError("no space left")


def keep_and_divide(processes, divisor):
    with FileKeeper(processes, reporter=StudyReporter()) as keeper:
        keeper.keep(FILES, Broken())
        1 / divisor


def test_an_error_in_writing_is_raised_at_the_end(caplog):
    with ThreadPoolExecutor(1) as processes:
        with pytest.raises(OSError, match="no space left"):
            keep_and_divide(processes, 1)
        # It does not hide an earlier error.
        with pytest.raises(ZeroDivisionError):
            keep_and_divide(processes, 0)
    assert "no space left" in caplog.text


def test_a_network_without_weights_has_no_picture_of_them(tmp_path):
    files = replace(FILES, pictures=FILES.pictures._replace(weights=None))
    files.write(Path(tmp_path), StudyReporter())
    assert sorted(path.name for path in tmp_path.iterdir()) == NAMES[1:]
