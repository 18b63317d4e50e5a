"""A run's model for others: `sparc-bench export RUN --to open_clip|safetensors`.

- `safetensors`: one file of float32 tensors, `image.*` and `text.*` under the names of timm's and open_clip's modules
  and `heads.*` under the loss's; its metadata hold `towers` (what builds them), `recipe` and `tokenizer`. `own:FILE`
  loads it.
- `open_clip`: a folder that `open_clip.create_model_and_transforms("local-dir:FOLDER")` and `open_clip:FOLDER` load,
  where both vectors are projections of open_clip's own towers.

Whatever is written is loaded again and compared with the run before it gets its name.
"""

from __future__ import annotations

import contextlib
import json
import os
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
from sparc_bench.files.atomic import draft
from sparc_bench.images.item import ImageItem
from sparc_bench.models.resolve import ResolvedModel
from sparc_bench.objective import Objective
from sparc_bench.two_towers import checkpoint
from sparc_bench.two_towers.architecture import OpenClipTowers
from sparc_bench.two_towers.heads import HeadedObjective
from sparc_bench.two_towers.open_clip_towers import to_open_clip
from sparc_bench.weights.open_clip_source import CONFIG

WEIGHTS = "open_clip_model.safetensors"
LARGEST = 1e-5
"""How far vectors of the export may lie from the run's, as a share of the longest of them."""

_SIZES = ((97, 64), (64, 130), (80, 80), (301, 200))
_TEXTS = ("a dog", "Two children play on a red slide.", "", "a photo of a very, very long street " * 30)


def default_out(model: ResolvedModel, to: str) -> Path:
    """Where an export goes that nobody names: in the current folder, by the model's name and seed."""
    seed = f".seed{model.seed}" if model.seed else ""
    return Path(f"{model.card.name}{seed}-open_clip" if to == "open_clip" else f"{model.card.name}{seed}.safetensors")


def export(model: ResolvedModel, to: str, out: Path) -> tuple[float, str]:
    """Write a run's model.

    Args:
        model: of the family own.
        to: open_clip or safetensors.
        out: the folder, or the file, to write.

    Returns:
        The largest difference of a vector's number from the run's, as a share of the longest vector, and a note on what
        the export does not hold ("" where it holds all).

    Raises:
        UserError: no run, something is there already, a model that the format cannot express.
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
    with draft(file) as path:
        checkpoint.write_plain(path, *checkpoint.read(weights))
        difference = _checked(run, own.load(run.card, path, Runtime()), frozenset({"global", "patches"}))
    return difference, ""


def _to_open_clip(run: own.OwnEncoder, weights: Path, folder: Path) -> tuple[float, str]:
    meta, tensors = checkpoint.read(weights)
    towers, objective = meta.towers, run.model.objective
    _refuse_inexpressible(run, towers)
    assert isinstance(towers, OpenClipTowers)
    assert isinstance(objective, HeadedObjective)
    left_out = {"init_logit_bias", "nonscalar_logit_scale"}
    config = {key: value for key, value in towers.config.items() if key not in left_out}
    named = to_open_clip(checkpoint.of_model(tensors), bool(config.get("custom_text")))
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
        checkpoint.write_tensors(single, {"format": "pt"}, path / WEIGHTS)
        again = open_clip.load(run.card.model_copy(update={"family": "open_clip"}), path, Runtime())
        difference = _checked(run, again, frozenset({"global"}))
    scored = type(objective).similarity is not Objective.similarity
    note = f" It is scored by cosines there, and {meta.recipe.objective} scores otherwise." if scored else ""
    return difference, note


def _refuse_inexpressible(run: own.OwnEncoder, towers: object) -> None:
    """Raise UserError for what open_clip's configuration cannot say, as far as it shows without computing."""
    objective, reason = run.model.objective, ""
    if not isinstance(towers, OpenClipTowers):
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
    """The largest difference between both models' vectors of a few images and texts; raises UserError over 1e-5."""
    items = [ImageItem(str(k), partial(_noise, k, size)) for k, size in enumerate(_SIZES)]
    images = [model.images(items, need & model.gives) for model in (run, again)]
    texts = [model.texts(_TEXTS, frozenset({"global"})) for model in (run, again)]
    pairs = [(images[0].global_ND, images[1].global_ND), (texts[0].global_MD, texts[1].global_MD)]
    pairs += [(patches, images[1].patches[path]) for path, patches in images[0].patches.items()]
    difference = max(_difference(a, b) for a, b in pairs if a is not None and b is not None)
    if difference > LARGEST:
        raise UserError(
            f"The vectors of {run.card.name} ({run.recipe.objective}) are no projections of what its towers pool, an "
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
    """A new folder beside `folder`: renamed to it when the block ends well, removed when it fails."""
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.part")
    temporary.mkdir(parents=True)
    try:
        yield temporary
        temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
