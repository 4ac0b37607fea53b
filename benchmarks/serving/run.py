"""Serve a model, ask it from 1, 2, 4 and 8 clients, and compare every answer with the model's own, bit by bit.

The last round is the longest: the memory of the server must not grow after its first minute.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import psutil
import typer

from benchmarks.common.command import ending_plainly, make_folders
from benchmarks.common.folders import RESULTS, ROOT
from benchmarks.common.machine import describe_run
from benchmarks.serving.clients import Question, ask_for, questions
from benchmarks.study.servers import free_port
from metarec.errors import InputError

__all__ = ["main", "measure"]

START_S = 120.0
SAMPLE_S = 5.0
QUESTIONS = 240


def main(
    model: Annotated[str, typer.Argument(help="What metarec serve takes: a folder, or models:/NAME@champion.")],
    tracking_uri: Annotated[str | None, typer.Option(metavar="URI", help="MLflow's store.")] = None,
    clients: Annotated[str, typer.Option(metavar="N,N", help="How many clients ask in each round.")] = "1,2,4,8",
    seconds: Annotated[float, typer.Option(metavar="S", help="The length of a round.")] = 20.0,
    last: Annotated[float, typer.Option(metavar="S", help="The length of the last round.")] = 120.0,
    workers: Annotated[int, typer.Option(metavar="N", help="Processes of the server.")] = 1,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder of serving.json and serving.md.")] = RESULTS,
) -> None:
    """Measure requests per second and the 99th percentile; exit code 1 after a wrong answer or an error."""
    with ending_plainly(""):
        make_folders(out)
        counts = [int(part) for part in clients.split(",") if part.isdigit() and int(part)]
        if not counts:
            raise InputError(f"--clients must be numbers such as 1,2,4,8 but got {clients}")
        report = measure(model, tracking_uri, counts, seconds=seconds, last=last, workers=workers)
        report["run"] = describe_run("benchmarks.serving", sys.argv[1:], ("metarec", "torch", "numpy", "uvicorn"), ROOT)
        (out / "serving.json").write_text(json.dumps(report, indent=2) + "\n")
        text = describe(report)
        (out / "serving.md").write_text(text)
        typer.echo(text)
    if any(round_["errors"] or round_["wrong"] for round_ in report["rounds"]):
        raise typer.Exit(1)


def measure(
    model: str, tracking_uri: str | None, counts: Sequence[int], *, seconds: float, last: float, workers: int = 1
) -> dict[str, Any]:
    """The model's size, and for each number of clients what they saw and the server's memory."""
    import metarec
    from metarec.model import FusedRecommender

    recommender = metarec.load(model, tracking_uri=tracking_uri)
    if not isinstance(recommender, FusedRecommender):
        raise InputError(f"{model}: a model of lists; the measurement asks for ratings, so name a model of ratings")
    asked = questions(recommender, QUESTIONS)
    rounds = []
    with _server(model, tracking_uri, workers) as (port, process):
        ask_for(port, asked, clients=1, seconds=2)
        for place, count in enumerate(counts):
            length = last if place == len(counts) - 1 else seconds
            rounds.append(_round(port, process, asked, count, length))
    facts = {
        "users": len(recommender.users),
        "items": len(recommender.items),
        "ratings": len(recommender.ratings),
        "members": recommender.fusion.weights,
        "bases": list(recommender.maker.bases),
    }
    return {"model": facts, "workers": workers, "rounds": rounds}


def _round(
    port: int, process: psutil.Process, asked: Sequence[Question], clients: int, seconds: float
) -> dict[str, Any]:
    began = time.perf_counter()
    samples: list[tuple[float, float]] = []
    with _sampling(process, began, samples):
        record, took = ask_for(port, asked, clients=clients, seconds=seconds)
    times = np.array(record.seconds) * 1000
    return {
        "clients": clients,
        "seconds": took,
        "requests": len(times),
        "per_second": len(times) / took,
        "p50_ms": float(np.percentile(times, 50)),
        "p99_ms": float(np.percentile(times, 99)),
        "errors": record.errors,
        "wrong": record.wrong,
        "memory_mib": [[round(when, 1), round(size, 1)] for when, size in samples],
    }


@contextmanager
def _sampling(process: psutil.Process, began: float, samples: list[tuple[float, float]]) -> Iterator[None]:
    """Take the memory of the server's processes every few seconds, in a thread."""
    import threading

    ended = threading.Event()

    def sample() -> None:
        while True:
            size = sum(one.memory_info().rss for one in [process, *process.children(recursive=True)])
            samples.append((time.perf_counter() - began, size / 2**20))
            if ended.wait(SAMPLE_S):
                return

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


@contextmanager
def _server(model: str, tracking_uri: str | None, workers: int) -> Iterator[tuple[int, psutil.Process]]:
    import urllib.request

    port = free_port()
    store = [] if tracking_uri is None else ["--tracking-uri", tracking_uri]
    command = [sys.executable, "-m", "metarec.serve", model, *store, "--port", str(port), "--workers", str(workers)]
    process = subprocess.Popen(command, start_new_session=True)
    try:
        until = time.monotonic() + START_S
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/ping", timeout=2).close()
                break
            except OSError:
                if process.poll() is not None or time.monotonic() > until:
                    raise InputError(f"the server of {model} did not start; its reason is above") from None
                time.sleep(0.2)
        yield port, psutil.Process(process.pid)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def describe(report: dict[str, Any]) -> str:
    """The report in Markdown."""
    model, run = report["model"], report["run"]
    growth = [_growth(one["memory_mib"]) for one in report["rounds"]]
    lines = [
        "# A served model under several clients",
        "",
        f"`{run['command']}`, {run['machine']['cores']} cores, {run['machine']['cpu']}, {run['date']}.",
        "",
        f"The model has {model['users']:,} users, {model['items']:,} items and {model['ratings']:,} ratings; bases "
        f"{', '.join(model['bases'])}; members {', '.join(model['members'])}. Processes of the server: "
        f"{report['workers']}. The clients run on the same machine.",
        "",
        "Each request asks for ten items, of a user of the model or for a history of 0 to 100 ratings. An answer is",
        "wrong if any bit differs from the answer of the same model in one thread.",
        "",
        "| clients | requests | per second | median | 99 % | errors | wrong | memory after 60 s |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for one, grown in zip(report["rounds"], growth, strict=True):
        lines.append(
            f"| {one['clients']} | {one['requests']:,} | {one['per_second']:.1f} | {one['p50_ms']:.1f} ms "
            f"| {one['p99_ms']:.1f} ms | {one['errors']} | {one['wrong']} | {grown} |"
        )
    return "\n".join(lines) + "\n"


def _growth(samples: Sequence[Sequence[float]]) -> str:
    """From the sample at 60 s to the last one."""
    later = [size for when, size in samples if when >= 60]
    if not later:
        return "-"
    return f"{later[0]:,.0f} to {later[-1]:,.0f} MiB ({100 * (later[-1] / later[0] - 1):+.1f} %)"
