"""Writes are whole or not at all; what killed processes left is swept; a file system that refuses is a sentence."""

import errno
import os
import signal
import subprocess
import sys

import pytest

from sparc_bench.errors import UserError
from sparc_bench.files import atomic
from sparc_bench.files.atomic import draft, draft_path, remove_drafts, write_atomic

KILLED = """
import os, sys
from pathlib import Path
from sparc_bench.files.atomic import draft
with draft(Path(sys.argv[1])) as temporary:
    temporary.write_bytes(b"half")
    os.kill(os.getpid(), 9)
"""


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_the_draft_of_a_killed_process_goes_with_the_next_write_and_nothing_else_does(tmp_path):
    killed = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "model")], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert len(names(tmp_path)) == 1
    others = [".model.part", ".model.1234.part", "notes.part", ".tmpab12", ".model.other-1-zzzzzzzz.part"]
    for name in others:
        (tmp_path / name).touch()
    write_atomic(tmp_path / "table", b"x")
    assert names(tmp_path) == sorted([*others, "table"])


def test_a_draft_that_is_being_written_stays(tmp_path):
    with draft(tmp_path / "a") as first:
        first.write_bytes(b"1")
        write_atomic(tmp_path / "b", b"2")
        assert first.exists()
    assert names(tmp_path) == ["a", "b"]


def test_drafts_of_other_machines_go_only_where_nobody_else_writes(tmp_path, monkeypatch):
    gone = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    monkeypatch.setattr(atomic, "_place", lambda: "elsewhere")
    monkeypatch.setattr(os, "getpid", lambda: int(gone.stdout))
    left = draft_path(tmp_path / "model")
    left.touch()
    monkeypatch.undo()
    remove_drafts(tmp_path)
    assert left.exists()
    remove_drafts(tmp_path, whoever=True)
    assert not left.exists()


def test_two_containers_with_one_process_id_use_different_drafts(tmp_path):
    assert draft_path(tmp_path / "a") != draft_path(tmp_path / "a")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EFBIG, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EIO])
def test_a_file_system_that_refuses_is_a_sentence_that_ends_in_the_fix(tmp_path, monkeypatch, number):
    write_atomic(tmp_path / "table", b"old")

    def refuses(_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", refuses)
    with pytest.raises(UserError, match=r"table cannot be written \(.*\): (free|choose) "):
        write_atomic(tmp_path / "table", b"new")
    assert names(tmp_path) == ["table"]
    assert (tmp_path / "table").read_bytes() == b"old"


@pytest.mark.skipif(os.name == "nt", reason="no limits of file sizes")
def test_a_file_above_the_limit_of_this_process(tmp_path):
    import resource

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    try:
        with pytest.raises(UserError, match=r"cannot be written .*ulimit -f"):
            write_atomic(tmp_path / "table", b"x" * 1000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert names(tmp_path) == []
