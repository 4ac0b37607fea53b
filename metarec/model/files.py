"""A fused recommender in a folder: JSON, arrays and a table, and the digest of each. No file is executed."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

import numpy as np
import pandas as pd
from pydantic import ConfigDict, Field, NonNegativeInt, PositiveInt, ValidationError

import metarec
from metarec.bases import BaseRecommender, HistoryQuery, Learned, base_errors, fit_base, make_base, predict_queries
from metarec.bases.ranking import RankingBase, make_ranking_base
from metarec.config import Config
from metarec.episodes import History, TaskMaker
from metarec.episodes.ranking import RankingSettings, RankingTaskMaker
from metarec.errors import InputError, shown
from metarec.files import make_folder, open_regular
from metarec.model._arrays import MODEL, read_arrays, write_arrays
from metarec.model.fusion import Fusion, FusionConfig
from metarec.model.ranking_recommender import NO_EVENTS, Events, RankingRecommender
from metarec.model.recommender import NO_HISTORY, FusedRecommender
from metarec.ratings import Domain, RatingScale, read_parquet

__all__ = ["DIGESTS", "digest_of", "load_model", "save_model"]

DIGESTS = "digests.json"
"""The file with the sha256 of every other file. Its own sha256 is the model's digest."""

_MODEL, _FACTS, _RATINGS, _ITEMS, _TITLES = (
    "model.json",
    "facts.npz",
    "ratings.parquet",
    "items.parquet",
    "titles.parquet",
)

_FORMAT = 3

Recommender: TypeAlias = FusedRecommender | RankingRecommender

_MEMBERS = ("networks", "stackers")

_PROBES = 20
"""Histories on which a base that is fitted again must repeat its predictions."""


