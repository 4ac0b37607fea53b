"""Worker processes: their preloaded libraries, and their end with the parent."""

import gc
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from metarec.errors import InputError
from metarec.importing import importing
from metarec.workers import WorkerEnded, start_server, worker_map, worker_pool

ROOT = Path(__file__).parents[1]


def test_a_map_on_processes_is_a_map():
    with worker_map(2) as run:
        assert list(run(abs, [-1, 2, -3])) == [1, 2, 3]
    with worker_map(1) as run:
        assert run is map


def test_workers_have_their_libraries_before_they_begin():
    """Each worker would need a second or two for that. A moved module would only show in the time."""
    with worker_pool(1) as pool:
        loaded = pool.submit(eval, "list(__import__('sys').modules)").result()
    assert {"lenskit", "torch", "metarec.bases.content", "metarec.bases.autoencoder"} <= set(loaded)


def test_a_worker_ends_at_ctrl_c_without_output():
    with worker_pool(1) as pool:
        handler = pool.submit(signal.getsignal, signal.SIGINT).result()
        blocked = pool.submit(signal.pthread_sigmask, signal.SIG_BLOCK, set()).result()
    assert handler == signal.SIG_DFL
    assert signal.SIGINT not in blocked


SCRIPT = """
from metarec.workers import worker_pool
print("begun")
with worker_pool(1) as pool:
    print(pool.submit(abs, -2).result())
"""


def test_a_script_without_a_guard_runs_once(tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    arguments = [sys.executable, tmp_path / "script.py"]
    ended = subprocess.run(arguments, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert (ended.stdout, ended.stderr) == ("begun\n2\n", "")


OUTLIVED = """
import time
from metarec.workers import worker_pool
from own_process import own_process
with worker_pool(2) as pool:
    print(*pool.map(own_process, range(2)), flush=True)
    time.sleep(60)
"""


def test_no_process_outlives_its_parent(tmp_path):
    (tmp_path / "own_process.py").write_text(
        "import os, time\ndef own_process(_):\n    time.sleep(0.5)\n    return os.getpid()\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    with subprocess.Popen(
        [sys.executable, "-c", OUTLIVED], env=environment, stdout=subprocess.PIPE, text=True
    ) as process:
        workers = [Path(f"/proc/{number}") for number in process.stdout.readline().split()]
        process.kill()
        # The pipe ends with the last process that could write to it.
        process.stdout.read()
    assert len(set(workers)) == 2
    deadline = time.monotonic() + 20
    while any(worker.exists() for worker in workers) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(worker.exists() for worker in workers)


FAILING = """
from metarec.workers import worker_pool
from own_process import failing
for _ in range(4):
    try:
        with worker_pool(2) as pool:
            # More than a pipe holds, so that a call is on its way when the pool ends.
            list(pool.map(failing, [(place, bytes(1_000_000)) for place in range(20)]))
    except ZeroDivisionError as error:
        print(type(error).__name__, flush=True)
"""


def test_a_process_whose_pool_has_failed_ends(tmp_path):
    (tmp_path / "own_process.py").write_text("import time\ndef failing(call):\n    1 / call[0]\n    time.sleep(0.5)\n")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    ended = subprocess.run([sys.executable, "-c", FAILING], env=environment, capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "ZeroDivisionError\n" * 4, "")


def test_a_killed_worker_fails_one_call_and_is_replaced():
    with worker_pool(1) as pool:
        with pytest.raises(WorkerEnded, match="ended during its work, by signal SIGKILL"):
            pool.submit(eval, "__import__('os').kill(__import__('os').getpid(), 9)").result()
        with pytest.raises(WorkerEnded, match="with exit code 3"):
            pool.submit(os._exit, 3).result()
        assert pool.submit(abs, -1).result() == 1


def test_errors_of_workers_are_raised_here():
    with worker_pool(1) as pool:
        with pytest.raises(ZeroDivisionError) as raised:
            pool.submit(divmod, 1, 0).result()
        assert "In a worker process:" in raised.value.__notes__[0]
        with pytest.raises(SystemExit):
            pool.submit(sys.exit, 4).result()
        with pytest.raises(RuntimeError, match="Odd: 1 and 2"):
            # Its class is in no module, so that it cannot be pickled.
            pool.submit(exec, "raise type('Odd', (Exception,), {})('1 and 2')").result()


def test_garbage_is_collected_again_after_the_block():
    assert gc.isenabled()
    with pytest.raises(ZeroDivisionError), importing():
        1 / gc.isenabled()
    assert gc.isenabled()
    gc.disable()
    try:
        with importing():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
        gc.unfreeze()


INTERRUPTED_IN_AN_IMPORT = """
import os, signal, sys
from metarec.errors import InputError
from metarec.importing import importing
try:
    with importing():
        # A dataclass executes such a string; without the block Python ends by the signal with another exit code.
        exec("os.kill(os.getpid(), signal.SIGINT); sum(range(1000))")
        print("whole", flush=True)
except KeyboardInterrupt:
    sys.exit(130)
"""


def test_ctrl_c_waits_for_an_import(tmp_path):
    (tmp_path / "interrupted.py").write_text(INTERRUPTED_IN_AN_IMPORT)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    ended = subprocess.run(
        [sys.executable, "-m", "interrupted"], env=environment, capture_output=True, text=True, timeout=60
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (130, "whole\n", "")


def test_a_folder_whose_path_is_too_long_for_a_socket_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", f"{tmp_path}/{'a' * 100}")
    with pytest.raises(InputError, match=r"TMPDIR must be a path of at most 71 bytes, .*aaa.*; give a shorter one"):
        start_server()
