"""Commands that look import nothing that computes: they are run in a fresh process, on the cards of the project."""

import json
import subprocess
import sys

import pytest

HEAVY = ("torch", "torchvision", "open_clip", "timm", "transformers", "sklearn", "scipy", "pandas", "matplotlib")

LOOKS = [
    *(f"list {kind}" for kind in ("tasks", "models", "studies", "datasets", "objectives", "encoders", "protocols")),
    # two tasks, a recipe, a checkpoint, a study, and modules of each kind
    *("show scenes_retrieval", "show imagenet1k_knn", "show scenes_sparc", "show openai_clip_vit_b_32", "show scenes"),
    *("show scenes1", "show sparc", "show mv_dhel", "show open_clip", "show detection"),
    "data list",
]

CODE = """
import contextlib, io, json, sys
from sparc_bench.cli.app import main
heavy, before, found, said = set(json.loads(sys.argv[1])), set(), {}, {}
for command in sys.argv[2:]:
    with contextlib.redirect_stdout(io.StringIO()) as text, contextlib.redirect_stderr(text):
        code = main(command.split())
    said[command] = text.getvalue()
    found[command] = [code, sorted(heavy & sys.modules.keys() - before)]
    before |= sys.modules.keys()
print("IMPORTED", json.dumps([found, said]))
"""


def imported(*commands):
    """Command -> its exit code, and what it was the first to import of all that is heavy, in one process."""
    return ran(*commands)[0]


def ran(*commands):
    """What `imported` gives, and command -> all that it printed."""
    call = [sys.executable, "-c", CODE, json.dumps(HEAVY), *commands]
    done = subprocess.run(call, capture_output=True, text=True, check=False)
    assert "IMPORTED" in done.stdout, done.stderr
    return json.loads(done.stdout.rpartition("IMPORTED ")[2])


@pytest.fixture(scope="module")
def looked():
    return imported(*LOOKS)


@pytest.mark.slow
@pytest.mark.parametrize("command", LOOKS)
def test_looking_imports_nothing_heavy(looked, command):
    assert looked[command] == [0, []]


@pytest.mark.slow
def test_check_imports_no_torch():
    code, heavy = imported("check")["check"]
    assert code == 0
    assert not set(heavy) & {"torch", "torchvision", "open_clip", "timm", "transformers", "sklearn"}
