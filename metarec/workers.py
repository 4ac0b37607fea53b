"""Worker processes that end with their caller.

Only the standard library and light modules are imported, so that a command can start the server before anything else.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from multiprocessing.reduction import ForkingPickler
from types import ModuleType
from typing import Any

from metarec.errors import InputError, shown

__all__ = [
    "Map",
    "WorkerEnded",
    "WorkerPool",
    "end_with_parent",
    "start_process",
    "start_server",
    "worker_map",
    "worker_pool",
]

Map = Callable[..., Iterable[Any]]
"""A function like the built-in ``map``; its results may be computed in the background."""


LONGEST_FOLDER = 103 - len("/pymp-12345678/listener-12345678")
"""Bytes of the path of the folder for temporary files: a socket in it has at most 103 bytes on every system."""


def start_server() -> None:
    """Start the process from which workers are forked, unless it runs already, without waiting for it.

    It imports the workers' libraries once for all of them, in the background. It ends with its caller.

    Raises:
        InputError: the path of the folder for temporary files is too long for a socket.
    """
    folder = tempfile.gettempdir()
    if len(os.fsencode(folder)) > LONGEST_FOLDER:
        raise InputError(
            f"TMPDIR must be a path of at most {LONGEST_FOLDER} bytes, because sockets are made in it, but is "
            f"{shown(folder, 200)}; give a shorter one"
        )
    forkserver.set_forkserver_preload(["metarec.preloaded"])
    # Otherwise the server would start the tracker, which unblocks signals.
    resource_tracker.ensure_running()
    # Ctrl-C reaches the whole process group, and would print a traceback during an import. The server inherits the
    # blocked signal.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def start_process(process: BaseProcess) -> None:
    """Start a process that does not import the caller's main module.

    Python would run that module in the new process. A script that calls metarec at its top level would begin again
    there. No worker needs a name from it, because plug-ins are found by their entry points.
    """
    with _starting:
        main = sys.modules["__main__"]
        sys.modules["__main__"] = ModuleType("__main__")
        try:
            process.start()
        finally:
            sys.modules["__main__"] = main


_starting = threading.Lock()


@contextmanager
def worker_map(jobs: int) -> Iterator[Map]:
    """Like the built-in ``map``, on `jobs` processes; with one job it is the built-in."""
    if jobs == 1:
        yield map
        return
    with worker_pool(jobs) as pool:
        yield pool.map


class WorkerEnded(RuntimeError):
    """A worker process has ended in the middle of a call; the message says how."""


class WorkerPool(ThreadPoolExecutor):
    """Threads with a worker process each. A thread passes calls to its process and waits for the answers.

    No third process holds an end of their pipe, so that each side sees the end of the other. The workers of a
    ``ProcessPoolExecutor`` share two pipes. It may wait for ever if one of them ends while it reads or writes.

    A worker that was killed fails its present call only. The next call gets another worker.
    """

    def __init__(self, jobs: int) -> None:
        super().__init__(jobs)
        self._context = multiprocessing.get_context("forkserver")
        self._own = threading.local()
        self._started: list[tuple[BaseProcess, Connection]] = []
        self._starting = threading.Lock()
        self._ended = False

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        return super().submit(self._ask, fn, args, kwargs)

    def end(self) -> None:
        """End all workers now, whatever they do."""
        self.shutdown(wait=False, cancel_futures=True)
        with self._starting:
            self._ended = True
            for process, _ in self._started:
                process.kill()

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        super().shutdown(wait, cancel_futures=cancel_futures)
        if wait:
            for process, pipe in self._started:
                # A worker without a call ends with its pipe.
                pipe.close()
                process.join()

    def _ask(self, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        call = ForkingPickler.dumps((fn, args, kwargs))
        process, pipe = self._worker()
        try:
            pipe.send_bytes(call)
            received = pipe.recv_bytes()
        except (OSError, EOFError):
            process.join()
            del self._own.worker
            raise WorkerEnded(f"a worker process has ended during its work, {_how(process)}") from None
        done, answer = pickle.loads(received)
        if not done:
            raise answer
        return answer

    def _worker(self) -> tuple[BaseProcess, Connection]:
        """The worker of this thread, which is started with its first call."""
        if not hasattr(self._own, "worker"):
            with self._starting:
                if self._ended:
                    raise WorkerEnded("the workers have been ended")
                ours, theirs = self._context.Pipe()
                process = self._context.Process(target=_answer, args=(theirs,))
                start_process(process)
                theirs.close()
                self._own.worker = process, ours
                self._started.append(self._own.worker)
        worker: tuple[BaseProcess, Connection] = self._own.worker
        return worker


@contextmanager
def worker_pool(jobs: int) -> Iterator[WorkerPool]:
    """A pool of `jobs` processes that ends with the block.

    Processes are forked from a server that has only imported their libraries, and not from this process, whose
    libraries have threads. On an error or Ctrl-C they end at once, and not after their present fit.
    """
    start_server()
    with WorkerPool(jobs) as pool:
        try:
            yield pool
        except BaseException:
            pool.end()
            raise


def _answer(pipe: Connection) -> None:
    """The work of a worker: answer calls until the pipe is closed."""
    # Ctrl-C reaches the whole process group. The parent reports it, without tracebacks of workers.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    end_with_parent()
    with suppress(EOFError):
        while True:
            call = pipe.recv_bytes()
            try:
                fn, args, kwargs = pickle.loads(call)
                answer = ForkingPickler.dumps((True, fn(*args, **kwargs)))
            except BaseException as error:
                answer = _failure(error)
            pipe.send_bytes(answer)


def _failure(error: BaseException) -> Any:
    """The answer with an error, or with its text if it is one that cannot be sent."""
    # Its traceback stays behind.
    error.add_note("In a worker process:\n" + "".join(traceback.format_exception(error)))
    try:
        answer = ForkingPickler.dumps((False, error))
        pickle.loads(answer)
    except Exception:
        answer = ForkingPickler.dumps((False, RuntimeError(f"{type(error).__name__}: {error}")))
    return answer


def _how(process: BaseProcess) -> str:
    """How a process has ended."""
    code = process.exitcode or 0
    return f"by signal {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"


def end_with_parent() -> None:
    """End this process when its parent ends, because a killed parent cannot end its workers."""
    threading.Thread(target=_wait_for_parent, daemon=True).start()


def _wait_for_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
