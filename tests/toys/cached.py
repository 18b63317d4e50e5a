"""A small encoder, images that say when they are opened, and what a process does that fills a cache with them."""

import time
from functools import partial
from pathlib import Path

import torch
from PIL import Image

from sparc_bench.cards.model_card import ModelCard
from sparc_bench.dataset import Example, Examples
from sparc_bench.encoder import ImageTextEncoder, Runtime
from sparc_bench.feature_cache import store
from sparc_bench.feature_cache.cache import FeatureCache
from sparc_bench.features import ImageFeatures, TextFeatures
from sparc_bench.images.item import ImageItem
from sparc_bench.images.view import View

ALL = frozenset({"global", "branches", "patches"})
SIDE, CELL, WIDTH = 16, 8, 24


def open_logged(log, name, seconds=0.0):
    """An image that depends on its name; the log gets a line each time."""
    with Path(log).open("a") as file:
        file.write(f"{name}\n")
    time.sleep(seconds)
    number = sum(map(ord, name))
    return Image.new("RGB", (20 + number % 5, 18), (number % 256, number * 7 % 256, number * 31 % 256))


def refuse(name):
    raise AssertionError(f"{name} was opened")


def opened(log):
    return log.read_text().split() if log.is_file() else []


def pixels_of(view):
    rows, columns = view.size or (SIDE, SIDE)
    image = view.open()
    whole = torch.frombuffer(bytearray(image.resize((columns, rows)).tobytes()), dtype=torch.uint8)
    area = view.in_original((0.0, 0.0, float(image.width), float(image.height)))
    return whole.reshape(rows, columns, 3), area


class TinyEncoder(ImageTextEncoder):
    """Random linear maps of cells of pixels and of letters."""

    gives = frozenset({"image", "text", "global", "branches", "patches", "tokens"})

    def __init__(
        self,
        options=None,
        runtime=None,
        weights="tiny 0",
        identity=("tiny", 1),
        paths=("local", "global"),
        preprocess=pixels_of,
    ):
        card = ModelCard(name="tiny", title="Tiny", family="tiny", source="none", options=options or {})
        super().__init__(card, runtime or Runtime(batch_size=8), preprocess, weights, identity and dict([identity]))
        self.paths = dict.fromkeys(paths, True)
        draw = torch.Generator().manual_seed(len(weights))
        self.map = torch.randn(CELL * CELL * 3, WIDTH, generator=draw)
        self.letters = torch.randn(256, WIDTH, generator=draw)
        self.encoded = []

    def encode_pixels(self, pixels, need):
        self.encoded.append((len(pixels), need))
        rows, columns = pixels.shape[1] // CELL, pixels.shape[2] // CELL
        cells = pixels.float().reshape(-1, rows, CELL, columns, CELL, 3).permute(0, 1, 3, 2, 4, 5)
        patches = cells.reshape(len(pixels), rows * columns, -1) @ self.map / 255
        branches = patches[:, :2] if "branches" in need else None
        found = {path: patches * (1 + k) for k, path in enumerate(self.paths)} if "patches" in need else {}
        ids = tuple(map(str, range(len(pixels))))
        grid = (rows, columns) if "patches" in need else None
        return ImageFeatures(ids, patches.mean(1) if "global" in need else None, branches, found, grid)

    def encode_texts(self, texts, need):
        self.encoded.append((len(texts), need))
        longest = max(map(len, texts))
        codes = torch.tensor([list(text.encode().ljust(longest)) for text in texts])
        tokens = self.letters[codes]
        mask = codes != 32
        return TextFeatures(tuple(texts), tokens.mean(1), *((tokens, mask) if "tokens" in need else ()))

    def untrained(self):
        return TinyEncoder(weights="untrained, seed 0", runtime=self.runtime)


def split_of(count, log, seconds=0.0, fingerprint="photos 1", **about):
    names = [f"photo{number}.jpg" for number in range(count)]
    examples = tuple(Example(name, ImageItem(name, partial(open_logged, log, name, seconds))) for name in names)
    return Examples("photos", "test", examples, fingerprint=fingerprint, **about)


def closed(data):
    """The same images, none of which may be opened."""
    return [View(ImageItem(view.id, partial(refuse, view.id)), view.window) for view in data.views]


def fill(log, images, seconds, rows):
    torch.set_num_threads(1)  # in a forked process
    store.SHARD_ROWS = rows
    photos = split_of(images, log, seconds)
    cache = FeatureCache("full")
    for _ in cache.around(TinyEncoder(runtime=Runtime(batch_size=4)), photos).stream([photos.views], ALL):
        pass
    cache.flush()
