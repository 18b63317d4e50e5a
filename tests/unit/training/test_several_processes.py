"""A recipe under torchrun: the same images, captions and losses as in one process, at uneven ranks."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from sparc_bench import distributed
from sparc_bench.cards import discovery
from sparc_bench.errors import StoppedError, UserError
from sparc_bench.training.loading import Batches
from sparc_bench.training.run_inputs import read_run_inputs
from sparc_bench.training.train import train
from sparc_bench.two_towers.model import build_model


def figures(folder):
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [(line["step"], line["loss"], line["fine_loss"]) for line in lines if "loss" in line]


def test_ranks_share_a_batch_without_changing_what_is_drawn(tiny):
    data = read_run_inputs(tiny, None)
    objective = build_model(tiny, data.tokenizer, 0).objective
    whole = Batches(data.images, objective, data.tokenizer, 8, 0, True)[2]
    shares = [Batches(data.images, objective, data.tokenizer, 8, 0, True, rank, 3)[2] for rank in range(3)]
    assert [len(share.inputs) for share in shares] == [3, 3, 2] == list(shares[0].counts)
    assert torch.equal(torch.cat([share.inputs for share in shares]), whole.inputs)
    assert sum((share.batch.captions for share in shares), ()) == whole.batch.captions
    for share in shares:
        assert torch.equal(share.batch.extra["known_true"], whole.batch.extra["known_true"])
        assert share.draw_seed == whole.draw_seed


@pytest.mark.slow
@pytest.mark.parametrize("start", ["anew", "frozen image tower"])
def test_three_processes_train_as_one(start, tiny, from_clip, tmp_path):
    if start != "anew":
        tiny = from_clip("sparc", freeze=["image"], steps=6, optim={"warmup": 2, "text_lr": 1e-4})
    train(tiny, tmp_path / "one", None, 0, "cpu")
    card = tmp_path / "tiny.toml"
    card.write_text(to_toml(tiny))
    done = torchrun(3, card, "--runs", tmp_path / "runs")
    assert done.returncode == 0, done.stderr
    assert "unused parameters" not in done.stderr
    folder = tmp_path / "runs" / "tiny" / "seed0"
    for one, three in zip(figures(tmp_path / "one"), figures(folder), strict=True):
        assert three == pytest.approx(one, rel=1e-4)
    assert json.loads((folder / "environment.json").read_text())["processes"] == 3
    first, second = (json.loads((path / "summary.json").read_text())["val"] for path in (tmp_path / "one", folder))
    assert first.keys() == second.keys()


def torchrun(processes, card, *options, **environment):
    return subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)),
            *("-m", "sparc_bench", "train", str(card), *map(str, options)),
        ],
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
    )


@pytest.mark.slow
def test_a_batch_smaller_than_the_number_of_processes_is_refused_once_and_the_report_ends_in_it(tiny, tmp_path):
    card = tmp_path / "tiny.toml"
    card.write_text(to_toml(tiny.model_copy(update={"batch_size": 2})))
    done = torchrun(3, card, "--runs", tmp_path / "runs")
    sentence = "3 processes cannot share a batch of 2: start 2 at most, or raise batch_size"
    assert done.returncode != 0
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    places = [number for number, line in enumerate(lines) if sentence in line]
    assert len(places) == 2  # said once, and by the report of torchrun
    assert places[1] >= len(lines) - 2
    assert "sparc_bench" not in "".join(line for line in lines if line.lstrip().startswith("File "))


@pytest.mark.slow
def test_what_one_process_alone_finds_is_said_by_it_alone(tiny, tmp_path):
    """Rank 1 has no room for its probe: its own sentence, and nobody waits for it."""
    card = tmp_path / "tiny.toml"
    card.write_text(to_toml(tiny))
    plugin = tmp_path / "broken_on_one.py"
    plugin.write_text(
        "import os\nfrom sparc_bench.errors import UserError\nfrom sparc_bench.training import train\n"
        "def broken(*_):\n    raise UserError('This rank has no weights: copy them there.')\n"
        "if os.environ['RANK'] == '1':\n    train.build_model = broken\n"
        "from sparc_bench.objectives.clip import *\nfrom sparc_bench.objectives.clip import Objective\n"
        "TITLE = SOURCE = 'made up'\n"
    )
    done = torchrun(2, card, "--runs", tmp_path / "runs", "--plugin", plugin)
    said = [line for line in done.stderr.splitlines() if "This rank has no weights" in line]
    assert len(said) == 2
    assert "Traceback" not in done.stderr.partition("torch/distributed")[0]
    assert len(done.stderr.splitlines()) < 60


@pytest.mark.slow
def test_a_frozen_process_is_given_up_after_the_time_that_is_set(tiny, tmp_path):
    card = tmp_path / "tiny.toml"
    card.write_text(to_toml(tiny.model_copy(update={"steps": 100_000, "eval_every": 100_000, "checkpoint_every": 2})))
    plugin = tmp_path / "frozen.py"
    plugin.write_text(
        "import os, signal\nfrom sparc_bench.training import loop\nreal, steps = loop.forward_backward, []\n"
        "def freeze(*args):\n    steps.append(1)\n"
        "    if len(steps) == 6 and os.environ['RANK'] == '1':\n        os.kill(os.getpid(), signal.SIGSTOP)\n"
        "    return real(*args)\n"
        "loop.forward_backward = freeze\n"
        "from sparc_bench.objectives.clip import Objective\nTITLE = SOURCE = 'made up'\n"
    )
    began = time.monotonic()
    done = torchrun(2, card, "--runs", tmp_path / "runs", "--plugin", plugin, SPARC_BENCH_TIMEOUT="5")
    assert time.monotonic() - began < 100  # torchrun itself waits 30 s for the frozen one
    assert done.returncode != 0
    sentence = "Another process ended, or did not answer for 5 s (SPARC_BENCH_TIMEOUT): the last good checkpoint is"
    assert sentence in done.stderr
    assert "(step 4)" in done.stderr


@pytest.mark.slow
def test_a_run_that_goes_on_in_other_processes_says_so_and_keeps_both_environments(tiny, tmp_path):
    card = tmp_path / "tiny.toml"
    card.write_text(to_toml(tiny))
    folder = tmp_path / "runs" / "tiny" / "seed0"

    def stop(step):
        if step == 4:
            raise KeyboardInterrupt

    with pytest.raises(StoppedError):
        train(tiny, folder, None, 0, "cpu", on_step=stop)
    done = torchrun(2, card, "--runs", tmp_path / "runs")
    assert done.returncode == 0, done.stderr
    assert "goes on after step 3 with 2 processes; it began with 1" in done.stderr
    assert json.loads((folder / "environment.json").read_text())["processes"] == 1
    assert json.loads((folder / "environment.step3.json").read_text())["processes"] == 2


@pytest.mark.slow
def test_the_precision_is_tried_on_a_batch_of_one_process(tiny, tmp_path):
    card = tmp_path / "tiny.toml"
    card.write_text(to_toml(tiny.model_copy(update={"precision": "auto"})))
    assert tiny.data.false_negatives == "mask"
    done = torchrun(2, card, "--runs", tmp_path / "runs", SPARC_BENCH_CACHE=str(tmp_path / "cache"))
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_a_loss_that_leaves_a_parameter_unused_trains_in_several_processes_as_in_one(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(discovery, "_plugins", {})
    plugin = Path(__file__).parents[2] / "toys" / "plugins" / "idle_head.py"
    discovery.add_plugin(plugin)
    recipe = tiny.model_copy(update={"objective": "idle_head"})
    train(recipe, tmp_path / "one", None, 0, "cpu")
    card = tmp_path / "tiny.toml"
    card.write_text(to_toml(recipe))
    done = torchrun(2, card, "--runs", tmp_path / "runs", "--plugin", plugin)
    assert done.returncode == 0, done.stderr
    one, two = ([line["loss"] for line in lines_of(path)] for path in (tmp_path / "one", tmp_path / "runs/tiny/seed0"))
    assert two == pytest.approx(one, rel=1e-4)


@pytest.mark.parametrize("value", ["0", "-1", "soon", "1.5", ""])
def test_a_senseless_time_is_refused(monkeypatch, value):
    monkeypatch.setenv("SPARC_BENCH_TIMEOUT", value)
    with pytest.raises(UserError, match="set it to a number of seconds"):
        distributed.timeout()


def lines_of(folder):
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [line for line in lines if "loss" in line]


def to_toml(recipe):
    values = recipe.model_dump(exclude={"name"}, exclude_none=True)

    def table(entries):
        return "{ " + ", ".join(f"{key} = {text(value)}" for key, value in entries.items()) + " }"

    def text(value):
        return table(value) if isinstance(value, dict) else json.dumps(value)

    return "\n".join(f"{key} = {text(value)}" for key, value in values.items())
