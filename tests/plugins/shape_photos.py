"""A data set in one file: one large shape on grey with the caption 'a photo of a {colour} {shape}'."""

from functools import partial
from math import cos, pi, sin

from PIL import Image, ImageDraw

from sparc_bench.cards.card import Strict, canonical_hash
from sparc_bench.dataset import Example, Examples
from sparc_bench.images.item import ImageItem
from sparc_bench.scenes.world import RGB

TITLE = "Rendered photos of one shape, in the wording of Mini-CLIP's training captions"
SOURCE = "rendered here, version 1; wording after https://github.com/d4nnyp73/mini-clip"
NEEDS_ON_DISK = ""
PROVIDES = frozenset({"captions", "labels"})
SPLITS = ("test",)
CORNERS = {
    "square": [(-1, -1), (1, -1), (1, 1), (-1, 1)],
    "triangle": [(0, -1), (1, 1), (-1, 1)],
    "star": [(sin(pi * k / 5) / (1 + k % 2), -cos(pi * k / 5) / (1 + k % 2)) for k in range(10)],
}
CLASSES = tuple(
    f"{colour} {shape}" for colour in ("red", "green", "blue", "yellow", "purple") for shape in ("circle", *CORNERS)
)


class Options(Strict):
    """How many."""

    n: int = 200


def draw(name, radius):
    colour, shape = name.split()
    image = Image.new("RGB", (96, 96), (110, 110, 110))
    pen = ImageDraw.Draw(image)
    if shape == "circle":
        pen.ellipse((48 - radius, 48 - radius, 48 + radius, 48 + radius), fill=RGB[colour])
    else:
        pen.polygon([(48 + radius * x, 48 + radius * y) for x, y in CORNERS[shape]], fill=RGB[colour])
    return image


def read(root, split, options):
    examples = []
    for index in range(options.n):
        label, radius = index % len(CLASSES), 28 + index // len(CLASSES) % 13
        item = ImageItem(f"{index:04d}", partial(draw, CLASSES[label], radius))
        examples.append(Example(item.id, item, (f"a photo of a {CLASSES[label]}",), label=label))
    fingerprint = canonical_hash({"shape_photos": 1, "split": split, "n": options.n})
    return Examples("shape_photos", split, tuple(examples), CLASSES, fingerprint)
