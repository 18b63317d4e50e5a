"""macOS, Windows and containers, simulated: no posix_fallocate, no fcntl, no fork, no home, a user without a name."""

import multiprocessing.context
import os
import pwd
import runpy
import signal
import sys
from functools import partial

import pytest

from sparc_bench import stop_signals
from sparc_bench.files.atomic import reserve
from sparc_bench.files.cache_folder import cache_folder
from sparc_bench.training import run_inputs as run_inputs_module
from sparc_bench.training.pixels import load_pixels
from sparc_bench.training.train import train
from tests.unit.training.test_train import losses

CALLS = ("posix_fallocate", "sched_getaffinity", "getuid", "geteuid", "fork")


@pytest.fixture
def windows(monkeypatch):
    for name in CALLS:
        monkeypatch.delattr(os, name, raising=False)
    monkeypatch.setitem(sys.modules, "fcntl", None)
    monkeypatch.setitem(sys.modules, "pwd", None)
    contexts = dict(multiprocessing.context._concrete_contexts)
    monkeypatch.setattr(
        multiprocessing.context, "_concrete_contexts", {name: contexts[name] for name in ("spawn",)}, raising=True
    )


def test_training_needs_nothing_that_only_linux_has(tiny, tmp_path, windows):
    assert train(tiny, tmp_path / "run", None, 0, "cpu")["steps"] == 6


@pytest.mark.slow
def test_pixels_too_many_for_the_cache_are_decoded_where_nothing_can_be_forked(tiny, tmp_path, windows, monkeypatch):
    train(tiny, tmp_path / "cached", None, 0, "cpu")
    monkeypatch.setattr(run_inputs_module, "load_pixels", partial(load_pixels, limit=0))
    train(tiny, tmp_path / "run", None, 0, "cpu")
    assert losses(tmp_path / "run") == losses(tmp_path / "cached")


def test_a_signal_that_a_system_lacks_is_not_asked_for(monkeypatch):
    monkeypatch.delattr(signal, "SIGUSR1")
    assert runpy.run_path(stop_signals.__file__)["STOPS"] == [signal.SIGINT, signal.SIGTERM]


@pytest.fixture
def nobody(monkeypatch):
    """A container's user: a number without a name, and no home."""

    def unknown(number):
        raise KeyError(f"getpwuid(): uid not found: {number}")

    for name in ("HOME", "USER", "LOGNAME", "LNAME", "USERNAME", "SPARC_BENCH_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 54321)
    monkeypatch.setattr(pwd, "getpwuid", unknown)


def test_a_user_without_home_and_name_has_a_cache_folder_and_trains(tiny, tmp_path, nobody, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert cache_folder() == tmp_path / "sparc-bench-54321"
    assert train(tiny, tmp_path / "run", None, 0, "cpu")["steps"] == 6
    assert (tmp_path / "sparc-bench-54321" / "pixels").is_dir()


@pytest.mark.parametrize("size", [0, 10, 5000])
def test_reserved_blocks_keep_the_content(tmp_path, monkeypatch, size):
    monkeypatch.delattr(os, "posix_fallocate", raising=False)
    monkeypatch.setattr("sparc_bench.files.atomic._PIECE", 1024)
    file = tmp_path / "array"
    with file.open("wb") as opened:
        opened.write(b"head"[: min(size, 4)])
        opened.truncate(size)
    before = file.read_bytes()
    reserve(file, size)
    assert file.read_bytes() == before
    assert file.stat().st_blocks * 512 >= size
