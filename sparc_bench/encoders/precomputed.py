"""Embeddings computed by another program: an API, another framework, a brain recording.

MODEL is `precomputed:PATH`; a card names the path as its option `weights`. PATH is a folder, or one .npz or
.safetensors file, that holds arrays by name:

    image_embeddings  N x D   one vector per image, with image_ids
    text_embeddings   M x D   one vector per text, with texts
    image_patches     N x P x D, optional: patches in the joint space, row-major
    patch_grid        rows and columns of the patches
    image_areas       N x 4, optional: pixels of the embedded image or crop that the patches cover (left, top, right,
                      bottom); default: all

In a folder, an array is a file NAME.npy (memory-mapped) or part of a .npz or .safetensors file. Vectors are float16,
bfloat16, float32 or float64, of any length; scores are cosines. image_ids and texts are lists of strings: an array of
that name, JSON in the metadata of a .safetensors file, inputs.json ({"image_ids": [...], "texts": [...]}), or
metadata.csv with the columns image_id and caption and one row for each row of both arrays. Rows with the same name
must have the same vector. `sparc-bench show TASK --out inputs.json` writes the ids and texts that a task needs, in the
wording of its prompts. Texts match by their exact string, images by id or by the name of their file, with or without a
suffix such as .jpg; the id of a crop ends in its box: photo.jpg[left,top,right,bottom].
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from sparc_bench.cards.card import Strict, parse
from sparc_bench.cards.model_card import ModelCard
from sparc_bench.encoder import ImageTextEncoder, Runtime
from sparc_bench.encoders._stored_vectors import NamedVectors, StoredVectors, read_vectors
from sparc_bench.errors import UserError
from sparc_bench.features import ImageFeatures, TextFeatures
from sparc_bench.images.item import Box
from sparc_bench.images.view import View, in_batches

TITLE = "embeddings computed elsewhere, with their ids: .npy, .npz or .safetensors; no image is opened"
SOURCE = "the program that computed them"

VERSION = 1
"""Version of this family's arithmetic; it grows with every change of a vector, so that cached features expire."""

PATH_NAME = "stored"
"""Name of the patch path."""


class Options(Strict):
    """Options of a card of stored embeddings."""

    weights: str = Field(default="", description="folder or file of the embeddings, relative to the working directory")
    trained_patches: bool = Field(default=False, description="whether a loss trained the patches that are stored")