def save_model(
    recommender: Recommender, folder: Path, bases: Mapping[str, Mapping[str, Any]], *, seed: int, items: Any = None
) -> str:
    """Write a recommender to an empty folder, and return its digest.

    The state of each base is kept as arrays. A plug-in's base of ratings without ``state`` and ``restore`` is fitted
    again on the kept ratings whenever the model is loaded, and must then repeat its present predictions.

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
            write_arrays(folder / f"base-{_plain(name)}.npz", _state_of(base, recommender))
    for kind in _MEMBERS:
        for name, arrays in fusion[kind].items():
            write_arrays(folder / _member_file(kind, name), arrays)
    write_arrays(folder / _FACTS, maker.arrays())
    recommender.ratings.assign(fitted_on=recommender.ratings["user"].isin(recommender.fitted_on)).to_parquet(
        folder / _RATINGS, index=False
    )
    if recommender.titles:
        titles = {"item": list(recommender.titles), "title": list(recommender.titles.values())}
        pd.DataFrame(titles).to_parquet(folder / _TITLES, index=False)
    if again and items is not None:
        items.to_parquet(folder / _ITEMS, index=False)
    model = {
        "format": _FORMAT,
        "metarec": metarec.__version__,
        "domain": recommender.domain,
        **_of_task(maker),
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


def load_model(folder: Path, digest: str | None = None) -> Recommender:
    """Read a recommender. Every file is compared with its digest, and every value with its rule, before it is used.

    Args:
        digest: the value that :func:`save_model` returned, from another source than the folder.

    Raises:
        InputError: it is not a model, of another format, or not as it was written; a file that is a link, a pipe or the
            like, or too large; a value that breaks its rule.
    """
    files = _read(folder, digest)
    try:
        return _assembled(_Files(folder, files))
    except (ValidationError, ValueError, TypeError, LookupError, RuntimeError, ArithmeticError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{folder}: damaged; the model is not loaded: {shown(error, 200)}") from error


class _BaseEntry(Config):
    name: str
    options: dict[str, Any]
    fitted_again: bool


_Path = Literal["low-rank", "vmap", "one-by-one"] | None
"""How an engine computes; a list of them for a network that was fitted several times."""


class _FusionEntry(Config):
    config: FusionConfig
    seed: NonNegativeInt
    shape: tuple[PositiveInt, PositiveInt, PositiveInt]
    weights: dict[str, Annotated[float, Field(ge=0, le=1)]]
    paths: dict[str, _Path | list[_Path]]


class _ModelEntry(Config):
    """The content of ``model.json``."""

    model_config = ConfigDict(allow_inf_nan=False)

    format: int
    metarec: str
    domain: str
    seed: NonNegativeInt
    longest: PositiveInt
    bases: tuple[_BaseEntry, ...] = Field(min_length=1)
    fusion: _FusionEntry


class _RatingEntry(_ModelEntry):
    scale: tuple[float, float]
    now: float | None


class _RankingEntry(_ModelEntry):
    lists: RankingSettings


def _of_task(maker: TaskMaker | RankingTaskMaker) -> dict[str, Any]:
    """The entries of ``model.json`` that a model of the other task does not have."""
    if isinstance(maker, RankingTaskMaker):
        return {"lists": maker.settings.model_dump(mode="json")}
    return {"scale": [maker.scale.low, maker.scale.high], "now": maker.now}


class _Files:
    """The files of a model, which are read already, so that no one can exchange them."""

    def __init__(self, folder: Path, content: Mapping[str, bytes]) -> None:
        self.folder, self._content = folder, content

    def __contains__(self, name: str) -> bool:
        return name in self._content

    def bytes_of(self, name: str) -> bytes:
        if name not in self._content:
            raise InputError(f"{self.folder / name}: missing; the model is not loaded")
        return self._content[name]

    def arrays(self, name: str) -> dict[str, Learned]:
        return read_arrays(self.bytes_of(name), str(self.folder / name))

    def table(self, name: str) -> pd.DataFrame:
        return read_parquet(self.folder / name, self.bytes_of(name))


def _assembled(files: _Files) -> Recommender:
    """The recommender that these files describe."""
    content = json.loads(files.bytes_of(_MODEL))
    if not isinstance(content, dict) or content.get("format") != _FORMAT:
        found = content.get("format") if isinstance(content, dict) else None
        raise InputError(
            f"{files.folder}: the model has format {shown(found)} but this version of metarec reads {_FORMAT}; "
            "run its study again to make a new one"
        )
    ranks = content["fusion"]["config"].get("task") == "ranking"
    model = (_RankingEntry if ranks else _RatingEntry)(**content)
    members = {
        kind: {name: files.arrays(_member_file(kind, name)) for name in getattr(model.fusion.config, kind)}
        for kind in _MEMBERS
    }
    fusion = Fusion.restore({**dict(model.fusion), **members})
    if isinstance(model, _RankingEntry):
        return _ranking_recommender(files, model, fusion)
    return _rating_recommender(files, model, fusion)


def _rating_recommender(files: _Files, model: _RatingEntry, fusion: Fusion) -> FusedRecommender:
    folder, scale = files.folder, RatingScale(*model.scale)
    ratings, fitted_on = _kept_table(files, "rating")
    if not ratings["rating"].between(scale.low, scale.high).all():
        raise InputError(f"{folder / _RATINGS}: ratings must lie in {scale}")
    again = [one.name for one in model.bases if one.fitted_again]
    bases: dict[str, BaseRecommender] = {}
    for one in model.bases:
        if one.fitted_again:
            if _keeps(make_base(one.name, seed=model.seed, **one.options)):
                raise InputError(f"{folder}: the base {one.name} has a state and must not be fitted again")
            items = files.table(_ITEMS) if _ITEMS in files else None
            fit_on = Domain(model.domain, ratings[fitted_on], scale, items)
            bases[one.name] = fit_base(one.name, fit_on, one.options, seed=model.seed)
        else:
            state = files.arrays(f"base-{_plain(one.name)}.npz")
            base = make_base(one.name, seed=model.seed, **one.options)
            with base_errors(one.name, "the loading of its state"):
                bases[one.name] = base.restore(state)  # type: ignore[attr-defined]  # its state was kept
    recommender = FusedRecommender(
        TaskMaker.from_arrays(files.arrays(_FACTS), scale, bases, model.now),
        fusion,
        model.domain,
        ratings,
        frozenset(ratings["user"][fitted_on]),
        model.longest,
        _kept_titles(files),
    )
    for name in again:
        _compare(folder, name, files.arrays(f"base-{_plain(name)}.npz"), recommender)
    # For a user without ratings and for one with some: the parts must fit each other.
    some = recommender.items[:3]
    history = History(some, np.full(len(some), (scale.low + scale.high) / 2))
    recommender.predict([NO_HISTORY, history], [some, some])
    return recommender


def _ranking_recommender(files: _Files, model: _RankingEntry, fusion: Fusion) -> RankingRecommender:
    events, fitted_on = _kept_table(files, "weight")
    if not (events["weight"] > 0).all():
        raise InputError(f"{files.folder / _RATINGS}: every weight must be > 0")
    bases: dict[str, RankingBase] = {}
    for one in model.bases:
        if one.fitted_again:
            raise InputError(f"{files.folder}: the base {one.name} has a state and must not be fitted again")
        state = files.arrays(f"base-{_plain(one.name)}.npz")
        with base_errors(one.name, "the loading of its state"):
            bases[one.name] = make_ranking_base(one.name, seed=model.seed, **one.options).restore(state)
    recommender = RankingRecommender(
        RankingTaskMaker.from_arrays(files.arrays(_FACTS), bases, model.lists, seed=model.seed),
        fusion,
        model.domain,
        events,
        frozenset(events["user"][fitted_on]),
        model.longest,
        _kept_titles(files),
    )
    # For a user without events and for one with some: the parts must fit each other.
    some = recommender.items[:3]
    recommender.lists([NO_EVENTS, Events.added_up(some, np.ones(len(some)))])
    return recommender


def _kept_table(files: _Files, value: Literal["rating", "weight"]) -> tuple[pd.DataFrame, np.ndarray]:
    """The ratings or events of the users, and [n] whether the bases were fitted on each."""
    path, table = files.folder / _RATINGS, files.table(_RATINGS)
    columns = ["user", "item", value, *(["timestamp"] if "timestamp" in table else []), "fitted_on"]
    if sorted(table.columns) != sorted(columns):
        raise InputError(f"{path}: the columns must be {columns} but are {shown(list(table.columns))}")
    texts = table[["user", "item"]]
    if texts.isna().to_numpy().any() or not texts.map(lambda one: isinstance(one, str)).to_numpy().all():
        raise InputError(f"{path}: users and items must be texts")
    if table["fitted_on"].dtype != bool:
        raise InputError(f"{path}: fitted_on must be true or false in every row")
    if not np.isfinite(table[columns[2:-1]].to_numpy(dtype=np.float64)).all():
        raise InputError(f"{path}: each {value} and each time must be finite")
    return table.drop(columns="fitted_on").astype({"user": object, "item": object}), table["fitted_on"].to_numpy()


def _kept_titles(files: _Files) -> dict[str, str]:
    """Item -> title; empty where the model has no titles."""
    if _TITLES not in files:
        return {}
    table = files.table(_TITLES)
    if list(table.columns) != ["item", "title"] or not table.map(lambda one: isinstance(one, str)).to_numpy().all():
        raise InputError(f"{files.folder / _TITLES}: the columns must be item and title, with texts")
    return dict(zip(table["item"], table["title"], strict=True))


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


def _keeps(base: BaseRecommender | RankingBase) -> bool:
    return hasattr(base, "state") and hasattr(base, "restore")


def _state_of(base: BaseRecommender | RankingBase, recommender: Recommender) -> dict[str, Learned]:
    """What is kept of a base: its state, or predictions that it must repeat."""
    if not _keeps(base) and isinstance(recommender, FusedRecommender) and not isinstance(base, RankingBase):
        return _predictions(base, _probes(recommender))
    state: dict[str, Learned] = base.state()  # type: ignore[union-attr]  # a base of ratings that keeps
    return state


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
