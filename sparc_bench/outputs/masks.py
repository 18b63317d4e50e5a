"""Index masks: a class for every pixel, from a semantic segmenter.

Pixel values are class indices from 0 in the data set's order, then background where the task scores it, or 0 for
background and classes from 1, as VOC and others number their own masks; the highest value of the file's type (255, or
65535 with 16 bits) means no prediction. A list of class names allows any order.

Shapes: H W pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int, Integer
from numpy import ndarray
from PIL import Image

from sparc_bench.dataset import Example
from sparc_bench.errors import UserError, nearest
from sparc_bench.files.annotations import decoded
from sparc_bench.outputs.ids import IdMatch, file_names
from sparc_bench.outputs.outputs_file import CLASSES_FILE, OutputsFile

TITLE = "index masks"
FORMAT = (
    "a folder of PNG files named by image id (or an .npz with one array for each id), each of the photo's own size, "
    "whose pixel values count the data set's classes from 0, background last where the task scores it, or from 1 with "
    "0 for background (what fits the truth is taken, and noted), 255 for no prediction (65535 with 16 bits); for any "
    f"other numbering {CLASSES_FILE} in the folder (`classes` in the .npz) names the values in order"
)
BACKGROUND = "background"
NO_PREDICTION = -1


@dataclass(frozen=True)
class Masks:
    """Index masks by image, opened one at a time.

    Attributes:
        where: path of the file or folder, for messages.
        image_ids: ids in the file's order.
        names: class names of the pixel values, in order; None for the task's classes in their order.
        open: function from the index of an image to its pixel values, of an unsigned type.
    """

    where: str
    image_ids: tuple[str, ...]
    names: tuple[str, ...] | None
    open: Callable[[int], ndarray]

    def places(self, examples: Sequence[Example]) -> IdMatch:
        """Match of a task's images with the masks; raises UserError where an image has no mask."""
        ids = [example.id for example in examples]
        found = IdMatch.of(ids, self.image_ids, self.where, file_names(examples))
        found.refuse_missing(ids, self.where)
        return found

    def numberings(self, classes: Sequence[str]) -> tuple[Numbering, ...]:
        """Possible meanings of the pixel values, the first unless another fits better; names leave one numbering.

        Raises:
            UserError: a class name is unknown to the task.
        """
        place = {name: index for index, name in enumerate(classes)}
        if self.names is None:
            foreground = [name for name in classes if name != BACKGROUND]
            first = Numbering("counted from 0", np.arange(len(classes)))
            return first, Numbering("0 background, classes from 1", _indices([BACKGROUND, *foreground], place))
        unknown = [name for name in self.names if name not in place and name != BACKGROUND]
        if unknown:
            raise UserError(
                f"{self.where} names the class '{unknown[0]}', which the task does not have: "
                f"{nearest(unknown[0], place)}"
            )
        return (Numbering(f"as {CLASSES_FILE} names them", _indices(self.names, place)),)

    def read(self, index: int, size: tuple[int, int], item_id: str) -> Integer[ndarray, "H W"]:
        """Value of every pixel of an image; raises UserError where the mask has another size (height, width)."""
        values_HW = self.open(index)
        if values_HW.shape != size:
            found = " x ".join(map(str, values_HW.shape))
            raise UserError(
                f"The mask of {item_id} in {self.where} is {found}, its photo {size[0]} x {size[1]} (rows x columns): "
                "resize masks to the photo's own size, taking the nearest pixel."
            )
        return values_HW

    def undefined(self, values_HW: Integer[ndarray, "H W"], numbering: Numbering, item_id: str) -> UserError | None:
        """The error of a pixel value that stands for no class, or None."""
        nothing = np.iinfo(values_HW.dtype).max
        odd = np.unique(values_HW[(values_HW >= len(numbering)) & (values_HW != nothing)])
        if not len(odd):
            return None
        return UserError(
            f"The mask of {item_id} in {self.where} has the value {odd[0]}, but classes are 0 to {len(numbering) - 1} "
            f"and {nothing} is no prediction: number the classes from 0, or name the values in {CLASSES_FILE} "
            "(background too)."
        )


@dataclass(frozen=True)
class Numbering:
    """Meaning of pixel values.

    Attributes:
        title: the rule in words.
        class_of_value: class index of the task for each value; -1 for background where the task does not score it.
    """

    title: str
    class_of_value: Int[ndarray, "values"]

    def __len__(self) -> int:
        return len(self.class_of_value)

    def classes(self, values_HW: Integer[ndarray, "H W"]) -> Int[ndarray, "H W"]:
        """Class index of every pixel; -1 without a prediction and for an undefined value."""
        padded = np.append(self.class_of_value, NO_PREDICTION)
        return np.asarray(padded[np.minimum(values_HW, len(self)).astype(np.intp)])


def _indices(names: Sequence[str], place: Mapping[str, int]) -> Int[ndarray, "values"]:
    return np.array([place.get(name, NO_PREDICTION) for name in names], dtype=np.int64)


def parse(file: OutputsFile) -> Masks | None:
    """The masks, or None for a file of another kind.

    Raises:
        UserError: a folder has no PNG files, an array has another type, or a class name is repeated.
    """
    if file.folder is not None:
        return _of_folder(file.path, file.folder)
    if file.arrays is None or not any(array.ndim == 2 for array in file.arrays.values()):
        return None
    if {"image_ids", "texts"} & file.arrays.keys():  # a similarity matrix
        return None
    arrays = dict(file.arrays)
    listed = arrays.pop("classes", None)
    where = str(file.path)
    for name, array in arrays.items():
        if array.dtype not in (np.uint8, np.uint16) or array.ndim != 2:
            raise UserError(
                f"The mask {name} in {where} is a {array.dtype} array with {array.ndim} axes: give uint8 or uint16, "
                "rows by columns."
            )
    ids = tuple(arrays)
    names = None if listed is None else _named([str(name) for name in listed.tolist()], where)
    return Masks(where, ids, names, lambda index: arrays[ids[index]])


def _of_folder(path: Path, files: Sequence[str]) -> Masks:
    pictures = [name for name in files if name.lower().endswith(".png")]
    if not pictures:
        raise UserError(f"The folder {path} holds no PNG files: masks are named by image id, such as 2007_000033.png.")
    names = None
    if CLASSES_FILE in files:
        lines = decoded((path / CLASSES_FILE).read_bytes(), path / CLASSES_FILE).splitlines()
        names = _named([line.strip() for line in lines if line.strip()], str(path / CLASSES_FILE))
    return Masks(str(path), tuple(pictures), names, lambda index: _opened(path / pictures[index]))


def _named(names: Sequence[str], where: str) -> tuple[str, ...]:
    if not names or len(set(names)) != len(names):
        raise UserError(f"{where} names {len(names)} classes, {len(set(names))} different ones: name each value once.")
    return tuple(names)


def _opened(path: Path) -> ndarray:
    try:
        with Image.open(path) as image:
            mode = image.mode
            values_HW = np.asarray(image)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UserError(f"{path} cannot be decoded ({error}): write it again.") from None
    if mode in ("P", "L"):
        return values_HW.astype(np.uint8)
    if mode in ("I;16", "I;16B", "I"):
        return values_HW.astype(np.uint16)
    raise UserError(f"{path} holds colours ({mode}), not class numbers: write a grey or palette PNG of 8 or 16 bits.")
