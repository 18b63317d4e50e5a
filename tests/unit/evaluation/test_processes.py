"""An evaluation that is killed, or shared by processes of torchrun, writes the record of one undisturbed process."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
TASKS = ("scenes_retrieval", "scenes_regions_colour")
WORDS = ("eval", "scenes_sparc", "--limit", "90", "--batch-size", "8", "--workers", "0", "--cache", "off")


def started(results: Path, processes: int = 1) -> subprocess.Popen[str]:
    launcher = ["torch.distributed.run", "--nproc-per-node", str(processes), "-m"] if processes > 1 else []
    tasks = [word for task in TASKS for word in ("--task", task)]
    return subprocess.Popen(
        [sys.executable, "-m", *launcher, "sparc_bench", *WORDS, *tasks, "--results", str(results)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def records(results: Path) -> list[tuple[dict[str, object], bytes]]:
    assert not list(results.rglob("*.partial"))
    files = sorted(results.rglob("*.json"))
    assert len(files) == len(TASKS)
    return [({**json.loads(file.read_text()), "seconds": 0}, file.with_suffix(".npz").read_bytes()) for file in files]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    process = started(folder)
    assert process.communicate(timeout=200)[1] is not None
    assert process.returncode == 0
    return records(folder)


def some_blocks(results: Path, process: subprocess.Popen[str]) -> None:
    """Wait until a few blocks are there."""
    until = time.monotonic() + 120
    while len(list(results.rglob("*.partial/**/*.npz"))) < 3:
        assert process.poll() is None
        assert time.monotonic() < until
        time.sleep(0.02)


@pytest.mark.slow
@pytest.mark.parametrize("processes", [2, 3])
def test_shared_by_processes(processes: int, undisturbed, tmp_path: Path):
    process = started(tmp_path, processes)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert out.count("scenes_retrieval") == 1
    assert records(tmp_path) == undisturbed


@pytest.mark.slow
def test_killed_and_gone_on_with(undisturbed, tmp_path: Path):
    process = started(tmp_path)
    some_blocks(tmp_path, process)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    again = started(tmp_path)
    _, err = again.communicate(timeout=200)
    assert again.returncode == 0, err
    assert records(tmp_path) == undisturbed


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code", "name"), [(signal.SIGTERM, 143, "SIGTERM"), (signal.SIGINT, 130, "Ctrl-C")])
def test_a_stop_says_where_the_blocks_are(number: int, code: int, name: str, tmp_path: Path):
    process = started(tmp_path)
    some_blocks(tmp_path, process)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == code
    said = rf"Stopped by {name}: (\d+) of \d+ blocks are kept in (\S+\.partial\S*), and the same command goes on from"
    found = re.search(said, err)
    assert found, err
    assert len(list(Path(found[2]).glob("*.npz"))) == int(found[1])
    assert "Traceback" not in err


@pytest.mark.slow
def test_a_process_that_dies_ends_the_others_and_is_named(undisturbed, tmp_path: Path):
    process = started(tmp_path, 3)
    some_blocks(tmp_path, process)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    ranks = {_rank(child): int(child) for child in children}
    begun = time.monotonic()
    os.kill(ranks["1"], signal.SIGKILL)
    _, err = process.communicate(timeout=60)
    assert time.monotonic() - begun < 30
    assert process.returncode != 0
    assert err.count("Process 1 of 3") == 1
    again = started(tmp_path)
    assert again.communicate(timeout=200)[1] is not None
    assert again.returncode == 0
    assert records(tmp_path) == undisturbed


def _rank(process: str) -> str:
    words = Path(f"/proc/{process}/environ").read_bytes().split(b"\0")
    return next((word[5:].decode() for word in words if word.startswith(b"RANK=")), "")
