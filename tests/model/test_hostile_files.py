"""Model files that somebody has made: each is refused in one line before it is used, whatever it holds.

The digests fit, because a person who changes a file can also rewrite them.
"""

import io
import json
import os
import shutil
import zipfile

import numpy as np
import pandas as pd
import pytest

from metarec.errors import InputError
from metarec.fusion._trees import Trees
from metarec.model import load_model
from metarec.model._arrays import read_arrays, write_arrays
from tests.model.test_model import with_digests
from tests.support.small_model import FOLDER as MODEL


@pytest.fixture
def inner(tmp_path):
    """A copy of a small model's own files."""
    return shutil.copytree(MODEL / "data" / "metarec", tmp_path / "model")


def changed(inner, name, change):
    """Rewrite one file of arrays."""
    arrays = read_arrays((inner / name).read_bytes(), name)
    write_arrays(inner / name, change(dict(arrays)) or arrays)


def refused(inner, rule):
    with_digests(inner)
    with pytest.raises(InputError, match=rule) as raised:
        load_model(inner)
    assert "\n" not in str(raised.value)


def set_first(name, value):
    def change(arrays):
        array = arrays[name]
        (array.data if hasattr(array, "indptr") else array).reshape(-1)[:1] = value
        return arrays

    return change


def without_last_row(name):
    def change(arrays):
        return {**arrays, name: arrays[name][:-1]}

    return change


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e300])
@pytest.mark.parametrize(
    ("file", "array"),
    [
        ("base-bias.npz", "levels"),
        ("base-item-knn.npz", "similarities"),
        ("base-item-knn.npz", "means"),
        ("base-user-knn.npz", "vectors"),
        ("base-biased-mf.npz", "vectors"),
        ("base-autoencoder.npz", "weights"),
        ("facts.npz", "table"),
        ("facts.npz", "algorithm_mean"),
        ("stacker-gbm.npz", "values"),
        ("network-network.npz", ""),
    ],
)
def test_numbers_that_are_not_finite_are_refused(inner, file, array, value):
    name = array or next(iter(read_arrays((inner / file).read_bytes(), "")))
    with np.errstate(over="ignore"):
        changed(inner, file, set_first(name, value))
    refused(inner, r"finite|NaN|must lie in|type|no file of arrays")


@pytest.mark.parametrize(
    ("file", "array"),
    [
        ("base-bias.npz", "levels"),
        ("base-biased-mf.npz", "vectors"),
        ("base-item-knn.npz", "means"),
        ("base-autoencoder.npz", "weights"),
        ("facts.npz", "items"),
        ("facts.npz", "first"),
        ("facts.npz", "algorithm_spread"),
        ("stacker-gbm.npz", "left"),
    ],
)
def test_arrays_of_another_shape_are_refused(inner, file, array):
    changed(inner, file, without_last_row(array))
    refused(inner, r"shape|weights for")


def with_sparse(part, value):
    def change(content):
        stored = dict(np.load(io.BytesIO(content)))
        stored[f"similarities//{part}"] = value(stored[f"similarities//{part}"])
        file = io.BytesIO()
        np.savez_compressed(file, **stored)
        return file.getvalue()

    return change


@pytest.mark.parametrize(
    "change",
    [
        with_sparse("indices", lambda one: one + 10**6),
        with_sparse("indices", lambda one: one - 10**6),
        with_sparse("indices", lambda one: one.astype(float)),
        with_sparse("indptr", lambda one: one[::-1]),
        with_sparse("indptr", lambda one: one + 1),
        with_sparse("indptr", lambda one: one * 0),
        with_sparse("data", lambda one: one[:-1]),
        with_sparse("shape", lambda one: one * 2),
        with_sparse("shape", lambda one: -one),
        with_sparse("shape", lambda one: one[:1]),
    ],
)
def test_a_sparse_array_refers_to_its_own_entries(inner, change):
    """Compiled code follows these numbers: wrong ones ended the process."""
    path = inner / "base-item-knn.npz"
    path.write_bytes(change(path.read_bytes()))
    refused(inner, r"must refer to entries within|must be a sparse array")


def node(name, place, value):
    def change(arrays):
        arrays[name][place] = value
        return arrays

    return change


@pytest.mark.parametrize(
    "change",
    [
        node("left", 0, 0),
        node("left", 1, 0),
        node("right", 0, -1),
        node("right", 0, 10**9),
        node("features", 0, 10**6),
        node("features", 0, -1),
        node("roots", 0, 10**6),
        node("thresholds", 0, np.nan),
    ],
)
def test_trees_that_are_none_are_refused(inner, change):
    changed(inner, "stacker-gbm.npz", change)
    refused(inner, r"must come after|must lie in|does not fit|NaN")


def test_a_chain_of_splits_is_too_deep():
    nodes = 2001
    own = np.arange(nodes)
    split = (own % 2 == 0) & (own < nodes - 1)
    arrays = {
        "roots": np.zeros(1, int),
        "features": np.zeros(nodes, int),
        "thresholds": np.zeros(nodes),
        "left": np.where(split, own + 1, own),
        "right": np.where(split, own + 2, own),
        "values": np.zeros(nodes),
    }
    with pytest.raises(InputError, match="at most 100 splits in a row"):
        Trees.restore(arrays)


