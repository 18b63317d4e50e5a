"""Progress in a pipe is a line now and then, on a terminal a bar, and nothing of either is left behind."""

import re
import sys
import threading
import time
from types import SimpleNamespace

import pytest

from sparc_bench import terminal
from sparc_bench.terminal import progress_line, task_bar


@pytest.fixture
def often(monkeypatch):
    monkeypatch.setattr(terminal, "SECONDS_BETWEEN_LINES", 0.02)


def until(true):
    """Wait for what another thread does, for some seconds at most."""
    limit = time.monotonic() + 10
    while not true() and time.monotonic() < limit:
        time.sleep(0.01)
    assert true()


def test_lines_in_a_pipe(often, capsys):
    seen = []

    def lines():
        seen.extend(capsys.readouterr().err.splitlines())
        return seen

    with task_bar() as progress:
        bar = progress.add_task("encoding", total=300)
        progress.add_task("hidden", total=3, visible=False)
        until(lambda: "encoding: 0 of 300" in lines())
        progress.update(bar, advance=100)
        time.sleep(0.01)
        progress.update(bar, advance=100)
        until(lambda: any(re.fullmatch(r"encoding: 200 of 300, \d+ s left", line) for line in lines()))
    assert {line.partition(":")[0] for line in lines()} == {"encoding"}
    threads = threading.active_count()
    time.sleep(0.1)
    assert lines()[len(seen) :] == []
    assert threading.active_count() == threads


@pytest.mark.slow
def test_displays_that_follow_each_other_are_not_silent_together(capsys, monkeypatch):
    monkeypatch.setattr(terminal, "SECONDS_BETWEEN_LINES", 0.5)
    monkeypatch.setattr(terminal.ProgressDisplay, "_said", time.monotonic())
    for number in range(6):  # each ends before its own half second
        with task_bar() as progress:
            progress.add_task(f"part {number}", total=None)
            time.sleep(0.25)
    assert 2 <= len(capsys.readouterr().err.splitlines()) <= 4


def test_ten_seconds_lie_between_lines(capsys):
    assert terminal.SECONDS_BETWEEN_LINES == 10
    with task_bar() as progress:
        progress.add_task("short", total=3)
    assert capsys.readouterr().err == ""


def test_a_terminal_gets_bars_and_no_lines(often, capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with task_bar() as progress:
        progress.add_task("encoding", total=300)
        time.sleep(0.1)
        assert not progress.disable
    assert "encoding: 0 of 300" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"total": None, "elapsed": 31.2}, "what: 31 s so far"),
        ({}, "what: 5 of 20"),
        ({"time_remaining": 41.3, "fields": {"figures": "loss 1.5"}}, "what: 5 of 20, 41 s left, loss 1.5"),
        ({"time_remaining": 301.0}, "what: 5 of 20, 5 min left"),
        ({"completed": 20, "time_remaining": 0.0}, "what: 20 of 20"),
    ],
)
def test_what_a_line_says(values, line):
    plain = {"description": "what", "total": 20, "completed": 5, "time_remaining": None, "fields": {}}
    assert progress_line(SimpleNamespace(**plain | values)) == line
