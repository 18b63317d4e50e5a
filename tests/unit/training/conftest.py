"""A recipe that trains in a second, a checkpoint of open_clip to start from, and a cache folder of the test's own."""

import json
import math

import open_clip
import pytest
import torch
from safetensors.torch import save_file

from sparc_bench.cards.recipe import Recipe

MINI = {
    "embed_dim": 16,
    "quick_gelu": True,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 16, "head_width": 8, "patch_size": 8},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 8, "heads": 2, "layers": 2},
}
MINI_PREPROCESS = {"mean": [0.48, 0.45, 0.4], "std": [0.27, 0.26, 0.28], "interpolation": "bicubic"}


def write_mini_clip(folder, seed=0, **changes):
    """A folder as open_clip saves one: a small model with random weights; tables in `changes` are merged."""
    config = {key: {**value} if isinstance(value, dict) else value for key, value in MINI.items()}
    for key, value in changes.items():
        config[key] = {**config[key], **value} if isinstance(value, dict) else value
    folder.mkdir(parents=True)
    values = {"model_cfg": config, "preprocess_cfg": {**MINI_PREPROCESS, "resize_mode": "shortest"}}
    (folder / "open_clip_config.json").write_text(json.dumps(values))
    kind = open_clip.CustomTextCLIP if config.get("custom_text") else open_clip.CLIP
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = kind(**{key: value for key, value in config.items() if key != "custom_text"})
    model.logit_scale.data.fill_(math.log(30))
    tensors = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    save_file(tensors, folder / "open_clip_model.safetensors")
    return folder


@pytest.fixture(scope="session")
def mini_clip(tmp_path_factory):
    return write_mini_clip(tmp_path_factory.mktemp("checkpoints") / "mini_clip")


@pytest.fixture
def from_clip(tiny, mini_clip):
    """The tiny recipe, from mini_clip, with another objective and other keys: `from_clip("pacl", freeze=["image"])`."""

    def made(objective="clip", init=f"open_clip:{mini_clip}", **changes):
        values = tiny.model_dump(exclude={"image", "text", "objective_options"})
        return Recipe.model_validate({**values, "objective": objective, "init": init, "steps": 3, **changes})

    return made


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    monkeypatch.setenv("SPARC_BENCH_CACHE", str(tmp_path / "cache"))
    return Recipe.model_validate(
        {
            "name": "tiny",
            "title": "for tests",
            "source": "none",
            "objective": "sparc",
            "objective_options": {"dim": 16},
            "data": {
                "dataset": "scenes1",
                "options": {"n": 48},
                "val_options": {"n": 16},
                "false_negatives": "mask",
            },
            "image": {"model": "vit_tiny_patch16_224", "size": 64, "patch": 16, "width": 24, "depth": 1, "heads": 2},
            "text": {"width": 16, "depth": 1, "heads": 2, "context": 48, "tokenizer": "own", "vocabulary": 320},
            "optim": {"warmup": 2},
            "batch_size": 8,
            "steps": 6,
            "eval_every": 3,
            "precision": "float32",
        }
    )
