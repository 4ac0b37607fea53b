"""A fused recommender in a folder: JSON, arrays and a table, and the digest of each. No file is executed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import metarec
from metarec.bases import BaseRecommender, HistoryQuery, Learned, make_base, predict_queries
from metarec.episodes import TaskMaker
from metarec.errors import InputError
from metarec.files import make_folder
from metarec.model._arrays import read_arrays, write_arrays
from metarec.model.fusion import Fusion
from metarec.model.recommender import FusedRecommender
from metarec.ratings import Domain, RatingScale

__all__ = ["DIGESTS", "digest_of", "load_model", "save_model"]

DIGESTS = "digests.json"
"""The file with the sha256 of every other file. Its own sha256 is the model's digest."""

_MODEL, _FACTS, _RATINGS, _ITEMS = "model.json", "facts.npz", "ratings.parquet", "items.parquet"

_FORMAT = 2

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
        InputError: a plug-in's baseline without ``state``.
    """
    make_folder(folder)
    maker, fusion = recommender.maker, recommender.fusion.used().state()
    again = [name for name, base in maker.bases.items() if not _keeps(base)]
    for name, base in maker.bases.items():
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
    """Read a recommender. Every file is compared with its digest first.

    Args:
        digest: the value that :func:`save_model` returned, from another source than the folder.

    Raises:
        InputError: it is not a model, of another format, or not as it was written.
    """
    _check(folder, digest)
    model = json.loads((folder / _MODEL).read_text(encoding="utf-8"))
    if model.get("format") != _FORMAT:
        raise InputError(
            f"{folder}: the model has format {model.get('format')} but this version of metarec reads {_FORMAT}; "
            "run its study again to make a new one"
        )
    table = pd.read_parquet(folder / _RATINGS)
    ratings = table.drop(columns="fitted_on").astype({"user": object, "item": object})
    scale = RatingScale(*model["scale"])
    bases: dict[str, BaseRecommender] = {}
    for one in model["bases"]:
        base = make_base(one["name"], seed=model["seed"], **one["options"])
        if one["fitted_again"]:
            features = pd.read_parquet(folder / _ITEMS) if (folder / _ITEMS).exists() else None
            bases[one["name"]] = base.fit(Domain(model["domain"], ratings[table["fitted_on"]], scale, features))
        else:
            bases[one["name"]] = base.restore(  # type: ignore[attr-defined]  # its state was kept
                read_arrays(folder / f"base-{_plain(one['name'])}.npz")
            )
    facts = read_arrays(folder / _FACTS)
    members = {
        kind: {name: read_arrays(folder / _member_file(kind, name)) for name in model["fusion"]["config"][kind]}
        for kind in _MEMBERS
    }
    recommender = FusedRecommender(
        TaskMaker.from_arrays(facts, scale, bases, model["now"]),
        Fusion.restore({**model["fusion"], **members}),
        model["domain"],
        ratings,
        frozenset(ratings["user"][table["fitted_on"]]),
        model["longest"],
    )
    for one in model["bases"]:
        if one["fitted_again"]:
            _compare(folder, one["name"], recommender)
    return recommender


def _check(folder: Path, digest: str | None) -> None:
    if not (folder / DIGESTS).is_file():
        raise InputError(f"{folder}: not a model of metarec, which has a file {DIGESTS}")
    if digest is not None and digest_of(folder) != digest:
        raise InputError(f"{folder}: not the model that was registered: its digest differs; it is not loaded")
    try:
        digests = dict(json.loads((folder / DIGESTS).read_text(encoding="utf-8")))
    except ValueError:
        raise InputError(f"{folder / DIGESTS}: damaged; the model is not loaded") from None
    there = {path.name for path in folder.iterdir()} - {DIGESTS}
    for name in sorted(there | set(digests)):
        if name not in there or digests.get(name) != _sha256(folder / name):
            raise InputError(f"{folder / name}: not the file that was written: its digest differs; it is not loaded")
    if _MODEL not in there:
        raise InputError(f"{folder}: {_MODEL} is missing; the model is not loaded")


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _plain(name: str) -> str:
    """A name as a part of a file name."""
    return "".join(letter if letter.isalnum() or letter in "-_." else "_" for letter in name)


def _member_file(kind: str, name: str) -> str:
    """The file of a member of the fusion; `kind` is one of _MEMBERS."""
    return f"{kind[:-1]}-{_plain(name)}.npz"


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


def _compare(folder: Path, name: str, recommender: FusedRecommender) -> None:
    kept = read_arrays(folder / f"base-{_plain(name)}.npz")["predictions"]
    now = _predictions(recommender.maker.bases[name], _probes(recommender))["predictions"]
    if not np.allclose(np.asarray(kept), np.asarray(now), rtol=1e-4, atol=1e-6, equal_nan=True):
        raise InputError(
            f"{folder}: the base {name} was fitted again and predicts otherwise than when the model was kept; "
            "install the version of its package that made the model, or give it state() and restore()"
        )
