"""Small captioned photos in COCO's format, and a recipe that trains on them in a second."""

import json

import numpy as np
from PIL import Image

from sparc_bench.cards.recipe import Recipe

COLOURS = {"red": (220, 30, 30), "green": (30, 200, 30), "blue": (30, 30, 220), "yellow": (230, 220, 30)}


def write_photos(root, count=24):
    """`root/own` with two captions for each photo; train and val are the same."""
    folder = root / "own" / "images"
    folder.mkdir(parents=True)
    draw = np.random.default_rng(0)
    images, captions = [], []
    for number in range(count):
        colour = list(COLOURS)[draw.integers(4)]
        pixels = np.full((48, 48, 3), 110, np.uint8)
        pixels[8:28, 4:24] = COLOURS[colour]
        name = f"{number:04}.png"
        Image.fromarray(pixels).save(folder / name)
        images.append({"id": number + 1, "file_name": name})
        for text in (f"a {colour} square at the left", f"one {colour} thing, number {number}"):
            captions.append({"image_id": number + 1, "caption": text})
    for split in ("train", "val"):
        (root / "own" / f"{split}.json").write_text(json.dumps({"images": images, "annotations": captions}))
    return root


def mend_caption(root, text="zebra zebras zoo zooms in zigzag puzzles"):
    """Another first caption in the training split."""
    file = root / "own" / "train.json"
    content = json.loads(file.read_text())
    content["annotations"][0]["caption"] = text
    file.write_text(json.dumps(content))


def photo_recipe(tiny, **changes):
    """The tiny recipe on these photos."""
    options = {"folder": "own", "annotations": "{split}.json", "images": "images"}
    data = {"dataset": "coco_captions", "options": options, "val_options": options}
    return Recipe.model_validate({**tiny.model_dump(), "data": data, **changes})
