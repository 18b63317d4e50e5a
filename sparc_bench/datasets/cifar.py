"""CIFAR-10 and CIFAR-100 as published: the binary or the Python version (both hold the same pictures).

The Python version is pickled, and unpickling can run code; this reader therefore allows lists, strings and NumPy arrays
only. `image_folder` reads CIFAR as PNG files in class folders.
"""

from __future__ import annotations

import hashlib
import io
import pickle
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy import ndarray
from PIL import Image
from pydantic import Field

from sparc_bench.cards.card import Strict
from sparc_bench.dataset import Computed, Examples, LazyExamples
from sparc_bench.errors import UserError
from sparc_bench.files.annotations import DataFolder, known_split
from sparc_bench.files.compact_strings import CompactStrings
from sparc_bench.images.item import ImageItem

TITLE = "CIFAR-10 and CIFAR-100: pictures of 32 x 32 pixels, 50,000 for training and 10,000 for test"
SOURCE = "Krizhevsky 2009, Learning Multiple Layers of Features from Tiny Images; cs.toronto.edu/~kriz/cifar.html"
NEEDS_ON_DISK = "cifar-10-batches-bin/ or cifar-10-batches-py/ (CIFAR-100: cifar-100-binary/ or cifar-100-python/)"
PROVIDES = frozenset({"labels", "splits"})
SPLITS = {"train": "train", "test": "test", "train+test": "test"}

SIDE = 32
PIXELS = 3 * SIDE * SIDE


@dataclass(frozen=True)
class _Version:
    """A published version of a data set: its folder, the files of each split and the file of class names."""

    folder: str
    files: dict[str, tuple[str, ...]]
    names: str


_BATCHES = tuple(f"data_batch_{number}" for number in range(1, 6))
_VERSIONS: dict[str, tuple[_Version, _Version]] = {
    "cifar10": (
        _Version(
            "cifar-10-batches-bin",
            {"train": tuple(f"{name}.bin" for name in _BATCHES), "test": ("test_batch.bin",)},
            "batches.meta.txt",
        ),
        _Version("cifar-10-batches-py", {"train": _BATCHES, "test": ("test_batch",)}, "batches.meta"),
    ),
    "cifar100": (
        _Version("cifar-100-binary", {"train": ("train.bin",), "test": ("test.bin",)}, "fine_label_names.txt"),
        _Version("cifar-100-python", {"train": ("train",), "test": ("test",)}, "meta"),
    ),
}


class Options(Strict):
    """Version of CIFAR (CIFAR-100 with its 100 fine classes) and its folder."""

    name: Literal["cifar10", "cifar100"] = Field(default="cifar10", description="version: 10 or 100 classes")
    folder: str = Field(
        default="cifar-10-batches-bin",
        description="folder of the binary version, under the data root; if missing, the Python version's folder beside "
        "it is read",
    )


@dataclass(frozen=True)
class _Picture:
    label: int
    pixels: bytes
    file_name: str


def read(root: Path | None, split: str, options: Options) -> Examples:
    """The pictures in the files' order; an id is the split with the position in it, the same in both versions.

    Only the Python version names the photos (`Example.photo`). In `train+test`, the tag `split` holds the part of each
    picture.

    Raises:
        UserError: a file is missing or malformed.
    """
    known_split(split, SPLITS, "cifar")
    binary, python = _VERSIONS[options.name]
    twin = Path(options.folder).with_name(python.folder)
    in_python = options.folder == str(twin) or (
        root is not None and not (root / options.folder).exists() and (root / twin).is_dir()
    )
    home = DataFolder.find(root, str(twin) if in_python else options.folder, NEEDS_ON_DISK)
    version = python if in_python else binary
    classes = _python_names(home, version.names) if in_python else tuple(home.lines(version.names))
    parts = split.split("+")
    found = _Pictures(options.name)
    digest = hashlib.sha256("\n".join(classes).encode())
    for part in parts:
        pictures = [
            picture
            for file in version.files[part]
            for picture in (_python_pictures(home, file) if in_python else _binary_pictures(home, file, options.name))
        ]
        highest = max(picture.label for picture in pictures)
        if highest >= len(classes):
            raise UserError(f"{home.path} has the class {highest} and names {len(classes)} classes: copy it again.")
        for picture in pictures:
            digest.update(bytes([picture.label]) + picture.pixels)
        found.add(part, pictures)
    return Examples(
        dataset="cifar",
        split=split,
        examples=found.examples(),
        classes=classes,
        fingerprint=digest.hexdigest(),
        sizes=found.counts if len(parts) > 1 else {},
    )


