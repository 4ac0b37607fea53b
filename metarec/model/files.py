"""A fused recommender in a folder: JSON, arrays and a table, and the digest of each. No file is executed."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pandas as pd
from pydantic import ConfigDict, Field, NonNegativeInt, PositiveInt, ValidationError

import metarec
from metarec.bases import BaseRecommender, HistoryQuery, Learned, base_errors, fit_base, make_base, predict_queries
from metarec.config import Config
from metarec.episodes import History, TaskMaker
from metarec.errors import InputError, shown
from metarec.files import make_folder, open_regular
from metarec.model._arrays import MODEL, read_arrays, write_arrays
from metarec.model.fusion import Fusion, FusionConfig
from metarec.model.recommender import NO_HISTORY, FusedRecommender
from metarec.ratings import Domain, RatingScale, read_parquet

__all__ = ["DIGESTS", "digest_of", "load_model", "save_model"]

DIGESTS = "digests.json"
"""The file with the sha256 of every other file. Its own sha256 is the model's digest."""

_MODEL, _FACTS, _RATINGS, _ITEMS = "model.json", "facts.npz", "ratings.parquet", "items.parquet"

_FORMAT = 3

_MEMBERS = ("networks", "stackers")

_PROBES = 20
"""Histories on which a base that is fitted again must repeat its predictions."""


def save_model(
    recommender: FusedRecommender, folder: Path, bases: Mapping[str, Mapping[str, Any]], *, seed: int, items: Any = None
) -> str:
    """Write a recommender to an empty folder, and return its digest.

    The state of each base is kept as arrays. A plug-in's base without ``state`` and ``restore`` is fitted again on the
    kept ratings whenever the model is loaded, and must then repeat its present predictions.

    Args:
        bases: name -> the options of each base. seed: of the bases.
        items: the domain's table of item features, for bases that are fitted again; None where there is none.

    Raises:
        InputError: a plug-in's baseline without ``state``, a base that raised an error, or two names that make one name
            of a file.
    """
    maker, fusion = recommender.maker, recommender.fusion.used().state()
    _check_files(maker.bases, fusion)
    make_folder(folder)
    again = [name for name, base in maker.bases.items() if not _keeps(base)]
    for name, base in maker.bases.items():
        with base_errors(name, "the saving of its state"):
            state = _predictions(base, _probes(recommender)) if name in again else base.state()  # type: ignore[attr-defined]
        write_arrays(folder / f"base-{_plain(name)}.npz", state)
    for kind in _MEMBERS:
        for name, arrays in fusion[kind].items():
            write_arrays(folder / _member_file(kind, name), arrays)
    write_arrays(folder / _FACTS, maker.arrays())
    recommender.ratings.assign(fitted_on=recommender.ratings["user"].isin(recommender.fitted_on)).to_parquet(
        folder / _RATINGS, index=False
    )
    if again and items is not None:
        items.to_parquet(folder / _ITEMS, index=False)
    model = {
        "format": _FORMAT,
        "metarec": metarec.__version__,
        "domain": recommender.domain,
        "scale": [maker.scale.low, maker.scale.high],
        "now": maker.now,
        "seed": seed,
        "longest": recommender.max_history,
        "bases": [{"name": name, "options": dict(bases[name]), "fitted_again": name in again} for name in maker.bases],
        "fusion": {key: value for key, value in fusion.items() if key not in _MEMBERS},
    }
    (folder / _MODEL).write_text(json.dumps(model, indent=2) + "\n", encoding="utf-8")
    digests = {path.name: _sha256(path) for path in sorted(folder.iterdir()) if path.name != DIGESTS}
    (folder / DIGESTS).write_text(json.dumps(digests, indent=2) + "\n", encoding="utf-8")
    return digest_of(folder)


def digest_of(folder: Path) -> str:
    """The digest of a model: of the list of its files' digests."""
    return _sha256(folder / DIGESTS)