def test_a_few_bytes_that_become_many_are_refused(inner, monkeypatch):
    monkeypatch.setenv("METAREC_MAX_MODEL_BYTES", str(32 << 20))
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as stored:
        stored.writestr("levels.npy", bytes(33 << 20))
    (inner / "base-bias.npz").write_bytes(file.getvalue())
    refused(inner, "METAREC_MAX_MODEL_BYTES")


def test_the_limit_is_set_by_the_environment(inner, monkeypatch):
    with_digests(inner)
    load_model(inner)
    monkeypatch.setenv("METAREC_MAX_MODEL_BYTES", "10000")
    with pytest.raises(InputError, match="METAREC_MAX_MODEL_BYTES=10,000"):
        load_model(inner)


def test_an_array_that_claims_a_size_is_refused(inner):
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000,), }"
    content = np.lib.format.magic(1, 0) + len(header).to_bytes(2, "little") + header
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as stored:
        stored.writestr("levels.npy", content)
    (inner / "base-bias.npz").write_bytes(file.getvalue())
    refused(inner, "must have the 8000000000000 bytes of its shape but has 0")


@pytest.mark.parametrize("kind", ["link", "pipe", "folder", "link outside"])
def test_only_regular_files_are_read(inner, tmp_path, kind):
    path = inner / "facts.npz"
    (tmp_path / "facts.npz").write_bytes(path.read_bytes())
    path.unlink()
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to(tmp_path / "facts.npz" if kind == "link" else "/dev/zero")
    with pytest.raises(InputError, match=r"facts\.npz: is (a link|a named pipe|a folder)"):
        load_model(inner)


def edited(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


MODELS = {
    "brackets": lambda _: "[" * 10**6,
    "a list": lambda _: "[]",
    "a number": lambda _: "3",
    "no JSON": lambda _: "{",
    "digits": lambda _: '{"format": ' + "9" * 10**5 + "}",
    "no bases": lambda model: {**model, "bases": []},
    "a base that is not there": lambda model: {**model, "bases": [{**model["bases"][0], "name": "none"}]},
    "an option that is not there": lambda model: {
        **model,
        "bases": [{**model["bases"][0], "options": {"x": 1}}, *model["bases"][1:]],
    },
    "a base that is fitted again": lambda model: {
        **model,
        "bases": [{**model["bases"][0], "fitted_again": True}, *model["bases"][1:]],
    },
    "a base less": lambda model: {**model, "bases": model["bases"][1:]},
    "a scale of one point": lambda model: {**model, "scale": [1.0, 1.0]},
    "a scale of NaN": lambda model: {**model, "scale": [float("nan"), 5.0]},
    "text for a scale": lambda model: {**model, "scale": "1..5"},
    "a key too many": lambda model: {**model, "more": 1},
    "a key less": lambda model: {key: value for key, value in model.items() if key != "longest"},
    "an infinite time": lambda model: {**model, "now": float("inf")},
    "weights below 0": lambda model: fusion(
        model, weights={name: -one for name, one in model["fusion"]["weights"].items()}
    ),
    "no weights": lambda model: fusion(model, weights={}),
    "weights of more than 1": lambda model: fusion(model, weights=dict.fromkeys(model["fusion"]["weights"], 1.0)),
    "another shape": lambda model: fusion(model, shape=[1, 2, 3]),
    "a huge network": lambda model: wide(model, 10**9),
    "a path that is not there": lambda model: fusion(model, paths=dict.fromkeys(model["fusion"]["paths"], "other")),
}


def fusion(model, **changes):
    return {**model, "fusion": {**model["fusion"], **changes}}


def wide(model, hidden):
    config = model["fusion"]["config"]
    networks = {
        name: {**own, "options": {**own["options"], "hidden_dim": hidden}} for name, own in config["networks"].items()
    }
    return fusion(model, config={**config, "networks": networks})


@pytest.mark.parametrize("what", MODELS)
def test_a_description_that_breaks_a_rule_is_refused(inner, what):
    path = inner / "model.json"
    made = MODELS[what](json.loads(path.read_text()))
    path.write_text(made if isinstance(made, str) else json.dumps(made))
    refused(inner, ".")


TABLES = {
    "no parquet": lambda _: b"PAR1",
    "another column": lambda table: table.assign(more=1),
    "no users": lambda table: table.drop(columns="user"),
    "a number for a user": lambda table: table.assign(user=1),
    "a missing item": lambda table: table.assign(item=None),
    "NaN": lambda table: table.assign(rating=np.nan),
    "a rating outside the scale": lambda table: table.assign(rating=1e308),
    "text for a rating": lambda table: table.assign(rating="good"),
    "numbers for flags": lambda table: table.assign(fitted_on=2),
}


@pytest.mark.parametrize("what", TABLES)
def test_a_table_that_breaks_a_rule_is_refused(inner, what):
    path = inner / "ratings.parquet"
    made = TABLES[what](pd.read_parquet(path))
    if isinstance(made, bytes):
        path.write_bytes(made)
    else:
        made.to_parquet(path, index=False)
    refused(inner, ".")


def test_the_digests_are_a_list_of_files(inner):
    for content in ("[" * 10**6, "[1, 2]", "7", "null", '{"a": {}}', ""):
        (inner / "digests.json").write_text(content)
        with pytest.raises(InputError, match=r"damaged|not the file that was written"):
            load_model(inner)
