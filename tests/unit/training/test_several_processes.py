"""A recipe under torchrun: the same images, captions and losses as in one process, at uneven ranks."""

import json
import os
import subprocess
import sys

import pytest
import torch

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
    whole = Batches(data.pixels, objective, data.tokenizer, 8, 0, True)[2]
    shares = [Batches(data.pixels, objective, data.tokenizer, 8, 0, True, rank, 3)[2] for rank in range(3)]
    assert [len(share.pixels_BHWC) for share in shares] == [3, 3, 2] == list(shares[0].counts)
    assert torch.equal(torch.cat([share.pixels_BHWC for share in shares]), whole.pixels_BHWC)
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
    subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "3"),
            *("-m", "sparc_bench", "train", str(card), "--runs", str(tmp_path / "runs")),
        ],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=True,
        capture_output=True,
    )
    folder = tmp_path / "runs" / "tiny" / "seed0"
    for one, three in zip(figures(tmp_path / "one"), figures(folder), strict=True):
        assert three == pytest.approx(one, rel=1e-4)
    assert json.loads((folder / "environment.json").read_text())["processes"] == 3
    first, second = (json.loads((path / "summary.json").read_text())["val"] for path in (tmp_path / "one", folder))
    assert first.keys() == second.keys()


def to_toml(recipe):
    values = recipe.model_dump(exclude={"name"}, exclude_none=True)

    def table(entries):
        return "{ " + ", ".join(f"{key} = {text(value)}" for key, value in entries.items()) + " }"

    def text(value):
        return table(value) if isinstance(value, dict) else json.dumps(value)

    return "\n".join(f"{key} = {text(value)}" for key, value in values.items())