def load_model(folder: Path, digest: str | None = None) -> FusedRecommender:
    """Read a recommender. Every file is compared with its digest, and every value with its rule, before it is used.

    Args:
        digest: the value that :func:`save_model` returned, from another source than the folder.

    Raises:
        InputError: it is not a model, of another format, or not as it was written; a file that is a link, a pipe or the
            like, or too large; a value that breaks its rule.
    """
    files = _read(folder, digest)
    try:
        return _assembled(folder, files)
    except (ValidationError, ValueError, TypeError, LookupError, RuntimeError, ArithmeticError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{folder}: damaged; the model is not loaded: {shown(error, 200)}") from error


class _BaseEntry(Config):
    name: str
    options: dict[str, Any]
    fitted_again: bool


class _FusionEntry(Config):
    config: FusionConfig
    seed: NonNegativeInt
    shape: tuple[PositiveInt, PositiveInt, PositiveInt]
    weights: dict[str, Annotated[float, Field(ge=0, le=1)]]
    paths: dict[str, Literal["low-rank", "vmap"] | None]


class _ModelEntry(Config):
    """The content of ``model.json``."""

    model_config = ConfigDict(allow_inf_nan=False)

    format: int
    metarec: str
    domain: str
    scale: tuple[float, float]
    now: float | None
    seed: NonNegativeInt
    longest: PositiveInt
    bases: tuple[_BaseEntry, ...] = Field(min_length=1)
    fusion: _FusionEntry


def _assembled(folder: Path, files: Mapping[str, bytes]) -> FusedRecommender:
    """The recommender that these files describe. They must be read already, so that no one can exchange them."""
    content = json.loads(files[_MODEL])
    if not isinstance(content, dict) or content.get("format") != _FORMAT:
        found = content.get("format") if isinstance(content, dict) else None
        raise InputError(
            f"{folder}: the model has format {shown(found)} but this version of metarec reads {_FORMAT}; "
            "run its study again to make a new one"
        )
    model = _ModelEntry(**content)

    def arrays(name: str) -> dict[str, Learned]:
        if name not in files:
            raise InputError(f"{folder / name}: missing; the model is not loaded")
        return read_arrays(files[name], str(folder / name))

    scale = RatingScale(*model.scale)
    ratings, fitted_on = _ratings(folder, files, scale)
    again = [one.name for one in model.bases if one.fitted_again]
    bases: dict[str, BaseRecommender] = {}
    for one in model.bases:
        if one.fitted_again:
            if _keeps(make_base(one.name, seed=model.seed, **one.options)):
                raise InputError(f"{folder}: the base {one.name} has a state and must not be fitted again")
            items = _table(folder, files, _ITEMS) if _ITEMS in files else None
            fit_on = Domain(model.domain, ratings[fitted_on], scale, items)
            bases[one.name] = fit_base(one.name, fit_on, one.options, seed=model.seed)
        else:
            state = arrays(f"base-{_plain(one.name)}.npz")
            base = make_base(one.name, seed=model.seed, **one.options)
            with base_errors(one.name, "the loading of its state"):
                bases[one.name] = base.restore(state)  # type: ignore[attr-defined]  # its state was kept
    members = {
        kind: {name: arrays(_member_file(kind, name)) for name in getattr(model.fusion.config, kind)}
        for kind in _MEMBERS
    }
    recommender = FusedRecommender(
        TaskMaker.from_arrays(arrays(_FACTS), scale, bases, model.now),
        Fusion.restore({**dict(model.fusion), **members}),
        model.domain,
        ratings,
        frozenset(ratings["user"][fitted_on]),
        model.longest,
    )
    for name in again:
        _compare(folder, name, arrays(f"base-{_plain(name)}.npz"), recommender)
    _try(recommender)
    return recommender


def _try(recommender: FusedRecommender) -> None:
    """Predict for a user without ratings and for one with some: the parts must fit each other."""
    items = recommender.items[:3]
    middle = (recommender.maker.scale.low + recommender.maker.scale.high) / 2
    recommender.predict([NO_HISTORY, History(items, np.full(len(items), middle))], [items, items])


def _ratings(folder: Path, files: Mapping[str, bytes], scale: RatingScale) -> tuple[pd.DataFrame, np.ndarray]:
    """The ratings of the users, and [n] whether the bases were fitted on each."""
    table = _table(folder, files, _RATINGS)
    columns = ["user", "item", "rating", *(["timestamp"] if "timestamp" in table else []), "fitted_on"]
    if sorted(table.columns) != sorted(columns):
        raise InputError(f"{folder / _RATINGS}: the columns must be {columns} but are {shown(list(table.columns))}")
    texts = table[["user", "item"]]
    if texts.isna().to_numpy().any() or not texts.map(lambda one: isinstance(one, str)).to_numpy().all():
        raise InputError(f"{folder / _RATINGS}: users and items must be texts")
    if table["fitted_on"].dtype != bool:
        raise InputError(f"{folder / _RATINGS}: fitted_on must be true or false in every row")
    numbers = table[columns[2:-1]].to_numpy(dtype=np.float64)
    if not np.isfinite(numbers).all() or not table["rating"].between(scale.low, scale.high).all():
        raise InputError(f"{folder / _RATINGS}: ratings must lie in {scale}, and times be finite")
    return table.drop(columns="fitted_on").astype({"user": object, "item": object}), table["fitted_on"].to_numpy()


def _table(folder: Path, files: Mapping[str, bytes], name: str) -> pd.DataFrame:
    if name not in files:
        raise InputError(f"{folder / name}: missing; the model is not loaded")
    return read_parquet(folder / name, files[name])


def _read(folder: Path, digest: str | None) -> dict[str, bytes]:
    """The content of each file of a model, compared with its digest."""
    if not (folder / DIGESTS).is_file():
        raise InputError(f"{folder}: not a model of metarec, which has a file {DIGESTS}")
    files, left = {}, MODEL.most
    for path in sorted(folder.iterdir()):
        if path.is_symlink():
            raise InputError(f"{path}: is a link; a model has regular files only")
        with open_regular(path) as file:
            MODEL.check(MODEL.most - left + os.fstat(file.fileno()).st_size, f"{folder}: the model")
            files[path.name] = MODEL.read(file, f"{folder}: the model")
        left -= len(files[path.name])
    listed = files.pop(DIGESTS)
    if digest is not None and hashlib.sha256(listed).hexdigest() != digest:
        raise InputError(f"{folder}: not the model that was registered: its digest differs; it is not loaded")
    try:
        digests = dict(json.loads(listed))
    except (ValueError, TypeError, RecursionError):
        raise InputError(f"{folder / DIGESTS}: damaged; the model is not loaded") from None
    for name in sorted(files.keys() | digests.keys()):
        if name not in files or digests.get(name) != hashlib.sha256(files[name]).hexdigest():
            own = folder / shown(name)
            raise InputError(f"{own}: not the file that was written: its digest differs; it is not loaded")
    if _MODEL not in files:
        raise InputError(f"{folder}: {_MODEL} is missing; the model is not loaded")
    return files


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _plain(name: str) -> str:
    """A name as a part of a file name."""
    return "".join(letter if letter.isalnum() or letter in "-_." else "_" for letter in name)


def _member_file(kind: str, name: str) -> str:
    """The file of a member of the fusion; `kind` is one of _MEMBERS."""
    return f"{kind[:-1]}-{_plain(name)}.npz"


def _check_files(bases: Iterable[str], fusion: Mapping[str, Any]) -> None:
    """Raise InputError where two members would be kept in one file."""
    files: dict[str, str] = {}
    named = [(name, f"base-{_plain(name)}.npz") for name in bases]
    named += [(name, _member_file(kind, name)) for kind in _MEMBERS for name in fusion[kind]]
    for name, file in named:
        if file in files:
            raise InputError(f'"{files[file]}" and "{name}" would both be kept in {file}; rename one of them')
        files[file] = name


def _keeps(base: BaseRecommender) -> bool:
    return hasattr(base, "state") and hasattr(base, "restore")


def _probes(recommender: FusedRecommender) -> list[HistoryQuery]:
    """Queries that check a base: some users' half histories, with their other items."""
    made = []
    for user in recommender.users[:_PROBES]:
        history = recommender.history_of(user)
        half = len(history.items) // 2
        made.append(HistoryQuery(history.items[:half], history.ratings[:half], history.items[half:]))
    return made


def _predictions(base: BaseRecommender, probes: list[HistoryQuery]) -> dict[str, Learned]:
    return {"predictions": np.concatenate(predict_queries(base, probes))}


def _compare(folder: Path, name: str, stored: Mapping[str, Learned], recommender: FusedRecommender) -> None:
    kept = stored["predictions"]
    now = _predictions(recommender.maker.bases[name], _probes(recommender))["predictions"]
    if not np.allclose(np.asarray(kept), np.asarray(now), rtol=1e-4, atol=1e-6, equal_nan=True):
        raise InputError(
            f"{folder}: the base {name} was fitted again and predicts otherwise than when the model was kept; "
            "install the version of its package that made the model, or give it state() and restore()"
        )
