"""The shares of a study's time, from the timelines of its processes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from benchmarks.study.clock import BASES, IMPORTS, META_STEPS, OTHER, VALIDATION, WAITING, Segment, Timeline

__all__ = ["Profile", "Share", "profile_of", "typical"]

START = "starting Python"
EXIT = "ending Python"
INSIDE = (META_STEPS, BASES)
"""The work of a study itself. Base recommenders are their fits and their predictions."""


class Share(NamedTuple):
    """Seconds of the whole study's wall time; CPU seconds of all its processes and threads."""

    wall: float
    cpu: float


class Profile(NamedTuple):
    """Where the time of one study went.

    Attributes:
        wall: seconds from the start of the process to its end. cpu: CPU seconds of all its processes.
        rows: label -> its share; their wall times add up to `wall`. The CPU seconds of threads that libraries start
            are in no row.
        imports: top-level package -> seconds that its import held the main thread.
    """

    wall: float
    cpu: float
    rows: dict[str, Share]
    imports: dict[str, float]

    @property
    def outside(self) -> float:
        """Seconds outside of meta-steps and base recommenders."""
        return self.wall - sum(self.rows[label].wall for label in INSIDE if label in self.rows)

    def summary(self) -> dict[str, float]:
        """The totals, in seconds."""
        validation = self.rows[VALIDATION].wall if VALIDATION in self.rows else 0.0
        return {
            "wall_s": self.wall,
            "cpu_s": self.cpu,
            "outside_s": self.outside,
            "outside_but_validation_s": self.outside - validation,
        }

    def to_json(self) -> dict[str, Any]:
        """The whole profile as JSON values."""
        rows = {label: {"wall_s": share.wall, "cpu_s": share.cpu} for label, share in self.rows.items()}
        largest = dict(sorted(self.imports.items(), key=lambda pair: -pair[1])[:20])
        return {**self.summary(), "rows": rows, "largest_imports_s": largest}


def profile_of(timelines: Sequence[Timeline], process: int, started: float, ended: float, cpu: float) -> Profile:
    """The profile of the study whose main process is `process`, which was started and ended at these moments.

    A moment counts to the label of its first thread. While this thread waits for the processes that fit the bases, the
    moment counts to the bases if one of those processes fits or predicts, and to the waiting otherwise.
    """
    (main,) = (timeline.segments for timeline in timelines if timeline.process == process and timeline.main)
    fitting = _union(
        segment
        for timeline in timelines
        if timeline.process != process
        for segment in timeline.segments
        if segment.label == BASES
    )
    wall: dict[str, float] = defaultdict(float)
    used: dict[str, float] = defaultdict(float)
    imports: dict[str, float] = defaultdict(float)
    wall[START] = main[0].start - started
    for segment in main:
        length = segment.end - segment.start
        if segment.label == WAITING:
            busy = sum(max(0.0, min(end, segment.end) - max(start, segment.start)) for start, end in fitting)
            wall[BASES] += busy
            length -= busy
        wall[_row(segment.label)] += length
        if segment.label.startswith(IMPORTS):
            imports[segment.label.removeprefix(IMPORTS)] += length
    wall[EXIT] = ended - main[-1].end
    for timeline in timelines:
        for segment in timeline.segments:
            used[_row(segment.label)] += segment.cpu
    order = sorted(wall, key=lambda label: (label not in INSIDE, label == OTHER, -wall[label]))
    rows = {label: Share(wall[label], used[label]) for label in order}
    return Profile(ended - started, cpu, rows, dict(imports))


def typical(profiles: Sequence[Profile]) -> Profile:
    """The profile of median length; of two in the middle the shorter one."""
    return sorted(profiles, key=lambda profile: profile.wall)[(len(profiles) - 1) // 2]


def _row(label: str) -> str:
    return "imports" if label.startswith(IMPORTS) else label


def _union(segments: Iterable[Segment]) -> list[tuple[float, float]]:
    """The intervals covered by at least one segment."""
    merged: list[tuple[float, float]] = []
    for start, end in sorted((segment.start, segment.end) for segment in segments):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged
