"""Whatever the files of a model hold: a recommender that predicts finite numbers, or an InputError, nothing else.

A case is one file of a small model, in whose place it is put, with digests that fit.
"""

import io
import json
import os
import shutil
import tempfile
from functools import cache
from pathlib import Path

import numpy as np
from hypothesis import strategies as st

from metarec.model import load_model
from metarec.model._arrays import read_arrays, write_arrays
from metarec.model.mlflow_model import load_from
from tests.model.test_model import with_digests
from tests.support.fuzz import Case, fuzz, kept_cases, mutated
from tests.support.small_model import FOLDER as MODEL

CORPUS = Path(__file__).parent / "corpus" / "models"

PIECES = [
    b"\0" * 8,
    b"\xff" * 8,
    b"NaN",
    b"Infinity",
    b"1e308",
    b"-1",
    b"9" * 400,
    b"[" * 500,
    b"{",
    b"null",
    b'"',
    b"PK",
]
VALUES = [np.nan, np.inf, -np.inf, 0, 1, -1, 2**31 - 1, -(2**31), 2**62, 1e300, 1e-300]


def check(case, folder):
    os.environ.setdefault("METAREC_MAX_MODEL_BYTES", str(1 << 26))
    os.environ.setdefault("METAREC_MAX_TABLE_BYTES", str(1 << 26))
    whole = folder / "model"
    shutil.copytree(MODEL, whole)
    inner = whole / "data" / "metarec"
    if case.name == "MLmodel":
        (whole / case.name).write_bytes(case.content)
        recommender = load_from(str(whole))
    else:
        (inner / case.name).write_bytes(case.content)
        if case.name != "digests.json":
            with_digests(inner)
        recommender = load_model(inner)
    for user in recommender.users[:2]:
        assert np.isfinite(recommender.user(user).predict(recommender.items)).all()


@cache
def files():
    return {path.name: path.read_bytes() for path in (MODEL / "data" / "metarec").iterdir()}


def rewritten(name, change):
    """A file of arrays after a change of its arrays."""
    arrays = change(dict(read_arrays(files()[name], name)))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "arrays.npz"
        write_arrays(path, arrays)
        return Case(name, path.read_bytes())


@st.composite
def arrays(draw):
    """An array with another value, shape or type in the place of one."""
    name = draw(st.sampled_from(sorted(name for name in files() if name.endswith(".npz"))))
    kind = draw(st.sampled_from(["value", "shape", "type", "missing", "part"]))
    value = draw(st.sampled_from(VALUES))

    def change(stored):
        key = draw(st.sampled_from(sorted(stored)))
        old = stored[key]
        if kind == "missing":
            return {other: kept for other, kept in stored.items() if other != key}
        if hasattr(old, "indptr"):
            return (
                {**stored, key: old[: draw(st.integers(0, old.shape[0]))]}
                if kind == "shape"
                else {**stored, key: old * value}
            )
        new = np.array(old)
        if kind == "shape":
            new = draw(st.sampled_from([new.ravel(), new[None], new[..., None], new.T, new[:0] if new.ndim else new]))
        elif kind == "type" and new.dtype.kind in "fiub":
            with np.errstate(all="ignore"):
                new = np.nan_to_num(new).astype(draw(st.sampled_from(["f4", "i8", "u1", "?", "U5"])))
        elif new.size and new.dtype.kind in "fiu":
            with np.errstate(all="ignore"):
                place = draw(st.integers(0, new.size - 1))
                new.reshape(-1)[place] = np.array(value).astype(new.dtype)
        return {**stored, key: new}

    return rewritten(name, change)


@st.composite
def sparse_parts(draw):
    """A part of a sparse array with another number in it."""
    name = draw(st.sampled_from(["base-item-knn.npz", "base-user-knn.npz"]))
    stored = dict(np.load(io.BytesIO(files()[name])))
    key = draw(st.sampled_from(sorted(key for key in stored if "//" in key)))
    part = stored[key]
    with np.errstate(all="ignore"):
        part.reshape(-1)[draw(st.integers(0, part.size - 1))] = np.array(draw(st.sampled_from(VALUES))).astype(
            part.dtype
        )
    if draw(st.booleans()):
        stored[key] = part[: draw(st.integers(0, len(part)))]
    file = io.BytesIO()
    np.savez_compressed(file, **stored)
    return Case(name, file.getvalue())


json_values = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(), st.sampled_from(["", "bias", "all", "vmap", "x" * 300])
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(["name", "a"]), inner, max_size=2)
    ),
    max_leaves=4,
)


@st.composite
def descriptions(draw):
    """model.json with another value in one place."""
    model = json.loads(files()["model.json"])
    place = model
    while True:
        keys = sorted(place) if isinstance(place, dict) else range(len(place))
        key = draw(st.sampled_from(list(keys)))
        if isinstance(place[key], dict | list) and place[key] and draw(st.integers(0, 3)):
            place = place[key]
            continue
        place[key] = draw(json_values)
        return Case("model.json", json.dumps(model).encode())


def cases():
    whole = [Case(name, content) for name, content in files().items()]
    whole.append(Case("MLmodel", (MODEL / "MLmodel").read_bytes()))
    return st.one_of(mutated(whole, PIECES), arrays(), arrays(), sparse_parts(), descriptions())


def test_a_model_of_any_files_predicts_or_is_refused():
    finds = fuzz(check, cases(), CORPUS, examples=60, memory=3 << 30)
    assert not finds, "\n".join(f"{one.case.name}: {one.what}" for one in finds)


def test_the_model_of_the_corpus_is_loaded(tmp_path):
    assert kept_cases(CORPUS)
    check(Case("digests.json", files()["digests.json"]), tmp_path)
