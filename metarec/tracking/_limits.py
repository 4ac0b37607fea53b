"""What an MLflow store accepts: names, lengths, and how much in one call."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from metarec.errors import masked, printable

__all__ = [
    "DATASET_NAME_LENGTH",
    "DATASET_SOURCE_LENGTH",
    "DESCRIPTION_LENGTH",
    "DIGEST_LENGTH",
    "MODEL_NAME_LENGTH",
    "PARAM_LENGTH",
    "RUN_NAME_LENGTH",
    "TAG_LENGTH",
    "Batch",
    "batches",
    "clean_key",
    "cut",
    "first_line",
]

METRICS_PER_CALL = 1000
PARAMS_PER_CALL = 100
TAGS_PER_CALL = 100
ENTITIES_PER_CALL = 1000

KEY_LENGTH = 250
PARAM_LENGTH = 6000
TAG_LENGTH = 8000
DIGEST_LENGTH = 36
DATASET_NAME_LENGTH = 500
DATASET_SOURCE_LENGTH = 65535
RUN_NAME_LENGTH = 250
MODEL_NAME_LENGTH = 256
DESCRIPTION_LENGTH = 5000


class Batch(NamedTuple):
    """The content of one call."""

    metrics: Sequence[Any]
    params: Sequence[Any]
    tags: Sequence[Any]


def batches(metrics: Sequence[Any] = (), params: Sequence[Any] = (), tags: Sequence[Any] = ()) -> Iterator[Batch]:
    """Cut everything that is to be written into as few calls as the limits of one call allow."""
    while metrics or params or tags:
        some_params, params = params[:PARAMS_PER_CALL], params[PARAMS_PER_CALL:]
        some_tags, tags = tags[:TAGS_PER_CALL], tags[TAGS_PER_CALL:]
        room = min(METRICS_PER_CALL, ENTITIES_PER_CALL - len(some_params) - len(some_tags))
        some_metrics, metrics = metrics[:room], metrics[room:]
        yield Batch(some_metrics, some_params, some_tags)


def clean_key(key: str) -> str:
    """A name that the store accepts: a character that it refuses becomes its code, so names stay different.

    "@" becomes "_at_", as in MLflow's own names of metrics of lists. The end of a long name becomes a hash.

    >>> clean_key("test/movies/rmse"), clean_key("ndcg@10"), clean_key("top#10"), clean_key("../rmse")
    ('test/movies/rmse', 'ndcg_at_10', 'top_23_10', '_2e__2e_/rmse')
    """
    key = key.replace("@", "_at_")
    key = re.sub(r"[^\w./ :-]", lambda match: f"_{ord(match[0]):x}_", key)
    # The store reads a name as a path and refuses one with empty, "." or ".." steps.
    steps = [step.replace(".", "_2e_") if step in {".", ".."} else step for step in key.split("/")]
    key = "/".join(step or "_" for step in steps)
    if len(key) <= KEY_LENGTH:
        return key
    ending = "_" + hashlib.sha256(key.encode()).hexdigest()[:8]
    return key[: KEY_LENGTH - len(ending)].rstrip("/.") + ending


def cut(value: object, length: int) -> str:
    """The text of a value as a store can keep it, shortened to `length` characters with a mark that says so.

    Escapes replace control characters. Some stores refuse NUL and half characters.

    >>> cut("x" * 100, 40)
    'xxxxxxxxxxxxxxxxxxxxx … (100 characters)'
    """
    text = printable(str(value), keep="\n\t")
    if len(text) <= length:
        return text
    mark = f" … ({len(text)} characters)"
    return text[: length - len(mark)] + mark


def first_line(error: BaseException | None) -> str:
    """The first line of an error's message, masked: the others are about the code that raised it."""
    return printable(masked(str(error).strip().split("\n")[0]))