class StoredEncoder(ImageTextEncoder):
    """Encoder that looks up stored vectors (see `sparc_bench.encoder.Encoder`), on the CPU, in the files' precision."""

    def __init__(self, card: ModelCard, stored: StoredVectors, options: Options, runtime: Runtime) -> None:
        sides = [side for side in (stored.images, stored.texts) if side is not None]
        precision = str(sides[0].rows.dtype)
        super().__init__(card, Runtime("cpu", precision, runtime.batch_size, 0), _opened, stored.sha256)
        self._stored = stored
        self.gives = frozenset(
            {"global"}
            | ({"image"} if stored.images is not None else set())
            | ({"text"} if stored.texts is not None else set())
            | ({"patches"} if stored.patches_NPD is not None else set())
        )
        self.paths = {PATH_NAME: options.trained_patches} if stored.patches_NPD is not None else {}
        self.opens_images = stored.patches_NPD is not None and stored.areas_N4 is None  # for their sizes

    def held(self) -> tuple[list[str], list[str]]:
        """Image ids and texts with stored vectors."""
        return list(self._stored.images or ()), list(self._stored.texts or ())

    def preprocess(self, view: View) -> tuple[Tensor, Box]:
        """An empty tensor instead of pixels, and the area that the image's patches cover."""
        rows = self._image_rows([view])
        left, top, right, bottom = self._areas([view], rows)[0].tolist()
        return torch.empty(0), (left, top, right, bottom)

    def stream(self, groups: Iterable[Sequence[View]], need: frozenset[str]) -> Iterator[ImageFeatures]:
        """Stored features; missing images of a group are reported before its first batch."""
        for group in groups:
            rows = iter(self._image_rows(group))
            for views in in_batches([group], self.runtime.batch_size):
                yield self._features(views, [next(rows) for _ in views], need)

    def texts(self, texts: Sequence[str], need: frozenset[str]) -> TextFeatures:
        """Stored vectors of texts, found by their exact string."""
        stored = self._side(self._stored.texts, "text")
        rows, missing = _found(stored, texts)
        if missing:
            close = difflib.get_close_matches(missing[0], list(stored), n=1, cutoff=0.5)
            near = f"; the nearest there is {close[0]!r}" if close else ""
            raise UserError(
                f"{self.card.name} has no vectors of {len(missing)} of {len(set(texts))} texts, the first is "
                f"{missing[0]!r}{near}: embed the texts exactly as the task writes them, which "
                "sparc-bench show TASK --out inputs.json lists."
            )
        return TextFeatures(tuple(texts), _rows(stored.rows, rows) if "global" in need else None)

    def _features(self, views: Sequence[View], rows: Sequence[int], need: frozenset[str]) -> ImageFeatures:
        stored, ids = self._stored, tuple(view.id for view in views)
        global_ND = _rows(self._side(stored.images, "image").rows, rows) if "global" in need else None
        if "patches" not in need or stored.patches_NPD is None:
            return ImageFeatures(ids, global_ND)
        patches = {PATH_NAME: _rows(stored.patches_NPD, rows)}
        return ImageFeatures(ids, global_ND, None, patches, stored.grid, self._areas(views, rows))

    def _image_rows(self, views: Sequence[View]) -> list[int]:
        stored = self._side(self._stored.images, "image")
        rows: list[int] = []
        missing: dict[str, str] = {}
        for view in views:
            if view.size is not None:
                raise UserError(f"{self.card.name} holds vectors of one input size only: leave the size out.")
            file_name = view.item.file_name
            named = [stored_id(view), *([stored_name(file_name, view)] if file_name else [])]
            row = next((row for name in named if (row := stored.find(name)) is not None), None)
            if row is None:
                missing[named[0]] = named[-1]
            else:
                rows.append(row)
        if missing:
            first, file_name = next(iter(missing.items()))
            or_file = f" (or {file_name!r})" if file_name != first else ""
            raise UserError(
                f"{self.card.name} has no vectors of {len(missing)} of {len({stored_id(view) for view in views})} "
                f"images, the first is {first!r}{or_file}: embed the images that sparc-bench show TASK --out "
                "inputs.json lists, and add them."
            )
        return rows

    def _areas(self, views: Sequence[View], rows: Sequence[int]) -> Tensor:
        if self._stored.areas_N4 is None:
            sizes = [view.open().size for view in views]
            areas = [(0.0, 0.0, float(width), float(height)) for width, height in sizes]
        else:
            areas = [(row[0], row[1], row[2], row[3]) for row in _rows(self._stored.areas_N4, rows).tolist()]
        return torch.tensor([view.in_original(area) for view, area in zip(views, areas, strict=True)])

    def _side(self, side: NamedVectors | None, what: str) -> NamedVectors:
        if side is None:
            raise UserError(f"{self.card.name} holds no {what}_embeddings: add them, or leave this task out.")
        return side


def stored_id(view: View) -> str:
    """Name of the stored vector of an image or of a window of it.

    >>> from sparc_bench.images.item import ImageItem
    >>> stored_id(View(ImageItem("dog.jpg", open), window=(0.0, 8.0, 31.6, 40.0)))
    'dog.jpg[0,8,32,40]'
    """
    return stored_name(view.id, view)


def stored_name(image: str, view: View) -> str:
    """Name of the stored vector of a view whose image has the name `image`."""
    return image if view.window is None else f"{image}[{','.join(str(round(edge)) for edge in view.window)}]"


def load(card: ModelCard, weights: Path | None, runtime: Runtime) -> StoredEncoder:
    """The encoder of a folder or file of embeddings.

    Raises:
        UserError: the card names no path, or the path holds no embeddings (see `read_vectors`).
    """
    options = parse(Options, card.options, f"The card of {card.name}, table [options]")
    if weights is None and not options.weights:
        raise UserError(f'The card of {card.name} names no embeddings: add weights = "FOLDER" to its [options].')
    path = Path(options.weights).expanduser() if weights is None else weights
    return StoredEncoder(card, read_vectors(path), options, runtime)


def _opened(view: View) -> tuple[Tensor, Box]:
    raise RuntimeError(f"stored embeddings open no image, but were given {view.id}")


def _found(stored: NamedVectors, names: Sequence[str]) -> tuple[list[int], list[str]]:
    """Rows of the stored names, and the missing names without repetition."""
    rows = [stored.find(name) for name in names]
    missing = dict.fromkeys(name for name, row in zip(names, rows, strict=True) if row is None)
    return [row for row in rows if row is not None], list(missing)


def _rows(vectors: np.ndarray, rows: Sequence[int]) -> Tensor:
    return torch.from_numpy(np.array(vectors[list(rows)], dtype=np.float32))
