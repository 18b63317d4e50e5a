"""SIGTERM, SIGUSR1 and Ctrl-C end the step under way, leave its checkpoint, and say what is left."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from sparc_bench.cards.recipe import training_settings
from sparc_bench.errors import StoppedError
from sparc_bench.training import train as run_module
from sparc_bench.training.train import train
from sparc_bench.two_towers import checkpoint
from tests.unit.training.test_several_processes import to_toml
from tests.unit.training.test_train import assert_same_weights, losses

pytestmark = pytest.mark.slow

SIGNALS = [(signal.SIGTERM, "SIGTERM", 143), (signal.SIGUSR1, "SIGUSR1", 138), (signal.SIGINT, "Ctrl-C", 130)]


def sends(number, at):
    return lambda step: os.kill(os.getpid(), number) if step == at else None


@pytest.mark.parametrize(("number", "name", "code"), SIGNALS)
def test_a_signal_leaves_a_checkpoint_of_its_step_from_which_the_run_goes_on(tiny, tmp_path, number, name, code):
    folder = tmp_path / "cut"
    found = (
        rf"Stopped by {name}: the last good checkpoint is .*checkpoint\.safetensors \(step 4\), and the same command"
    )
    with pytest.raises(StoppedError, match=found) as stopped:
        train(tiny, folder, None, 0, "cpu", on_step=sends(number, 4))
    assert stopped.value.code == code
    assert train(tiny, folder, None, 0, "cpu")["resumed_from"] == 4
    train(tiny, tmp_path / "whole", None, 0, "cpu")
    assert losses(folder) == losses(tmp_path / "whole")
    assert_same_weights(folder, tmp_path / "whole")


def test_before_the_first_step_nothing_is_promised(tiny, tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(run_module, "read_run_inputs", interrupted)
    with pytest.raises(
        StoppedError, match=r"no checkpoint was written yet, and the same command begins anew"
    ) as stopped:
        train(tiny, tmp_path / "run", None, 0, "cpu")
    assert stopped.value.code == 130


def test_a_validation_is_cut_short_and_made_up_for_when_the_run_goes_on(tiny, tmp_path, monkeypatch):
    folder, real = tmp_path / "run", run_module.validation_scores

    def slow(*args):
        os.kill(os.getpid(), signal.SIGTERM)
        return real(*args)

    monkeypatch.setattr(run_module, "validation_scores", slow)
    with pytest.raises(StoppedError, match=r"\(step 3\)"):
        train(tiny, folder, None, 0, "cpu")
    monkeypatch.setattr(run_module, "validation_scores", real)
    train(tiny, folder, None, 0, "cpu")
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "val" in line] == [3, 6]


def test_a_second_signal_ends_at_once_and_leaves_the_former_checkpoint(tiny, tmp_path):
    def twice(step):
        if step == 5:
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(StoppedError, match=r"\(step 3\)"):
        train(tiny, tmp_path / "run", None, 0, "cpu", on_step=twice)


def test_checkpoints_come_as_often_as_the_recipe_says_and_change_no_weights(tiny, tmp_path):
    often = tiny.model_copy(update={"checkpoint_every": 2})
    assert training_settings(often) == training_settings(tiny)
    seen = []
    file = tmp_path / "run" / "checkpoint.safetensors"

    def note(step):
        seen.append((step, checkpoint.read_meta(file).step if file.is_file() else 0))

    train(often, tmp_path / "run", None, 0, "cpu", on_step=note)
    assert seen == [(1, 0), (2, 0), (3, 2), (4, 3), (5, 4), (6, 4)]
    train(tiny, tmp_path / "plain", None, 0, "cpu")
    assert_same_weights(tmp_path / "run", tmp_path / "plain")


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_the_command_exits_with_128_and_the_signal_and_says_the_step(tiny, tmp_path, processes):
    card = tmp_path / "tiny.toml"
    card.write_text(to_toml(tiny.model_copy(update={"steps": 100_000, "eval_every": 100_000})))
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"] if processes == 2 else []
    command = [sys.executable, *launcher, "-m", "sparc_bench", "train", str(card), "--runs", str(tmp_path)]
    with subprocess.Popen(
        command, env={**os.environ, "OMP_NUM_THREADS": "1"}, stderr=subprocess.PIPE, text=True
    ) as process:
        log = tmp_path / "tiny" / "seed0" / "log.jsonl"
        while not (log.is_file() and '"step": 3' in log.read_text()):
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.2)
        process.send_signal(signal.SIGTERM)
        said = process.communicate(timeout=120)[1]
    assert "Stopped by SIGTERM: the last good checkpoint is" in said
    step = checkpoint.read_meta(log.parent / "checkpoint.safetensors").step
    assert step >= 3
    assert f"(step {step})" in said
    if processes == 1:
        assert process.returncode == 143
        assert len([line for line in said.splitlines() if "of 100000" not in line]) == 1
