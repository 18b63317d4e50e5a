"""The wheel, unpacked outside the checkout, has the cards and the kept weights and works."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from sparc_bench.cards import discovery
from sparc_bench.catalogue import data_card

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_wheel_works_outside_the_checkout(tmp_path):
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path / "dist")]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    with zipfile.ZipFile(wheel) as opened:
        opened.extractall(tmp_path / "site")
    assert (tmp_path / "site" / "sparc_bench" / "py.typed").is_file()  # for type checkers of those who import it
    script = (
        "import sparc_bench, sparc_bench.cards.discovery as d, sparc_bench.models.resolve as m\n"
        "from sparc_bench.catalogue import data_card\n"
        "from sparc_bench.encoder import Runtime\n"
        f"assert sparc_bench.__file__.startswith({str(tmp_path)!r})\n"
        "print(*d.names('tasks')); print(*d.names('models')); print(*data_card.names())\n"
        "for name in d.names('models'):\n"
        "    card = d.model(name)\n"
        "    if card.weights: m.load_encoder(m.resolve(name), Runtime())\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path / "site")},
        check=True,
        capture_output=True,
        text=True,
    )
    tasks, models, data_sets = run.stdout.splitlines()
    assert tasks.split() == discovery.names("tasks")
    assert models.split() == discovery.names("models")
    assert data_sets.split() == data_card.names()
