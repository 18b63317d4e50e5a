"""One process at a time writes to a folder; the second is told who does, and a killed one holds nothing."""

import errno
import os
import signal
import socket
import subprocess
import sys
import time

import pytest

from sparc_bench.errors import UserError
from sparc_bench.files import lock
from sparc_bench.files.lock import LOCK_FILE, locked

HOLDS = """
import sys, time
from pathlib import Path
from sparc_bench.files.lock import locked
with locked(Path(sys.argv[1]), "--runs"):
    print("held", flush=True)
    time.sleep(100)
"""


@pytest.fixture
def holder(tmp_path):
    with subprocess.Popen([sys.executable, "-c", HOLDS, str(tmp_path / "run")], stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        yield process
        process.kill()


def test_the_second_is_told_who_holds_it_and_leaves_it_held(tmp_path, holder):
    for _ in range(2):
        who = rf"run is being written by process {holder.pid} on {socket.gethostname()}, since \d{{4}}-"
        with pytest.raises(UserError, match=who), locked(tmp_path / "run", "--runs"):
            pass


def test_a_killed_process_holds_nothing(tmp_path, holder):
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    assert (tmp_path / "run" / LOCK_FILE).exists()
    with locked(tmp_path / "run", "--runs") as held:
        assert held


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there are no forks here")
def test_a_forked_child_holds_nothing(tmp_path):
    """A worker that decodes outlives a killed process for seconds, in which the same command would be refused."""
    script = HOLDS.replace("print(", "import os; os.fork() or print(os.getpid(), ")
    call = [sys.executable, "-c", script, str(tmp_path / "run")]
    with subprocess.Popen(call, stdout=subprocess.PIPE) as process:
        child = int(process.stdout.readline().split()[0])
        process.kill()
        process.wait()
        try:
            with locked(tmp_path / "run", "--runs") as held:
                assert held
        finally:
            os.kill(child, signal.SIGKILL)


def test_a_full_disk_is_one_sentence(tmp_path, monkeypatch):
    def full():
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(socket, "gethostname", full)
    with pytest.raises(UserError, match=rf"{LOCK_FILE}.*No space left"), locked(tmp_path / "run", "--runs"):
        pass
    assert not (tmp_path / "run").exists()


def test_the_folder_goes_only_where_nothing_was_written(tmp_path):
    with locked(tmp_path / "a" / "run", "--runs"):
        pass
    assert not (tmp_path / "a" / "run").exists()
    with locked(tmp_path / "run", "--runs"):
        (tmp_path / "run" / "log").touch()
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["log"]


@pytest.mark.parametrize("missing", ["fcntl", "both"])
def test_without_fcntl_the_lock_of_windows_is_taken_or_none(tmp_path, monkeypatch, missing):
    taken = []

    class Msvcrt:
        LK_NBLCK = 2

        @staticmethod
        def locking(number, mode, count):
            if taken:
                raise OSError("held")
            taken.append((os.lseek(number, 0, os.SEEK_CUR), mode, count))

    def imported(name):
        if name == "msvcrt" and missing == "fcntl":
            return Msvcrt
        raise ImportError(name)

    monkeypatch.setattr(lock.importlib, "import_module", imported)
    with locked(tmp_path / "run", "--runs") as held:
        assert held == (missing == "fcntl")
        if missing == "fcntl":
            with pytest.raises(UserError, match="is being written by process"), locked(tmp_path / "run", "--runs"):
                pass


def test_a_file_system_without_locks_refuses_nothing(tmp_path, monkeypatch):
    import fcntl

    def unsupported(*_):
        raise OSError("no locks available")

    monkeypatch.setattr(fcntl, "flock", unsupported)
    with locked(tmp_path / "run", "--runs") as held:
        assert not held


@pytest.mark.slow
def test_many_processes_never_hold_it_at_once(tmp_path):
    script = (
        "import sys, time; from pathlib import Path; from sparc_bench.files.lock import locked; "
        "from sparc_bench.errors import UserError\n"
        "folder, seen, end = Path(sys.argv[1]), Path(sys.argv[2]), time.time() + 2\n"
        "while time.time() < end:\n"
        "    try:\n"
        "        with locked(folder, '--runs'):\n"
        "            seen.mkdir(); seen.rmdir()\n"
        "    except UserError:\n"
        "        pass\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "run"), str(tmp_path / "seen")]
    started = [subprocess.Popen(command) for _ in range(3)]
    time.sleep(0.1)
    assert [process.wait() for process in started] == [0, 0, 0]
