"""CPU time of the training steps: pauses and waiting do not count, ended processes do."""

import contextlib
import json
import subprocess
import sys
import time

import pytest

from sparc_bench.cards import discovery
from sparc_bench.training import train as training
from sparc_bench.training.cpu_clock import CpuClock
from sparc_bench.training.log import RunLog

SPIN = "import time\nwhile time.process_time() < {seconds}: pass"


def spin(seconds):
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


def test_work_counts_and_pauses_and_sleep_do_not():
    clock = CpuClock()
    spin(0.04)
    first = clock.lap()
    with clock.paused():
        spin(0.06)
    time.sleep(0.03)
    spin(0.02)
    second = clock.lap()
    assert 0.04 <= first < 0.06
    assert 0.02 <= second < 0.04
    assert clock.seconds == pytest.approx(first + second, abs=0.01)


def test_a_pause_that_fails_does_not_count_either():
    clock = CpuClock()
    with contextlib.suppress(KeyError), clock.paused():
        spin(0.05)
        raise KeyError
    assert clock.seconds < 0.02


def test_a_process_counts_when_it_has_ended():
    clock = CpuClock()
    subprocess.run([sys.executable, "-c", SPIN.format(seconds=0.15)], check=True)
    assert clock.seconds >= 0.14


@pytest.mark.slow
def test_a_training_says_what_its_steps_took_and_validation_is_left_out(tmp_path, monkeypatch):
    recipe = discovery.recipe("scenes_clip")
    tower = {"width": 24, "depth": 1, "heads": 2}
    recipe = recipe.model_copy(
        update={
            "name": "tiny",
            "batch_size": 8,
            "steps": 4,
            "eval_every": 2,
            "weights": None,
            "sees": None,
            "image": recipe.image.model_copy(update={**tower, "size": 64, "patch": 16}),
            "text": recipe.text.model_copy(update=tower),
            "optim": recipe.optim.model_copy(update={"warmup": 1}),
            "data": recipe.data.model_copy(
                update={"options": {"n": 32}, "val_options": {"n": 8}, "false_negatives": "keep"}
            ),
        }
    )

    def slow_validation(*_):
        spin(1.0)
        return {"image_to_text_r1": 0.0}

    monkeypatch.setattr(training, "validation_scores", slow_validation)
    began = time.process_time()
    summary = training.train(recipe, tmp_path / "run", None, 0, "cpu")
    whole = time.process_time() - began
    assert 0 < summary["cpu_seconds"] < whole - 2.0
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    steps = [line["cpu_seconds"] for line in lines if "cpu_seconds" in line]
    assert len(steps) == 4
    assert sum(steps) == pytest.approx(summary["cpu_seconds"], abs=0.1)


def test_a_run_that_goes_on_adds_the_steps_before_its_checkpoint_and_no_later_ones(tmp_path):
    lines = [{"step": step, "cpu_seconds": seconds} for step, seconds in ((1, 0.5), (2, 0.25), (3, 8.0))]
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in [{"note": "a"}, *lines]))
    with RunLog(tmp_path, "tiny", 2, 4, tensorboard=False) as log:
        assert log.cpu_seconds == 0.75