class _Pictures:
    """The pictures of one or two parts; beside the 3,072 bytes of its pixels one takes about thirty."""

    def __init__(self, name: str) -> None:
        self.counts: dict[str, int] = {}
        self._name = name
        self._pixels = bytearray()
        self._labels = bytearray()
        self._file_names = CompactStrings()

    def add(self, part: str, pictures: Sequence[_Picture]) -> None:
        self.counts[part] = len(pictures)
        self._file_names.extend(picture.file_name for picture in pictures)
        for picture in pictures:
            self._pixels += picture.pixels
            self._labels.append(picture.label)

    def examples(self) -> LazyExamples:
        count = len(self._labels)
        columns: dict[str, Sequence[Any]] = {
            "id": Computed(count, self._id),
            "label": self._labels,
            "photo": Computed(count, self._photo),
        }
        if len(self.counts) > 1:
            columns["tags"] = Computed(count, self._tag)
        return LazyExamples.of(columns, self._image)

    def _place(self, at: int) -> tuple[str, int]:
        """Part of a picture, and its position there."""
        for part, count in self.counts.items():
            if at < count:
                return part, at
            at -= count
        raise IndexError(at)

    def _id(self, at: int) -> str:
        part, place = self._place(at)
        return f"{part}/{place:05d}"

    def _photo(self, at: int) -> str:
        file_name = self._file_names[at]
        return f"{self._name}:{Path(file_name).stem}" if file_name else ""

    def _tag(self, at: int) -> Mapping[str, str]:
        return {"split": self._place(at)[0]}

    def _image(self, at: int) -> ImageItem:
        pixels = bytes(memoryview(self._pixels)[at * PIXELS : (at + 1) * PIXELS])
        return ImageItem(self._id(at), partial(_opened, pixels), content=hashlib.sha256(pixels).hexdigest())


def _opened(pixels: bytes) -> Image.Image:
    return Image.fromarray(np.frombuffer(pixels, np.uint8).reshape(3, SIDE, SIDE).transpose(1, 2, 0))


def _binary_pictures(home: DataFolder, file: str, name: str) -> Iterator[_Picture]:
    """Pictures of a binary file: one label byte (CIFAR-100: coarse, then fine), then 1,024 bytes per channel RGB."""
    content = home.read(file)
    labels = 1 if name == "cifar10" else 2
    size = labels + PIXELS
    if not content or len(content) % size:
        raise UserError(f"{home.path / file} has {len(content)} bytes, not a multiple of {size}: copy it again.")
    for start in range(0, len(content), size):
        yield _Picture(content[start + labels - 1], content[start + labels : start + size], "")


def _python_pictures(home: DataFolder, file: str) -> Iterator[_Picture]:
    table = _unpickled(home, file)
    data, names = table.get(b"data"), table.get(b"filenames")
    found = table.get(b"fine_labels", table.get(b"labels"))
    if (
        not isinstance(data, ndarray)
        or (data.dtype, data.shape[1:]) != (np.uint8, (PIXELS,))
        or not isinstance(found, list)
        or not isinstance(names, list)
        or not len(data) == len(found) == len(names) > 0
    ):
        raise UserError(f"{home.path / file} lacks data, labels or filenames of equal length: copy it again.")
    for row, label, name in zip(data, found, names, strict=True):
        yield _Picture(int(label), row.tobytes(), name.decode())


def _python_names(home: DataFolder, file: str) -> tuple[str, ...]:
    table = _unpickled(home, file)
    names = table.get(b"fine_label_names", table.get(b"label_names"))
    if not isinstance(names, list):
        raise UserError(f"{home.path / file} names no classes: copy it again.")
    return tuple(name.decode() for name in names)


_ALLOWED = {
    "_reconstruct": np.zeros(0).__reduce__()[0],  # its module differs between NumPy versions
    "ndarray": np.ndarray,
    "dtype": np.dtype,
}


class _ArraysOnly(pickle.Unpickler):
    """Unpickler of NumPy arrays and built-in types that refuses all other classes."""

    def find_class(self, module_name: str, global_name: str) -> Any:  # noqa: ANN401 - as the base says
        if module_name.partition(".")[0] == "numpy" and global_name in _ALLOWED:
            return _ALLOWED[global_name]
        raise pickle.UnpicklingError(f"it asks for {module_name}.{global_name}")


def _unpickled(home: DataFolder, file: str) -> dict[bytes, Any]:
    content = home.read(file)
    try:
        table = _ArraysOnly(io.BytesIO(content), encoding="bytes").load()
    except Exception as error:
        raise UserError(f"{home.path / file} is no batch of CIFAR's Python version ({error}): copy it again.") from None
    if not isinstance(table, dict):
        raise UserError(f"{home.path / file} is no batch of CIFAR's Python version: copy it again.")
    return table
