"""Plug-in data set: n grey images of three classes, whose ids name their class."""

from functools import partial

from PIL import Image

from sparc_bench.cards.card import Strict
from sparc_bench.dataset import Example, Examples
from sparc_bench.errors import UserError
from sparc_bench.images.item import ImageItem

PROVIDES = frozenset({"labels", "captions"})
SPLITS = {"train": "train", "test": "test"}
CLASSES = ("cat", "dog", "fire hydrant")


class Options(Strict):
    n: int = 30
    fail: bool = False
    grouped: bool = False


def read(root, split, options):
    if options.fail:
        raise UserError("The toy data are broken: leave 'fail' out.")
    examples = tuple(
        Example(
            id=f"{i:03d}-{i % 3}",
            image=ImageItem(f"{i:03d}-{i % 3}", partial(Image.new, "RGB", (8, 8))),
            captions=(f"a {CLASSES[i % 3]}",),
            label=i % 3,
            group=str(i // 2) if options.grouped else None,
        )
        for i in range(options.n)
    )
    return Examples("toy_data", split, examples, CLASSES, fingerprint=f"toy {split} {options.n}")
