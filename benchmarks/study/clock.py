"""Measures a study: each moment of each process is the time of the innermost running function of `TARGETS`.

:func:`start` is called when the interpreter starts (see :func:`environment`), before anything of the study is imported,
so the code of the study is unchanged. The functions are wrapped as soon as their module is imported; imports are timed
inside Python's import system. Each process writes a file when it ends. Only the standard library is imported.
"""

from __future__ import annotations

import atexit
import functools
import importlib
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

__all__ = [
    "BASES",
    "IMPORTS",
    "META_STEPS",
    "OTHER",
    "TARGETS",
    "VALIDATION",
    "WAITING",
    "Clock",
    "Segment",
    "Timeline",
    "environment",
    "read_timelines",
    "start",
]

FOLDER = "METAREC_STUDY_CLOCK"
"""The environment variable that names the folder for the processes' files; without it nothing is measured."""

META_STEPS = "meta-steps"
BASES = "base recommenders"
VALIDATION = "validation passes"
IMPORTS = "imports: "
WAITING = "waiting for the processes that fit the bases"
OTHER = "anything else"

Label = str | Callable[..., str]


def _baseline(stacker: Any, *_: Any, **__: Any) -> str:
    return f"baseline: {stacker.name}"


TARGETS: Mapping[str, Mapping[str, Label]] = {
    "metarec.study.spec": {"load_spec": "reading the spec"},
    "metarec.study.data": {"read_data": "reading the ratings"},
    "metarec.study.job": {
        "run_study": "the study, the rest",
        "_get_ready": "opening the store, and imports, while bases are fitted",
    },
    "metarec.study.networks._stages": {
        "_fit_stackers": "baselines, the rest",
        "SearchedNetworks.score": "test evaluation",
    },
    "metarec.episodes.builders._build": {"build_episodes": "features and assembly", "predicted_arrays": WAITING},
    "metarec.episodes._predictions": {"base_predictions": "handing over predictions"},
    "metarec.bases.lenskit": {"LensKitRecommender.fit": BASES},
    "metarec.bases.content": {"ContentRecommender.fit": BASES},
    "metarec.bases.autoencoder": {"AutoencoderRecommender.fit": BASES},
    "metarec.bases._queries": {"answer_queries": BASES},
    "metarec.meta.trainer": {
        "outer_step": META_STEPS,
        "validate": VALIDATION,
        "MetaLearningTrainer.fit": "trainer, the rest",
    },
    "metarec.study.networks._objective": {
        "NetworkObjective._evaluate": "trials, the rest",
        "NetworkObjective.files": "what a trial keeps",
    },
    "metarec.study.records._trial": {
        "RecordedObjective.__call__": "trials, the rest",
        "RecordedObjective.ended": "MLflow: numbers",
    },
    "metarec.study.records._files": {
        "Files.write": "what a trial keeps",
        "FileKeeper.keep": "what a trial keeps",
        "FileKeeper.__exit__": "what a trial keeps",
        "FileKeeper._write_and_upload": "what a trial keeps",
    },
    "metarec.search.trials": {"open_study": "Optuna", "run_trials": "Optuna", "counted_trials": "Optuna"},
    "metarec.search.space": {"suggest_parameters": "Optuna"},
    "optuna.trial._trial": {"Trial.report": "Optuna", "Trial.should_prune": "Optuna"},
    "metarec.fusion._combiner": {"Combiner.fit": _baseline},
    "metarec.fusion.stackers._base": {"Stacker.predict": _baseline},
    "metarec.fusion.rankers._base": {"Ranker.predict": _baseline},
    "metarec.evaluation.measures": {"Measure.gains": "bootstrap"},
    "metarec.evaluation.engine_check": {"check_engines": "comparing the engines"},
    "metarec.report.figures.figures": dict.fromkeys(
        ("learning_curve", "base_weights", "model_comparison", "search_history", "save"), "figures"
    ),
    "metarec.tracking._mlflow": {"MlflowTracker.start_study": "MLflow: opening the store"},
    "metarec.tracking.spool._spooled_runs": {
        "SpooledStudyRun.start_trial": "MLflow: numbers",
        "SpooledStudyRun.reconcile": "MLflow: numbers",
        "SpooledStudyRun.run_ids": "MLflow: numbers",
        "_SpooledParentRun.close": "MLflow: numbers",
        "SpooledTrialRun.log_epoch": "MLflow: numbers",
        "SpooledTrialRun.persist": "MLflow: numbers",
    },
    "metarec.tracking.spool._sender": {"Sender._send": "MLflow: sending"},
    "metarec.report.study": {"StudyReporter.report": "report"},
    "metarec.cli.terminal": {"show_data": "report"},
    "metarec.cli.study_tables": {
        "show_result": "report",
        "show_where": "report",
        "TerminalWatcher.on_trial": "report",
    },
}
"""Module -> function or Class.method -> label of its time, without the time of other targets that it calls."""


class Segment(NamedTuple):
    """An interval of one thread: from `start` to `end` on the machine's monotonic clock, and its CPU seconds."""

    label: str
    start: float
    end: float
    cpu: float


