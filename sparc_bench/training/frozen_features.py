"""Features of a frozen image tower for training: computed once into a cached file, which takes the place of pixels.

A table beside the file says what its features are of and by, which images could not be read, and a checksum; features
that are not those are computed again.

Shapes: N images, B images of a batch, S vectors of an image (pooled outputs, then patches), W their width, V their
width after a projection.
"""

from __future__ import annotations

import json
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy import ndarray
from torch import Tensor

from sparc_bench.cards.card import canonical_hash
from sparc_bench.cards.name import as_part
from sparc_bench.dataset import Examples
from sparc_bench.errors import UnreadableImageError, UserError
from sparc_bench.files.atomic import draft, reserve, write_atomic
from sparc_bench.files.cache_folder import cache_folder
from sparc_bench.files.json_text import json_value
from sparc_bench.files.lock import locked
from sparc_bench.files.refusal import remedy
from sparc_bench.images.decoding import pixel_batches
from sparc_bench.images.item import Box
from sparc_bench.images.view import View
from sparc_bench.training.frozen_tower import BATCH, FrozenTower
from sparc_bench.training.pixels import refuse_too_many
from sparc_bench.two_towers.half_precision import halved
from sparc_bench.two_towers.image_transform import ImageTransform

FOLDER = "frozen_features"
"""Folder of these files within the cache folder."""

FEATURES_LIMIT = 64 * 2**30
"""Largest size of the features of a split, in bytes; a larger split goes through the tower in each step."""

STORED = np.float16
"""Type of the stored numbers."""

VERSION = 1
"""Version of the files and of what is computed into them."""

_BLOCK = 2**22
_ROWS = 256
"""Images that are projected at once."""


@dataclass(frozen=True)
class FrozenFeatures:
    """Features of the readable images of a split by a frozen image tower, in half precision.

    Attributes:
        data: the split.
        transform: transform from an image to the tower's pixels.
        index: rows of the split that are readable, in order.
        unreadable: ids of the unreadable images, which are left out.
        array_NSV: features of the rows in `index`.
        about: all that decides the features.
        projected_from: the features before the projection; None without one.
    """

    data: Examples
    transform: ImageTransform
    index: tuple[int, ...]
    unreadable: tuple[str, ...]
    array_NSV: ndarray
    about: Mapping[str, Any] = field(repr=False)
    projected_from: FrozenFeatures | None = None

    in_file = True

    def __len__(self) -> int:
        return len(self.index)

    def rows(self, positions: Sequence[int]) -> ndarray:
        """Features at positions in `index`."""
        return np.asarray(self.array_NSV[list(positions)])

    def blocks(self) -> Iterator[ndarray]:
        """All features, in float32, some images at a time."""
        for start in range(0, len(self), _ROWS):
            yield self.array_NSV[start : start + _ROWS].astype(np.float32)

    def projected(self, projection_WV: Tensor) -> FrozenFeatures:
        """The features by a projection, from a cached file of their own."""
        source, matrix_WV = self.projected_from or self, projection_WV.detach().cpu().float().contiguous()
        about = {**source.about, "projection": sha256(matrix_WV.numpy().tobytes()).hexdigest()}
        shape = (len(source), source.array_NSV.shape[1], matrix_WV.shape[1])

        def rows() -> Iterator[tuple[Sequence[str], Tensor]]:
            for block_BSW in source.blocks():
                yield (), halved(torch.from_numpy(block_BSW) @ matrix_WV, (), source.data.dataset)

        array_NSV, _ = _kept(source.data, about, shape, rows, source.unreadable)
        return replace(source, array_NSV=array_NSV, about=about, projected_from=source)


def load_features(
    data: Examples,
    tower: FrozenTower,
    max_unreadable: float,
    advance: Callable[[int, int], None] = lambda _done, _total: None,
    workers: int = 0,
) -> FrozenFeatures:
    """Features of a split before any projection, computed once into a memory-mapped file that other runs share.

    Args:
        data: the split.
        tower: the frozen tower.
        max_unreadable: largest share of unreadable images; they are left out.
        advance: called with (done, total) as images are computed.
        workers: processes that decode images while the tower computes.

    Raises:
        UserError: too many images are unreadable, a feature does not fit half precision, or the disk has no room.
    """
    contents = [[example.id, example.image.content or data.fingerprint] for example in data]
    about = {
        "version": VERSION,
        "data": [data.dataset, data.split, canonical_hash(contents)],
        "pixels": [*tower.transform.key, tower.transform.mean, tower.transform.std],
        **tower.key,
    }

    def rows() -> Iterator[tuple[Sequence[str], Tensor]]:
        done = 0
        for views, read_B, features_BSW in _computed(data, tower, workers):
            lost = [view.id for view, read in zip(views, read_B.tolist(), strict=True) if not read]
            yield lost, features_BSW
            done += len(views)
            advance(done, len(data))

    array_NSW, unreadable = _kept(data, about, (len(data), *tower.shape), rows, None)
    try:
        refuse_too_many(unreadable, data, max_unreadable)
    except UserError:
        _remove(_file(data, about))
        raise
    gone = set(unreadable)
    index = tuple(row for row, example in enumerate(data) if example.id not in gone)
    return FrozenFeatures(data, tower.transform, index, unreadable, array_NSW[: len(index)], about)


