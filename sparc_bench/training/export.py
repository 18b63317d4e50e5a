"""Export of a run's model to formats of other libraries: `sparc-bench export RUN --to open_clip|safetensors`.

- `safetensors`: one file of float32 tensors: `image.*` and `text.*` with the parameter names of timm and open_clip,
  `heads.*` with those of the loss. The metadata hold `towers` (the architecture), `recipe` and `tokenizer`. `own:FILE`
  loads the file.
- `open_clip`: a folder that `open_clip.create_model_and_transforms("local-dir:FOLDER")` and `open_clip:FOLDER` load,
  for models whose vectors are projections of the pooled outputs of open_clip's towers.

Every export is loaded again and compared with the run before it gets its final name.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from sparc_bench.encoder import Encoder, Runtime
from sparc_bench.encoders import open_clip, own
from sparc_bench.errors import UserError
from sparc_bench.files.atomic import draft, draft_path, remove_drafts, written
from sparc_bench.files.tensor_file import write_tensors
from sparc_bench.images.item import ImageItem
from sparc_bench.images.view import View
from sparc_bench.models.resolve import ResolvedModel
from sparc_bench.objective import Objective
from sparc_bench.two_towers import checkpoint
from sparc_bench.two_towers.architecture import OpenClipArchitecture
from sparc_bench.two_towers.heads import HeadedObjective
from sparc_bench.two_towers.open_clip_towers import to_open_clip
from sparc_bench.weights.open_clip_names import CONFIG

WEIGHTS = "open_clip_model.safetensors"
LARGEST = 1e-5
"""Largest difference of the export's vectors from the run's, as a share of the longest vector's length."""

_SIZES = ((97, 64), (64, 130), (80, 80), (301, 200))
_TEXTS = ("a dog", "Two children play on a red slide.", "", "a photo of a very, very long street " * 30)


def default_out(model: ResolvedModel, to: str) -> Path:
    """Default path of an export: in the current folder, by the model's name and seed."""
    seed = f".seed{model.seed}" if model.seed else ""
    return Path(f"{model.card.name}{seed}-open_clip" if to == "open_clip" else f"{model.card.name}{seed}.safetensors")


def export(model: ResolvedModel, to: str, out: Path) -> tuple[float, str]:
    """Write a run's model in another format.

    Args:
        model: a model of the family own.
        to: open_clip or safetensors.
        out: folder or file to write.

    Returns:
        The largest difference of the export's vectors from the run's, as a share of the longest vector's length, and a
        note on whatever the format leaves out ("" where it is complete).

    Raises:
        UserError: the model was not trained here, `out` exists already, or the format cannot express the model.
    """
    if model.card.family != "own" or model.weights is None:
        raise UserError(
            f"{model.card.name} was not trained here, so that there is nothing to convert: name a run folder."
        )
    if out.exists():
        raise UserError(f"{out} is there already: name another with --out, or remove it.")
    run = own.load(model.card, model.weights, Runtime())
    return _to_open_clip(run, model.weights, out) if to == "open_clip" else _to_safetensors(run, model.weights, out)


def _to_safetensors(run: own.OwnEncoder, weights: Path, file: Path) -> tuple[float, str]:
    meta, tensors = checkpoint.read(weights)
    # a frozen trunk is not in the run's file, and the exported one is to be whole
    whole = {f"model.{name}": tensor for name, tensor in run.model.state_dict().items()}
    with draft(file) as path:
        checkpoint.write_exported(path, meta, whole | tensors)
        difference = _checked(run, own.load(run.card, path, Runtime()), frozenset({"global", "patches"}))
    return difference, ""


def _to_open_clip(run: own.OwnEncoder, weights: Path, folder: Path) -> tuple[float, str]:
    meta, tensors = checkpoint.read(weights)
    towers, objective = meta.architecture, run.model.objective
    _refuse_inexpressible(run, towers)
    assert isinstance(towers, OpenClipArchitecture)
    assert isinstance(objective, HeadedObjective)
    left_out = {"init_logit_bias", "nonscalar_logit_scale"}
    config = {key: value for key, value in towers.config.items() if key not in left_out}
    named = to_open_clip(checkpoint.model_state(tensors), bool(config.get("custom_text")))
    named["logit_scale"] = objective.scale.detach().log()
    bias = getattr(objective, "bias", None)
    if isinstance(bias, Tensor):
        bias = bias.detach()
        named["logit_bias"] = bias
        config["init_logit_bias"] = bias.item()
    with _draft_folder(folder) as path:
        whole = {"model_cfg": config, "preprocess_cfg": towers.preprocess}
        (path / CONFIG).write_text(json.dumps(whole, indent=2) + "\n", encoding="utf-8")
        single = {name: tensor.to(torch.float32) for name, tensor in named.items()}
        write_tensors(single, {"format": "pt"}, path / WEIGHTS)
        again = open_clip.load(run.card.model_copy(update={"family": "open_clip"}), path, Runtime())
        difference = _checked(run, again, frozenset({"global"}))
    scored = type(objective).similarity is not Objective.similarity
    note = f" It is scored by cosines there, and {meta.recipe.objective} scores otherwise." if scored else ""
    return difference, note


def _refuse_inexpressible(run: own.OwnEncoder, towers: object) -> None:
    """Raise UserError for a model that open_clip's configuration cannot express, as far as its options tell."""
    objective, reason = run.model.objective, ""
    if not isinstance(towers, OpenClipArchitecture):
        reason = "averages the words of a text and the patches of an image, for which open_clip has no configuration"
    elif "global" not in run.gives:
        reason = f"has no image vector without a text ({run.recipe.objective})"
    elif not isinstance(objective, HeadedObjective):
        reason = f"has heads of its own ({run.recipe.objective})"
    elif not isinstance(objective.h_v, nn.Identity):
        reason = "has a non-linear layer before its projection (objective_options.image_head)"
    if reason:
        raise UserError(f"open_clip cannot express {run.card.name}, which {reason}: use --to safetensors.")


def _checked(run: own.OwnEncoder, again: Encoder, need: frozenset[str]) -> float:
    """Largest difference between both models' vectors of a few images and texts; raises UserError above `LARGEST`."""
    views = [View(ImageItem(str(k), partial(_noise, k, size))) for k, size in enumerate(_SIZES)]
    images = [model.images(views, need & model.gives) for model in (run, again)]
    texts = [model.texts(_TEXTS, frozenset({"global"})) for model in (run, again)]
    pairs = [(images[0].global_ND, images[1].global_ND), (texts[0].global_MD, texts[1].global_MD)]
    pairs += [(patches, images[1].patches[path]) for path, patches in images[0].patches.items()]
    difference = max(_difference(a, b) for a, b in pairs if a is not None and b is not None)
    if difference > LARGEST:
        raise UserError(
            f"The vectors of {run.card.name} ({run.recipe.objective}) are no projections of its pooled outputs, the "
            f"export would differ by {difference:.2g}: use --to safetensors."
        )
    return difference


def _difference(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().max() / a.norm(dim=-1).max())


def _noise(seed: int, size: tuple[int, int]) -> Image.Image:
    draw = np.random.default_rng(seed)
    return Image.fromarray(draw.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))


@contextlib.contextmanager
def _draft_folder(folder: Path) -> Iterator[Path]:
    """A temporary folder beside `folder`, renamed to it when the block succeeds and removed when it fails."""
    temporary = draft_path(folder)
    try:
        with written(folder):
            temporary.mkdir(parents=True)
            remove_drafts(folder.parent)
            yield temporary
            temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
