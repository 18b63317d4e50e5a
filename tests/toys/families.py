"""A small random model of every family of encoders, and images and texts to give it."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path

import numpy as np
from PIL import Image

from sparc_bench.cards import discovery
from sparc_bench.cards.recipe import Recipe
from sparc_bench.cards.task_card import TaskCard
from sparc_bench.cli.task_inputs import TaskInputs, task_inputs
from sparc_bench.encoders.precomputed import stored_id
from sparc_bench.images.item import ImageItem
from sparc_bench.two_towers import checkpoint
from sparc_bench.two_towers.model import build_model
from tests.plugins import tiny_mini_clip
from tests.toys import tiny_open_clip
from tests.toys.encoders import noise

MINI_CLIP = Path(__file__).parents[1] / "plugins" / "mini_clip.py"

TEXTS = ("a photo of a cat", "A Photo of a CAT!", "two dogs, one red ball.", "zebra " * 30, "42", "a red star", "")
SIZES = ((90, 60), (60, 91), (33, 120), (64, 64), (120, 37), (32, 32), (47, 46))
CROP = (10.0, 5.0, 50.0, 45.0)


def picture(seed: int, width: int, height: int) -> Image.Image:
    """Smooth colours, like no other seed's."""
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 5, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def items(count: int) -> list[ImageItem]:
    """Images of different shapes."""
    return [ImageItem(f"{at}.jpg", partial(picture, at, *SIZES[at % len(SIZES)])) for at in range(count)]


def cropped() -> tuple[ImageItem, ImageItem]:
    """A part of an image, and the same part as an image of its own, which is called like it."""
    part = ImageItem("0.jpg", partial(picture, 0, *SIZES[0]), CROP)
    return part, ImageItem(stored_id(part), part.open)


def task(name: str = "scenes_classification_shape", **data: object) -> TaskCard:
    """A task of 36 scenes: enough for loader workers to be started."""
    card = discovery.task(name)
    return card.model_copy(update={"data": {**card.data, "n": 36, **data}, "expect": {}, "references": ()})


@cache
def inputs() -> TaskInputs:
    """Of the task."""
    return task_inputs(task(), None)


def own(folder: Path) -> str:
    recipe = discovery.recipe("scenes_sparc")
    values = recipe.model_dump(exclude={"weights"}) | {"name": "tiny", "objective_options": {"dim": 16}}
    values["image"] |= {"width": 24, "depth": 1, "heads": 2}
    values["text"] |= {"width": 16, "depth": 1, "heads": 2, "tokenizer": "open_clip"}
    tiny = Recipe.model_validate(values)
    meta = checkpoint.Meta(tiny, 0, tiny.steps, "", {"cat": 3})
    model = build_model(tiny, meta.architecture.tokenizer(""), 0)
    checkpoint.write_checkpoint(checkpoint.model_tensors(model), meta, folder / "model.safetensors")
    return f"own:{folder}"


def open_clip(folder: Path) -> str:
    return f"open_clip:{tiny_open_clip.folder(folder, 'vit')}"


def transformers(folder: Path) -> str:
    from tests.toys import tiny_transformers

    return f"transformers:{tiny_transformers.clip(folder)}"


def precomputed(folder: Path) -> str:
    names = [*(item.id for item in items(40)), cropped()[1].id, *inputs().items]
    strings = list(dict.fromkeys((*TEXTS, *inputs().texts)))
    np.save(folder / "image_embeddings.npy", np.stack([noise(name, 16) for name in names]).astype(np.float32))
    np.save(folder / "text_embeddings.npy", np.stack([noise(text, 16) for text in strings]).astype(np.float32))
    (folder / "inputs.json").write_text(json.dumps({"image_ids": names, "texts": strings}))
    return f"precomputed:{folder}"


def python(folder: Path) -> str:
    return f"python:{MINI_CLIP}:{tiny_mini_clip.write(folder / 'tiny.pt', discovery.add_plugin(MINI_CLIP).towers)}"


FAMILIES: dict[str, Callable[[Path], str]] = {
    "own": own,
    "open_clip": open_clip,
    "transformers": transformers,
    "precomputed": precomputed,
    "python": python,
}
"""Family -> writes a small random model into an empty folder and returns the word that names it as MODEL."""

OTHER_OPTIONS: dict[str, dict[str, object]] = {
    "open_clip": {"patches": "value"},
    "transformers": {"patches": "value"},
}
"""Family -> options under which its vectors are others."""
