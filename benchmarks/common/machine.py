"""The command, code and machine that the numbers of a report come from."""

from __future__ import annotations

import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

__all__ = ["describe_run"]


def describe_run(module: str, arguments: Sequence[str], libraries: Sequence[str], root: Path) -> dict[str, Any]:
    """The command, date, commit, versions and machine, as JSON values without personal data.

    Args:
        module: the module of ``python -m``; arguments: those of the command.
        libraries: distributions whose versions are listed.
        root: the folder of the repository.
    """
    return {
        "command": shlex.join(["python", "-m", module, *arguments]),
        "date": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        "commit": _commit(root),
        "versions": {"python": platform.python_version(), **{name: version(name) for name in libraries}},
        "machine": {
            "system": f"{platform.system()} {platform.machine()}",
            "cpu": _line("/proc/cpuinfo", "model name") or platform.processor() or "unknown",
            "cores": len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count(),
            "memory_gib": _memory(),
        },
    }


def _commit(root: Path) -> str:
    """The commit, with + if tracked files differ from it; "unknown" outside of a repository."""
    try:
        commit = _git(root, "rev-parse", "HEAD")
        changed = _git(root, "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return commit + ("+" if changed else "")


def _git(root: Path, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=True).stdout.strip()


def _memory() -> float | None:
    line = _line("/proc/meminfo", "MemTotal")
    return round(int(line.split()[0]) / 2**20, 1) if line else None


def _line(path: str, name: str) -> str | None:
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError:
        return None
    return next((line.partition(":")[2].strip() for line in text.splitlines() if line.startswith(name)), None)
