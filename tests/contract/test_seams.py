"""The smallest examples in the docstrings of the four seams are complete: each is a plug-in that works."""

import importlib
import json
import textwrap

import pytest

from sparc_bench.cards import discovery
from sparc_bench.cli.app import main
from sparc_bench.training.train import train

PLUGINS = {"encoder": "mean_colour", "dataset": "squares", "protocol": "plain_top1", "objective": "image_to_text"}

TASK = """
title = "Colours of squares"
family = "classification"
dataset = "squares"
split = "test"
protocol = "plain_top1"
headline = "top1"
source = "none"

[options]
template = "a {} square"
"""


@pytest.fixture
def plugins(tmp_path, monkeypatch):
    """Each seam's example in a file of the name that its docstring gives it."""
    monkeypatch.setattr(discovery, "_plugins", {})
    files = {}
    for seam, name in PLUGINS.items():
        doc = importlib.import_module(f"sparc_bench.{seam}").__doc__
        lines = doc.splitlines()
        indented = [place for place, line in enumerate(lines) if line.startswith("    ")]
        files[seam] = tmp_path / f"{name}.py"
        files[seam].write_text(textwrap.dedent("\n".join(lines[indented[0] : indented[-1] + 1])) + "\n")
    return files


def test_the_examples_of_encoder_dataset_and_protocol_evaluate(plugins, tmp_path, capsys):
    task = tmp_path / "colours.toml"
    task.write_text(TASK)
    words = [f"python:{plugins['encoder']}", "--task", str(task), "--results", str(tmp_path / "results")]
    assert main(["eval", *words, "--plugin", str(plugins["dataset"]), "--plugin", str(plugins["protocol"])]) == 0
    [file] = (tmp_path / "results").glob("*/colours.json")
    record = json.loads(file.read_text())
    assert record["metrics"]["top1"]["value"] == 1.0
    assert record["n"] == 30


@pytest.mark.slow
def test_the_examples_are_shown_and_drawn(plugins, tmp_path, capsys):
    task = tmp_path / "colours.toml"
    task.write_text(TASK)
    words = [word for file in plugins.values() for word in ("--plugin", str(file))]
    for name in (*PLUGINS.values(), str(task)):
        assert main(["show", name, *words]) == 0
    assert "on disk" in capsys.readouterr().out
    assert main(["list", "datasets", *words]) == 0
    out = tmp_path / "map.png"
    drawn = ["scenes_clip", "squares:test:1", "--out", str(out), "--plugin", str(plugins["dataset"])]
    assert main(["align", *drawn]) == 0
    assert out.is_file()


@pytest.mark.slow
def test_the_example_of_objective_trains(plugins, tmp_path):
    recipe = (discovery.cards_folder("reference_models") / "scenes_clip.toml").read_text(encoding="utf-8")
    kept = recipe.index("[weights]")
    text = recipe[:kept].replace('objective = "clip"', 'objective = "image_to_text"')
    card = tmp_path / "recipe.toml"
    card.write_text(text)
    short = discovery.model(str(card)).model_copy(update={"steps": 3, "batch_size": 4, "eval_every": 3})
    optim = short.optim.model_copy(update={"warmup": 1})
    data = short.data.model_copy(update={"options": {"n": 12}, "val_options": {"n": 8}, "false_negatives": "keep"})
    discovery.add_plugin(plugins["objective"])
    summary = train(
        short.model_copy(update={"optim": optim, "data": data, "sees": None}), tmp_path / "run", None, 0, "cpu"
    )
    assert summary["steps"] == 3


def test_plugins_of_the_package_and_of_users_are_written_alike():
    for seam in PLUGINS:
        doc = importlib.import_module(f"sparc_bench.{seam}").__doc__
        assert f"sparc_bench/{seam}s/" in doc
        assert PLUGINS[seam] + ".py" in doc
