"""The study's command as a separate process."""

import os
import subprocess
import sys
import time
from pathlib import Path

from metarec.errors import InputError
from metarec.search.trials import join_study

ROOT = Path(__file__).parents[2]


def begun(place, *options, **changes):
    """``python -m metarec.study`` as a process, from that folder."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "COLUMNS": "400", **changes}
    return subprocess.Popen(
        [sys.executable, "-m", "metarec.study", *options],
        cwd=place,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def ended(process, code=0):
    output, _ = process.communicate(timeout=300)
    assert process.returncode == code, output
    assert "Traceback" not in output
    return output


def no_process_of(command):
    """Whether all processes of a command from :func:`begun` have ended."""
    try:
        os.killpg(command.pid, 0)
    except ProcessLookupError:
        return True
    return False


def soon(happens):
    """Whether it happens within two minutes."""
    for _ in range(600):
        if happens():
            return True
        time.sleep(0.2)
    return False


def begun_trials(storage):
    return sum(state != "WAITING" for state in _states(storage))


def running_trials(storage):
    return _states(storage).count("RUNNING")


def _states(storage):
    """The states of the trials of study "s"; none while it does not exist."""
    try:
        return [trial.state.name for trial in join_study("s", storage).trials]
    except InputError:
        return []
