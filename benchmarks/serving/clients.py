"""Questions to a served model with their right answers, and clients that ask them for a while."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import pandas as pd

from metarec.model import FusedRecommender

__all__ = ["Question", "Record", "ask_for", "questions"]

ITEMS = 10
"""In each question."""

LENGTHS = (0, 1, 3, 10, 30, 100)
"""Of the histories of new users."""

TIMEOUT_S = 30.0


class Question(NamedTuple):
    """The body of a request, and the predictions that are right."""

    body: bytes
    expected: list[float]


@dataclass
class Record:
    """What clients saw: seconds of each answer, and the number of errors and of wrong answers."""

    seconds: list[float] = field(default_factory=list)
    errors: int = 0
    wrong: int = 0

    def add(self, other: Record) -> None:
        self.seconds += other.seconds
        self.errors += other.errors
        self.wrong += other.wrong


def questions(recommender: FusedRecommender, count: int, seed: int = 0) -> list[Question]:
    """Half of the questions are of users of the model, half of new users with short and long histories."""
    rng = np.random.default_rng(seed)
    items, scale = recommender.items, recommender.maker.scale
    made = []
    for number in range(count):
        asked = rng.choice(items, min(ITEMS, len(items)), replace=False)
        if number % 2:
            user = str(rng.choice(recommender.users))
            rows = [{"item": item, "user": user} for item in asked]
            model = recommender.user(user)
        else:
            length = min(LENGTHS[number // 2 % len(LENGTHS)], len(items))
            rated = rng.choice(items, length, replace=False)
            history = pd.DataFrame({"item": rated, "rating": rng.uniform(scale.low, scale.high, length)})
            rows = [{"item": item, "history": history.to_dict("records")} for item in asked]
            model = recommender.adapt(history)
        body = json.dumps({"dataframe_records": rows}).encode()
        made.append(Question(body, model.predict(asked).tolist()))
    return made


def ask_for(port: int, asked: Sequence[Question], *, clients: int, seconds: float) -> tuple[Record, float]:
    """Ask from `clients` threads, each over a connection that stays open. What they saw, and the seconds it took."""
    records = [Record() for _ in range(clients)]
    began = time.perf_counter()
    threads = [
        threading.Thread(target=_client, args=(port, asked[number:], began + seconds, records[number]))
        for number in range(clients)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    together = Record()
    for record in records:
        together.add(record)
    return together, time.perf_counter() - began


def _client(port: int, asked: Sequence[Question], until: float, record: Record) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S)
    number = 0
    while time.perf_counter() < until:
        question = asked[number % len(asked)]
        number += 1
        began = time.perf_counter()
        try:
            connection.request("POST", "/invocations", question.body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            content = answer.read()
        except (OSError, http.client.HTTPException):
            record.errors += 1
            connection.close()
            continue
        record.seconds.append(time.perf_counter() - began)
        if answer.status != 200:
            record.errors += 1
        elif [row["prediction"] for row in json.loads(content)["predictions"]] != question.expected:
            record.wrong += 1
    connection.close()
