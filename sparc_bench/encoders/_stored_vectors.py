"""Stored vectors by image id or text, with checks of names and numbers.

Shapes: N images, M texts, P patches, D joint width.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy import ndarray

from sparc_bench.encoders._stored_arrays import VECTORS, StoredArray, array_files, read_arrays
from sparc_bench.errors import UserError
from sparc_bench.weights.weights_file import file_sha256

SAME = 1e-5
"""Largest difference, as a share of their length, at which two vectors of one name count as the same."""

_IMAGE_SUFFIX = re.compile(r"\.(jpe?g|png|webp|bmp|gif|tiff?)$", re.IGNORECASE)
_CHUNK = 1 << 22
"""Values checked at once, to bound memory."""


class NamedVectors:
    """Vectors by name.

    Attributes:
        rows: the vectors N x D, possibly memory-mapped; a name can have several equal rows.
    """

    def __init__(self, what: str, names: Sequence[str], rows: StoredArray, loose: bool) -> None:
        """Index the rows by name.

        Args:
            what: "image" or "text", for errors.
            names: names of the rows; a repeated name must have equal vectors.
            rows: vectors N x D.
            loose: whether image names match with or without their file suffix.

        Raises:
            UserError: the number of names differs from that of rows, a value is not finite, or a name has two
                different vectors.
        """
        self.rows, self._loose = rows.values, loose
        _refuse_odd_numbers(rows, names)
        if len(names) != len(self.rows):
            raise UserError(
                f"{rows.file} has {len(self.rows)} rows, but there are {len(names)} {what} names: give one for each."
            )
        self._row: dict[str, int] = {}
        repeats: list[tuple[int, int]] = []
        for row, name in enumerate(names):
            first = self._row.setdefault(name, row)
            if first != row:
                repeats.append((first, row))
        self._refuse_two_vectors(np.array(repeats, dtype=np.int64).reshape(-1, 2), names, rows.file, what)
        self._stem: dict[str, int] = {}
        for name, row in self._row.items() if loose else ():
            stem = _IMAGE_SUFFIX.sub("", name)
            self._stem[stem] = row if stem not in self._stem else -1

    def find(self, name: str) -> int | None:
        """Row of a name, or None."""
        row = self._row.get(name)
        if row is None and self._loose:
            row = self._stem.get(_IMAGE_SUFFIX.sub("", name), -1)
        return None if row == -1 else row

    def __iter__(self) -> Iterator[str]:
        return iter(self._row)

    def _refuse_two_vectors(self, repeats_R2: ndarray, names: Sequence[str], file: Path, what: str) -> None:
        at_once = max(1, _CHUNK // max(1, self.rows.shape[1]))
        for start in range(0, len(repeats_R2), at_once):
            first_R, again_R = repeats_R2[start : start + at_once].T
            first_RD = np.asarray(self.rows[first_R], dtype=np.float64)
            apart_R = np.linalg.norm(first_RD - np.asarray(self.rows[again_R], dtype=np.float64), axis=1)
            different_R = apart_R > SAME * np.linalg.norm(first_RD, axis=1)
            if different_R.any():
                at = int(different_R.argmax())
                raise UserError(
                    f"{file} has two different vectors of the {what} {names[again_R[at]]!r} (rows {first_R[at]} and "
                    f"{again_R[at]}): keep one of them."
                )


@dataclass(frozen=True)
class StoredVectors:
    """The embeddings of a file or folder.

    Attributes:
        images: global vectors by image id, or None.
        texts: vectors by exact string, or None.
        patches_NPD: patch vectors in the row order of `images`, or None.
        grid: rows and columns of the patch grid, or None.
        areas_N4: area of each image that its patches cover, in pixels; None for the whole image.
        sha256: hash of the files' contents and names.
    """

    images: NamedVectors | None
    texts: NamedVectors | None
    patches_NPD: ndarray | None
    grid: tuple[int, int] | None
    areas_N4: ndarray | None
    sha256: str


def read_vectors(path: Path) -> StoredVectors:
    """The embeddings of a file or folder (see `sparc_bench.encoders.precomputed` for the layout).

    Raises:
        UserError: files are missing, damaged or pickled; vectors are not finite, differ in width or have no names.
    """
    files = array_files(path)
    found, names = read_arrays(path, files)
    if "image_embeddings" not in found and "text_embeddings" not in found:
        raise UserError(
            f"{path} holds no image_embeddings and no text_embeddings, but {', '.join(sorted(found)) or 'no arrays'}: "
            "save them as arrays of these names, or as image_embeddings.npy and text_embeddings.npy."
        )
    for key in ("image_embeddings", "text_embeddings"):
        _refuse_shape(found, key, 2, "one vector a row")
    sides = [
        NamedVectors(what, _names_of(names, key, found[array], path), found[array], loose=what == "image")
        if array in found
        else None
        for what, array, key in (("image", "image_embeddings", "image_ids"), ("text", "text_embeddings", "texts"))
    ]
    widths = {key: found[key].values.shape[-1] for key in VECTORS[:3] if key in found}
    if len(set(widths.values())) > 1:
        told = ", ".join(f"{key} {width}" for key, width in widths.items())
        raise UserError(f"{path} holds vectors of different widths ({told}): they must share one space.")
    patches_NPD, grid, areas_N4 = _patches(found, path)
    digest = hashlib.sha256("".join(f"{file.name} {file_sha256(file)}\n" for file in files).encode())
    return StoredVectors(sides[0], sides[1], patches_NPD, grid, areas_N4, digest.hexdigest())


def _names_of(names: dict[str, list[str]], key: str, rows: StoredArray, path: Path) -> list[str]:
    if key not in names:
        raise UserError(
            f"{path} has no names for the rows of {rows.file.name}: add an array '{key}' of strings, a file "
            "inputs.json, or metadata.csv with the columns image_id and caption."
        )
    return names[key]


def _patches(
    found: dict[str, StoredArray], path: Path
) -> tuple[ndarray | None, tuple[int, int] | None, ndarray | None]:
    if "image_patches" not in found:
        return None, None, None
    _refuse_shape(found, "image_patches", 3, "images x patches x width")
    patches_NPD, file = found["image_patches"].values, found["image_patches"].file
    if "image_embeddings" not in found or len(found["image_embeddings"].values) != len(patches_NPD):
        raise UserError(f"{path} has patches of {len(patches_NPD)} images: give as many image_embeddings beside them.")
    _refuse_odd_numbers(found["image_patches"])
    grid = found["patch_grid"].values.ravel().tolist() if "patch_grid" in found else []
    if len(grid) != 2 or int(grid[0]) * int(grid[1]) != patches_NPD.shape[1]:
        told = f"the patch_grid {grid}" if grid else "no patch_grid"
        raise UserError(
            f"{file} has {patches_NPD.shape[1]} patches an image, but {path} has {told}: add an array patch_grid of "
            "their rows and columns."
        )
    areas = found.get("image_areas")
    if areas is not None:
        _refuse_odd_numbers(areas)
        if areas.values.shape != (len(patches_NPD), 4):
            raise UserError(f"{areas.file} has image_areas of another shape than {len(patches_NPD)} x 4: mend them.")
    return patches_NPD, (int(grid[0]), int(grid[1])), None if areas is None else areas.values


def _refuse_shape(found: dict[str, StoredArray], key: str, axes: int, what: str) -> None:
    if key in found and (found[key].values.ndim != axes or 0 in found[key].values.shape):
        shape = " x ".join(map(str, found[key].values.shape)) or "one number"
        raise UserError(f"{found[key].file} has {key} of shape {shape}: save {what}, at least one.")


def _refuse_odd_numbers(array: StoredArray, names: Sequence[str] = ()) -> None:
    """Raise UserError for values that are no floats, or not finite or lost in float32; `names` of the rows."""
    values = array.values
    if values.dtype.kind != "f":
        raise UserError(f"{array.file} holds numbers of type {values.dtype}: save the vectors as float32 or float16.")
    odd: list[int] = []
    lost: list[int] = []
    at_once = max(1, _CHUNK // max(1, values[0].size))
    for start in range(0, len(values), at_once):
        stored = np.asarray(values[start : start + at_once])
        with np.errstate(over="ignore", under="ignore"):
            chunk = stored.astype(np.float32, copy=False)
        odd += (start + np.flatnonzero(~np.isfinite(chunk).reshape(len(chunk), -1).all(axis=1))).tolist()
        if chunk is not stored:
            held, kept = (part.reshape(len(part), -1).any(axis=1) for part in (stored, chunk))
            lost += (start + np.flatnonzero(held & ~kept)).tolist()
    for rows, what, cure in (
        (odd, "values that are NaN or infinite in float32", "embed these again, or leave the rows out"),
        (lost, "numbers so small that all are 0 in float32", "scale the vectors up before they are saved"),
    ):
        if rows:
            name = f" ({names[rows[0]]!r})" if rows[0] < len(names) else ""
            raise UserError(
                f"{array.file} has {what} in {len(rows)} of {len(values)} rows, such as row {rows[0]}{name}: {cure}."
            )