class _OrNothing:
    """A transform that gives grey pixels, and an area of NaN, for an image that cannot be read."""

    def __init__(self, transform: ImageTransform) -> None:
        self._transform = transform

    def __call__(self, view: View) -> tuple[Tensor, Box]:
        try:
            return self._transform(view)
        except UnreadableImageError:
            nothing = float("nan")
            return torch.full(self._transform.shape, 128, dtype=torch.uint8), (nothing, nothing, nothing, nothing)


def _computed(data: Examples, tower: FrozenTower, workers: int) -> Iterator[tuple[list[View], Tensor, Tensor]]:
    """Views, which of them could be read, and the features of those alone, batch by batch."""
    # without a content each image is opened apart, within the transform that notes what cannot be read
    groups = (
        [replace(view, item=replace(view.item, content="")) for view in data.views[start : start + BATCH]]
        for start in range(0, len(data), BATCH)
    )
    # a loader draws a seed for its workers: the training draws the same numbers with features from the file
    with torch.random.fork_rng(devices=[]):
        batches = pixel_batches(_OrNothing(tower.transform), groups, BATCH, workers, tower.device)
        for views, pixels_BHWC, area_B4 in batches:
            read_B = ~area_B4.isnan().any(1)
            ids = [view.id for view, read in zip(views, read_B.tolist(), strict=True) if read]
            features_BSW = tower.features(pixels_BHWC)[read_B.to(tower.device)]
            yield views, read_B, halved(features_BSW, ids, tower.name).cpu()


def _file(data: Examples, about: Mapping[str, Any]) -> Path:
    name = f"{as_part(data.dataset)}-{as_part(data.split)}-{canonical_hash(about)[:24]}"
    return cache_folder() / FOLDER / f"{name}.npy"


def _kept(
    data: Examples,
    about: Mapping[str, Any],
    shape: tuple[int, ...],
    rows: Callable[[], Iterable[tuple[Sequence[str], Tensor]]],
    unreadable: tuple[str, ...] | None,
) -> tuple[ndarray, tuple[str, ...]]:
    """The features of a cached file and the ids of unreadable images; `rows` gives both where there is no such file."""
    file = _file(data, about)
    found = _intact(file, about)
    if found is None:
        # of several processes that begin together one computes, and the others wait for it
        with locked(file.with_suffix(".lock"), wait=True):
            found = _intact(file, about)
            if found is None:
                _remove(file)
                _write(file, about, shape, rows(), unreadable)
                found = _intact(file, about, said=True)
    assert found is not None, file
    return np.load(file, mmap_mode="r"), found


def _intact(file: Path, about: Mapping[str, Any], said: bool = False) -> tuple[str, ...] | None:
    """Ids of the unreadable images of a file that holds what `about` says, as it was written; None for any other."""
    if not file.is_file():
        return None
    try:
        beside = json_value(file.with_suffix(".json").read_bytes())
        is_that, unreadable = beside["about"] == json.loads(json.dumps(about)), tuple(map(str, beside["unreadable"]))
        is_whole = beside["crc32"] == _checksum(file)
    except (OSError, ValueError, KeyError, TypeError):
        is_that, is_whole, unreadable = True, False, ()
    if is_that and is_whole:
        return unreadable
    if not said:
        why = "are damaged" if is_that else "are those of other images or of another tower"
        sys.stderr.write(f"The features {file} {why}: they are computed again.\n")
    return None


def _write(
    file: Path,
    about: Mapping[str, Any],
    shape: tuple[int, ...],
    rows: Iterable[tuple[Sequence[str], Tensor]],
    unreadable: tuple[str, ...] | None,
) -> None:
    lost = list(unreadable or ())
    try:
        with draft(file) as temporary:
            array = np.lib.format.open_memmap(temporary, mode="w+", dtype=STORED, shape=shape)
            array.flush()
            reserve(temporary, temporary.stat().st_size)
            done = 0
            for not_read, features_BSV in rows:
                lost += not_read
                array[done : done + len(features_BSV)] = features_BSV.numpy()
                done += len(features_BSV)
            array.flush()
            del array
            beside = {"about": about, "unreadable": lost, "crc32": _checksum(temporary)}
            write_atomic(file.with_suffix(".json"), json.dumps(beside, indent=1).encode())
    except OSError as error:
        if remedy(error) is not None:
            raise UserError(
                f"The features of the frozen tower cannot be kept in {file.parent} ({error.strerror}; they need "
                f"{2 * int(np.prod(shape)) / 2**20:.0f} MiB): free space or set SPARC_BENCH_CACHE to another folder."
            ) from None
        raise


def _remove(file: Path) -> None:
    for each in (file, file.with_suffix(".json")):
        each.unlink(missing_ok=True)


def _checksum(file: Path) -> str:
    """CRC-32 (2 GB/s) of a file, as text."""
    found = 0
    with file.open("rb") as opened:
        while block := opened.read(_BLOCK):
            found = zlib.crc32(block, found)
    return f"{found:08x}"
