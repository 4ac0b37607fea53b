"""The bases' predictions of every fold: of its test rows, and of its training rows, each part from the other parts."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from benchmarks.common.folders import ROOT
from benchmarks.warm.bases import Predicted, WarmBase
from benchmarks.warm.data import Table, five_folds, inner_parts

__all__ = ["LIBRARIES", "ROOT", "Answers", "Cell", "Plan", "Split", "cells_of", "compute_fold", "splits_of"]

LIBRARIES = ("numpy", "scipy", "lenskit", "lightgbm", "scikit-learn", "torch")
CODE = (
    "benchmarks/warm/bases.py",
    "benchmarks/warm/data.py",
    "metarec/bases/bayesian/gibbs.py",
    "metarec/bases/lenskit.py",
)
TEST = "test"


@dataclass(frozen=True)
class Plan:
    """What is computed: the bases on each fold of a table, with `parts` inner parts drawn by `seed`; kept in `work`."""

    table: Table
    bases: Sequence[WarmBase]
    parts: int
    seed: int
    work: Path


@dataclass(frozen=True)
class Split:
    """Rows to fit on, and rows to predict; `part` is an inner part's number, or "test"."""

    fold: int
    part: int | str
    known: np.ndarray
    asked: np.ndarray


def splits_of(plan: Plan, fold: int) -> list[Split]:
    """The inner parts of one fold's training rows, and at last its test rows."""
    folds = five_folds(len(plan.table.ratings))
    train = np.sort(np.concatenate([rows for number, rows in enumerate(folds) if number != fold]))
    parts = inner_parts(train, plan.parts, plan.seed + fold)
    inner = [
        Split(fold, number, np.concatenate([rows for other, rows in enumerate(parts) if other != number]), asked)
        for number, asked in enumerate(parts)
    ]
    return [*inner, Split(fold, TEST, train, folds[fold])]


@dataclass(frozen=True)
class Cell:
    """One base on one split. Its file's name holds a hash of all that its predictions depend on."""

    split: Split
    base: WarmBase
    file: Path

    @property
    def name(self) -> str:
        return f"fold {self.split.fold}, part {self.split.part}, {self.base.name}"


def cells_of(plan: Plan, fold: int) -> Iterator[Cell]:
    """Every piece of work of one fold."""
    facts = {
        "data": plan.table.digest,
        "parts": plan.parts,
        "seed": plan.seed,
        "code": {path: hashlib.sha256((ROOT / path).read_bytes()).hexdigest() for path in CODE},
        "python": sys.version_info[:2],
        "versions": {name: version(name) for name in ("numpy", "scipy", "lenskit")},
    }
    for split in splits_of(plan, fold):
        for base in plan.bases:
            key = {"fold": fold, "part": split.part, "base": base.name, "settings": {**base.settings}}
            digest = hashlib.sha256(json.dumps([facts, key], sort_keys=True).encode()).hexdigest()[:16]
            yield Cell(split, base, plan.work / f"fold-{fold}.part-{split.part}.{base.name}.{digest}.parquet")


class Answers(NamedTuple):
    """For each part of a fold what every base predicts, in the order of the plan's bases; and how long that took."""

    of_parts: dict[int | str, list[Predicted]]
    processor_seconds: float


def compute_fold(plan: Plan, fold: int, on_done: Callable[[Cell, float], None]) -> Answers:
    """The predictions of one fold: cells that are there are read, the others are computed and kept.

    `on_done` is called with each computed cell and its seconds of processor time.
    """
    answers: dict[int | str, list[Predicted]] = {}
    total = 0.0
    for cell in cells_of(plan, fold):
        if not cell.file.is_file():
            start = time.process_time()
            known, asked = plan.table.known(cell.split.known), plan.table.asked(cell.split.asked)
            answer = cell.base.predict(plan.table, known, asked)
            seconds = time.process_time() - start
            _keep(cell, answer, seconds)
            on_done(cell, seconds)
        frame = pd.read_parquet(cell.file)
        total += float(frame.attrs["processor_seconds"])
        predicted = Predicted(frame["rating"].to_numpy(), frame["spread"].to_numpy())
        answers.setdefault(cell.split.part, []).append(predicted)
    return Answers(answers, total)


def _keep(cell: Cell, answer: Predicted, seconds: float) -> None:
    """Write so that the file is there whole or not at all."""
    cell.file.parent.mkdir(parents=True, exist_ok=True)
    temporary = cell.file.with_name(cell.file.name + ".unfinished")
    frame = pd.DataFrame({"rating": answer.ratings, "spread": answer.spreads})
    frame.attrs["processor_seconds"] = seconds
    frame.to_parquet(temporary)
    os.replace(temporary, cell.file)
