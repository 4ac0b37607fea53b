"""Fuzzing: many inputs through one function, in a process of its own with limits of time and memory."""

import hashlib
import logging
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from typing import NamedTuple

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from metarec.errors import InputError

SECONDS = float(os.environ.get("METAREC_FUZZ_SECONDS", "0"))
"""How long each call of `fuzz` goes on; 0 for a short run of the same examples every time."""

START_SECONDS = 120.0
"""Within which a process has imported the function."""

SHRINK_SECONDS = 30.0
"""Within which the input of a find is made smaller."""


ROOT = Path(__file__).parents[2]

# Some distributions install a package named tests, which would be imported in place of this folder.
_PROGRAM = f"""
import sys, types
sys.path.insert(0, {str(ROOT)!r})
sys.modules["tests"] = types.ModuleType("tests")
sys.modules["tests"].__path__ = [{str(ROOT / "tests")!r}]
from tests.support.fuzz import serve
serve(int(sys.argv[1]))
"""


class Case(NamedTuple):
    """One input: the name of a file, which says how it is read, and its content."""

    name: str
    content: bytes


class Find(NamedTuple):
    """An input that breaks the rule, and how, in one line."""

    case: Case
    what: str


def fuzz(
    check: Callable[[Case, Path], None],
    cases: st.SearchStrategy[Case],
    corpus: Path,
    *,
    seconds: float = SECONDS,
    examples: int = 300,
    allowed: tuple[type[Exception], ...] = (InputError,),
    example_seconds: float = 10.0,
    memory: int = 2 << 30,
) -> list[Find]:
    """Run `check` on every case of a corpus and on generated ones; what breaks the rule, each kind once.

    The rule: `check` returns, or raises one of `allowed` with a message of one printable line of at most 1,000
    letters. Another exception, a warning, a process that ends, too much time and too much memory break it.

    Args:
        check: a function of a module, because another process imports it. It gets the case and an empty folder, and
            asserts whatever must hold of a result.
        cases: generated inputs; see `mutated`.
        corpus: a folder of cases, see `kept_cases`. A run with `seconds` adds its finds, made smaller.
        seconds: 0 runs `examples` examples, the same every time; more goes on with random ones for so long.
        example_seconds: the longest that an example may take.
        memory: bytes of address space that the process may add to what it has after its imports.
    """
    finds: dict[str, Find] = {}
    with tempfile.TemporaryDirectory() as folder, _Runner(check, Path(folder), allowed, example_seconds, memory) as run:
        deadline = time.monotonic() + seconds

        def one(case: Case) -> None:
            what = run(case)
            # The same fault with another value in its message is the same find.
            if what is not None and (kind := what.partition(":")[0]) not in finds:
                finds[kind] = Find(_smaller(run, case, kind) if seconds else case, what)
                if seconds:
                    _keep(corpus, finds[kind].case)

        for case in kept_cases(corpus):
            one(case)
        rules = settings(
            max_examples=examples,
            derandomize=not seconds,
            database=None,
            deadline=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        while True:
            rules(given(cases)(lambda case: one(case) if not seconds or time.monotonic() < deadline else None))()
            if time.monotonic() >= deadline:
                return list(finds.values())


def kept_cases(corpus: Path) -> list[Case]:
    """The cases of a folder: each file is named ``LABEL--NAME``, and NAME is the name of the case."""
    return [Case(path.name.partition("--")[2], path.read_bytes()) for path in sorted(corpus.glob("*--*"))]


def mutated(cases: Sequence[Case], pieces: Iterable[bytes] = (), most: int = 4) -> st.SearchStrategy[Case]:
    """Cases with a few changes: slices that are cut, repeated, or replaced by pieces, other slices, random bytes."""
    known = st.sampled_from([b"", *pieces])

    @st.composite
    def changed(draw: st.DrawFn) -> Case:
        name, content = draw(st.sampled_from(list(cases)))
        for _ in range(draw(st.integers(1, most))):
            start = draw(st.integers(0, len(content)))
            end = draw(st.integers(start, min(start + draw(st.sampled_from([0, 1, 4, 64])), len(content))))
            kind = draw(st.sampled_from(["piece", "bytes", "repeat", "copy", "flip"]))
            if kind == "piece":
                new = draw(known)
            elif kind == "bytes":
                new = draw(st.binary(max_size=8))
            elif kind == "repeat":
                new = content[start:end] * draw(st.sampled_from([2, 10, 1000]))
            elif kind == "copy":
                other = draw(st.integers(0, len(content)))
                new = content[other : other + draw(st.integers(0, 64))]
            else:
                new = bytes(byte ^ (1 << draw(st.integers(0, 7))) for byte in content[start : start + 1])
                end = max(end, start + len(new))
            content = content[:start] + new + content[end:]
        return Case(name, content)

    return changed()


class _Runner:
    """Runs cases in a process, and starts another one after an end, a hang, or a use of too much memory."""

    def __init__(
        self,
        check: Callable[[Case, Path], None],
        folder: Path,
        allowed: tuple[type[Exception], ...],
        example_seconds: float,
        memory: int,
    ) -> None:
        self._arguments = (check, folder, allowed, memory)
        self._example_seconds = example_seconds

    def __enter__(self) -> "_Runner":
        self._start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def __call__(self, case: Case) -> str | None:
        """What breaks the rule: a kind, a colon, and more; None for nothing."""
        self._pipe.send(case)
        try:
            if self._pipe.poll(self._example_seconds):
                return self._pipe.recv()
            what = f"more than {self._example_seconds:g} seconds for {case.name}: {case.content[:200]!r}"
        except EOFError:
            what = f"the process ended with {self._process.wait()} for {case.name}: {case.content[:200]!r}"
        self._stop()
        self._start()
        return what

    def _start(self) -> None:
        # A new interpreter: a fork would copy locks of threads that do not exist in the copy.
        self._pipe, theirs = Pipe()
        with theirs:
            descriptor = theirs.fileno()
            self._process = subprocess.Popen(
                [sys.executable, "-c", _PROGRAM, str(descriptor)], pass_fds=[descriptor], start_new_session=True
            )
        self._pipe.send(self._arguments)
        if not self._pipe.poll(START_SECONDS):
            raise TimeoutError("the process of the fuzzed function did not start")
        self._pipe.recv()

    def _stop(self) -> None:
        self._process.kill()
        self._process.wait()
        self._pipe.close()


def serve(descriptor: int) -> None:
    """The process of `fuzz`: answer each case with what breaks the rule, until the pipe is closed."""
    pipe = Connection(descriptor)
    check, folder, allowed, memory = pipe.recv()
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + memory, size + memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    logging.disable(logging.CRITICAL)
    pipe.send(None)
    place = folder / "example"
    while True:
        try:
            case = pipe.recv()
        except EOFError:
            return
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        pipe.send(_broken_rule(check, case, place, allowed))


def _broken_rule(
    check: Callable[[Case, Path], None], case: Case, folder: Path, allowed: tuple[type[Exception], ...]
) -> str | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            check(case, folder)
    except MemoryError:
        return f"MemoryError: {case.name}: {case.content[:200]!r}"
    except allowed as error:
        message = str(error)
        if not message.isprintable() or not 0 < len(message) <= 1000:
            return f"{type(error).__name__} at {_place(error)} is not one line that can be shown: {message!r:.300}"
    except Exception as error:
        return f"{type(error).__name__} at {_place(error)}: {case.name}: {error!s:.300}"
    return None


def _place(error: Exception) -> str:
    """The file and line in this project that raised the error, or called what raised it."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if "site-packages" not in frame.filename and "/lib/python" not in frame.filename]
    return f"{Path((own or frames)[-1].filename).name} line {(own or frames)[-1].lineno}"


def _smaller(run: _Runner, case: Case, kind: str) -> Case:
    """A case as short as leaving out slices makes it, with the same kind of find."""
    deadline = time.monotonic() + SHRINK_SECONDS
    content = case.content
    length = len(content) // 2
    while length:
        for start in _starts(content, length):
            shorter = content[:start] + content[start + length :]
            if time.monotonic() > deadline:
                return Case(case.name, content)
            what = run(Case(case.name, shorter))
            if what is not None and what.partition(":")[0] == kind:
                content = shorter
        length //= 2
    return Case(case.name, content)


def _starts(content: bytes, length: int) -> Iterator[int]:
    # From the end, so that what is left out moves no slice that follows.
    yield from range(max(len(content) - length, 0), -1, -length)


def _keep(corpus: Path, case: Case) -> None:
    corpus.mkdir(parents=True, exist_ok=True)
    label = hashlib.sha256(case.content).hexdigest()[:8]
    (corpus / f"{label}--{case.name}").write_bytes(case.content)