class Timeline(NamedTuple):
    """The segments of one thread, without gaps. `main`: whether it is the first thread of its process."""

    process: int
    main: bool
    segments: list[Segment]


class Clock:
    """The timelines of this process's threads."""

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """Start anew in this thread, without the earlier timelines."""
        self._local = threading.local()
        self._timelines: list[Timeline] = []
        self._stack()

    @contextmanager
    def during(self, label: str) -> Iterator[None]:
        """Count the time of the block to the label, except for inner blocks."""
        stack = self._stack()
        self._mark(stack[-1])
        stack.append(label)
        try:
            yield
        finally:
            self._mark(stack.pop())

    def timelines(self) -> list[Timeline]:
        """The timelines up to now; those of other threads up to their latest mark."""
        self._mark(self._stack()[-1])
        return self._timelines

    def _stack(self) -> list[str]:
        own = self._local
        if not hasattr(own, "stack"):
            own.stack = [OTHER]
            own.segments = []
            own.wall, own.cpu = time.perf_counter(), time.thread_time()
            main = threading.current_thread() is threading.main_thread()
            self._timelines.append(Timeline(os.getpid(), main, own.segments))
        stack: list[str] = own.stack
        return stack

    def _mark(self, label: str) -> None:
        """Count the time since the latest mark to the label."""
        own = self._local
        wall, cpu = time.perf_counter(), time.thread_time()
        segments: list[Segment] = own.segments
        if segments and segments[-1].label == label:
            last = segments[-1]
            segments[-1] = Segment(label, last.start, wall, last.cpu + cpu - own.cpu)
        else:
            segments.append(Segment(label, own.wall, wall, cpu - own.cpu))
        own.wall, own.cpu = wall, cpu

    def wrap(self, function: Callable[..., Any], label: Label) -> Callable[..., Any]:
        """The function, with its time counted to the label."""

        @functools.wraps(function)
        def timed(*args: Any, **options: Any) -> Any:
            with self.during(label if isinstance(label, str) else label(*args, **options)):
                return function(*args, **options)

        return timed

    def wrap_targets(self, module: ModuleType) -> None:
        """Wrap the targets in this module.

        Raises:
            AttributeError: a target does not exist.
        """
        for path, label in TARGETS.get(module.__name__, {}).items():
            *parents, name = path.split(".")
            owner: Any = module
            for parent in parents:
                owner = getattr(owner, parent)
            # An inherited method is a target of the class that defines it.
            setattr(owner, name, self.wrap(vars(owner)[name], label))

    def watch_imports(self) -> None:
        """Time the imports of new modules, and wrap the targets in them."""
        bootstrap: Any = importlib._bootstrap
        find_and_load = bootstrap._find_and_load

        def timed(name: str, import_: Any) -> Any:
            with self.during(IMPORTS + name.partition(".")[0]):
                new = name not in sys.modules
                module = find_and_load(name, import_)
                if new and name in TARGETS:
                    self.wrap_targets(module)
                return module

        bootstrap._find_and_load = timed


def start() -> None:
    """Start to measure this process, if the environment names a folder for its file."""
    if FOLDER not in os.environ:
        return
    folder = Path(os.environ[FOLDER])
    clock = Clock()
    # Registered first, so that it runs last.
    atexit.register(_write, clock, folder)
    os.register_at_fork(after_in_child=clock.begin)
    os._exit = _writing_before(os._exit, clock, folder)  # type: ignore[assignment]
    clock.watch_imports()


def _write(clock: Clock, folder: Path) -> None:
    content = json.dumps({"cpu": time.process_time(), "timelines": clock.timelines()})
    (folder / f"{os.getpid()}.json").write_text(content, encoding="utf-8")


def _writing_before(leave: Callable[[int], Any], clock: Clock, folder: Path) -> Callable[[int], Any]:
    """`os._exit` of a forked process, which runs no atexit handlers."""

    def write_and_leave(status: int) -> Any:
        _write(clock, folder)
        leave(status)

    return write_and_leave


def environment(folder: Path, root: Path) -> dict[str, str]:
    """The environment in which every Python process measures itself and writes its file into `folder`.

    Args:
        root: the folder of the repository.
    """
    # Python imports a module of this name at its start.
    site = folder / "site"
    site.mkdir(parents=True)
    (site / "sitecustomize.py").write_text(f"from {__spec__.name} import start\n\nstart()\n", encoding="utf-8")
    paths = [str(site), str(root), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), FOLDER: str(folder)}


def read_timelines(folder: Path) -> tuple[list[Timeline], float]:
    """The timelines of all processes, and the CPU seconds of these processes with all their threads."""
    found, cpu = [], 0.0
    for path in sorted(folder.glob("*.json")):
        content = json.loads(path.read_text(encoding="utf-8"))
        cpu += content["cpu"]
        for process, main, segments in content["timelines"]:
            found.append(Timeline(process, main, [Segment(*segment) for segment in segments]))
    return found, cpu
