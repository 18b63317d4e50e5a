"""The Makefile's targets, with a stand-in for Python that writes down what it is asked to do."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[2]

PYTHON = """#!/bin/sh
echo "$(basename "$0") $*" >> "$LOG"
case "$*" in
  "-m venv "*)
    mkdir -p "$3/bin"
    for name in python ruff mypy lint-imports sparc-bench; do cp "$0" "$3/bin/$name"; done ;;
  *"pip install"*) exit "${INSTALL:-0}" ;;
esac
"""

pytestmark = pytest.mark.skipif(
    shutil.which("make") is None or not (CHECKOUT / "Makefile").is_file(), reason="needs make and a checkout"
)


@pytest.fixture
def make(tmp_path):
    shutil.copy(CHECKOUT / "Makefile", tmp_path)
    shutil.copy(CHECKOUT / "pyproject.toml", tmp_path)
    python = tmp_path / "fake-python"
    python.write_text(PYTHON)
    python.chmod(0o755)
    log = tmp_path / "log"

    def run(target: str, status: int = 0, **environment: str) -> list[str]:
        log.write_text("")
        done = subprocess.run(
            ["make", target, f"PYTHON={python}"],
            cwd=tmp_path,
            env={"PATH": os.environ["PATH"], "LOG": str(log), **environment},
            capture_output=True,
            text=True,
        )
        assert done.returncode == status, done.stdout + done.stderr
        return log.read_text().splitlines()

    return run


def installs(calls: list[str]) -> list[str]:
    return [call for call in calls if "pip install" in call]


def test_second_call_installs_nothing(make):
    first = make("quickstart")
    assert installs(first) == ["python -m pip install -e .[faithfulness]"]
    assert first[-1] == "sparc-bench quickstart"
    assert make("quickstart") == ["sparc-bench quickstart"]
    assert installs(make("results")) == []


def test_dev_installation_serves_the_others(make):
    assert installs(make("test")) == ["python -m pip install -e .[dev]"]
    assert make("test") == ["python -m pytest"]
    assert make("check") == ["ruff check .", "ruff format --check .", "mypy ", "lint-imports ", "sparc-bench check"]
    assert make("quickstart") == ["sparc-bench quickstart"]


def test_photos_need_their_trunk_and_a_folder(make, tmp_path):
    (tmp_path / "data").mkdir()
    calls = make("photos", DATA=str(tmp_path / "data"))
    assert installs(calls) == ["python -m pip install -e .[faithfulness,photos]"]
    assert calls[-1] == f"sparc-bench quickstart --data-root {tmp_path / 'data'} --results runs/photos"
    assert installs(make("quickstart")) == []
    assert make("photos", status=2) == []


def test_core_installation_is_extended_by_dev(make):
    make("quickstart")
    assert installs(make("check")) == ["python -m pip install -e .[dev]"]


def test_interrupted_installation_is_done_again(make):
    make("quickstart", status=2, INSTALL="1")
    assert installs(make("quickstart")) == ["python -m pip install -e .[faithfulness]"]


def test_changed_requirements_are_installed(make, tmp_path):
    make("quickstart")
    later = (tmp_path / ".venv/.installed-core").stat().st_mtime + 10
    os.utime(tmp_path / "pyproject.toml", (later, later))
    assert installs(make("quickstart")) == ["python -m pip install -e .[faithfulness]"]


def test_wheel_needs_pip_alone(make):
    calls = make("wheel")
    assert installs(calls) == []
    assert calls[-1] == "python -m pip wheel --no-deps --wheel-dir dist ."
