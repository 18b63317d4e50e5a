"""NaN and infinity stop a run before a checkpoint holds them, and the same command goes on from the last good one."""

import math
from itertools import count

import pytest
import torch
from safetensors.torch import load_file

from sparc_bench.cards.recipe import Recipe
from sparc_bench.errors import UserError
from sparc_bench.training import keep_model
from sparc_bench.training import train as run_module
from sparc_bench.training.initial_model import initial_model
from sparc_bench.training.loop import clip_gradients
from sparc_bench.training.train import train
from sparc_bench.two_towers import checkpoint

pytestmark = pytest.mark.slow


@pytest.fixture
def damaged(monkeypatch):
    """Damage the model after the backward pass of a step: `damaged(5, change)`; the loss stays finite."""

    def at(step, change):
        real, steps = run_module.forward_backward, count(1)

        def forward_backward(model, loaded, device, autocast):
            figures = real(model, loaded, device, autocast)
            if next(steps) == step:
                change(model)
            return figures

        monkeypatch.setattr("sparc_bench.training.loop.forward_backward", forward_backward)

    return at


def bad_gradient(value):
    def change(model):
        parameter = next(model.parameters())
        parameter.grad[..., 0] = value

    return change


def bad_weight(model):
    next(model.parameters()).data[..., 0] = math.inf


def finite(file):
    return all(bool(tensor.isfinite().all()) for tensor in load_file(file).values())


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("clip", [None, 1.0])
def test_a_gradient_that_is_not_finite_in_the_last_step_leaves_no_model(tiny, tmp_path, damaged, value, clip):
    recipe = tiny.model_copy(update={"optim": tiny.optim.model_copy(update={"clip": clip})})
    damaged(6, bad_gradient(value))
    found = r"gradient of towers\.image\.\S+ is not finite at step 6: .*checkpoint\.safetensors \(step 3\)"
    with pytest.raises(UserError, match=found):
        train(recipe, tmp_path / "run", None, 0, "cpu")
    assert not (tmp_path / "run" / "model.safetensors").exists()
    assert finite(tmp_path / "run" / "checkpoint.safetensors")


def test_the_same_command_goes_on_from_the_last_good_checkpoint(tiny, tmp_path, damaged, monkeypatch):
    damaged(5, bad_gradient(math.nan))
    with pytest.raises(UserError, match=r"at step 5: .* the same command goes on from it"):
        train(tiny, tmp_path / "run", None, 0, "cpu")
    monkeypatch.undo()
    monkeypatch.setenv("SPARC_BENCH_CACHE", str(tmp_path / "cache"))
    assert train(tiny, tmp_path / "run", None, 0, "cpu")["resumed_from"] == 3
    assert finite(tmp_path / "run" / "model.safetensors")


def test_weights_that_are_not_finite_never_replace_a_checkpoint(tiny, tmp_path, damaged):
    damaged(6, bad_weight)
    with pytest.raises(UserError, match=r"parameter towers\.image\.\S+ .* not finite at step 6: .*\(step 3\)"):
        train(tiny, tmp_path / "run", None, 0, "cpu")
    assert finite(tmp_path / "run" / "checkpoint.safetensors")


def test_a_checkpoint_of_nan_is_refused_by_name_and_says_what_to_do(tiny, tmp_path, damaged):
    damaged(5, bad_gradient(math.nan))
    with pytest.raises(UserError):
        train(tiny, tmp_path / "run", None, 0, "cpu")
    file = tmp_path / "run" / "checkpoint.safetensors"
    spoil(file)
    with pytest.raises(UserError, match=r"NaN or infinite: .* delete .*checkpoint\.safetensors to train anew"):
        train(tiny, tmp_path / "run", None, 0, "cpu")


def test_a_model_of_nan_is_neither_kept_nor_trained_further(tiny, tmp_path):
    train(tiny, tmp_path / "run", None, 0, "cpu")
    spoil(tmp_path / "run" / "model.safetensors")
    with pytest.raises(UserError, match="NaN or infinite"):
        keep_model.keep_model(tmp_path / "run", tmp_path)
    values = tiny.model_dump(exclude={"image", "text"})
    onward = Recipe.model_validate({**values, "name": "onward", "init": str(tmp_path / "run")})
    with pytest.raises(UserError, match="NaN or infinite"):
        initial_model(onward)


def spoil(file):
    meta, tensors = checkpoint.read(file)
    first = next(iter(name for name in tensors if name.startswith("model.towers")))
    tensors[first] = torch.full_like(tensors[first], math.nan)
    checkpoint.write_checkpoint(tensors, meta, file)


def test_the_norm_is_that_of_clipping_and_without_a_limit_no_gradient_changes():
    layer = torch.nn.Linear(3, 2)
    layer(torch.ones(1, 3)).sum().backward()
    before = [parameter.grad.clone() for parameter in layer.parameters()]
    assert clip_gradients(layer, None, 1) == pytest.approx(math.sqrt(8))
    assert all(torch.equal(a, b.grad) for a, b in zip(before, layer.parameters(), strict=True))
    assert clip_gradients(layer, 1.0, 1) == pytest.approx(math.sqrt(8))
    assert clip_gradients(layer, None, 1) == pytest.approx(1, abs=1e-5)
